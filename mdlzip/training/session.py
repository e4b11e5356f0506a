"""A network in training: weights, optimisers, penalty, masks, rounding, batches; step by step.

No clock and no disk: whoever drives a session says which fraction of the run is done. The planner
times a session, the loop trains it, `study overhead` compares several.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mdlzip.config import Preset
from mdlzip.model.transformer import Rounding, Transformer
from mdlzip.networks.registry import activation_sites
from mdlzip.sparsity.masks import MaskHold, Masks
from mdlzip.sparsity.schedule import AlphaSchedule
from mdlzip.symbols.tokens import Tokens
from mdlzip.symbols.vocabulary import START_SYMBOL
from mdlzip.training.data import IGNORE, Batch, batches_for
from mdlzip.training.loss import code_nats
from mdlzip.training.optim import make_optimisers
from mdlzip.training.penalty import make_penalty, price_weights
from mdlzip.training.qat import QatRounding, choose_steps
from mdlzip.training.state import below, collect, restore

_REFIT_EVERY = 10  # steps


@dataclass(frozen=True)
class Step:
    """What one update was made with.

    number: from 0. alpha: strength of the penalty. rates: learning rate of each optimiser. loss:
    mean nats per symbol of the batch before the update, 0-dim, on the session's device: reading it
    waits for the device. targets: int64 (B, T), those of the batch.
    """

    number: int
    alpha: float
    rates: Mapping[str, float]
    loss: Tensor
    targets: Tensor


class Session:
    """State of one network's training, begun from `seed`.

    preset: its alpha of 0 is chosen from the file; `config` has the value. device: of torch.
    Symbols that never occur are never trained: their rows are zero from the start. Raises
    UsageError for an l0 method or option that does not exist.
    """

    def __init__(self, tokens: Tokens, preset: Preset, *, device: str, seed: int) -> None:
        self.preset, self.device = preset, torch.device(device)
        self.vocabulary, self.total_bytes = tokens.vocabulary, tokens.total_bytes
        self.batches = batches_for(tokens, preset, seed)
        self.model = Transformer(preset.model, tokens.layout.chunk_size).to(self.device)
        self.model.restrict(torch.from_numpy(self.vocabulary.symbols).long())
        self.model.initialise(seed)
        self.params, self.specs = dict(self.model.named_parameters()), self.model.specs
        self.optimisers = make_optimisers(self.model, preset.train)
        self.method = make_penalty(preset.train)
        self.method.attach({n: p for n, p in self.params.items() if self.specs[n].prunable})
        self.masks = self._absent_symbols()
        dead = sum(int((~mask).sum()) for mask in self.masks.values())
        alive = self.n_weights - dead
        self.config = price_weights(
            preset.train, alive / max(self.total_bytes, 1), tokens.bytes_per_symbol
        )
        self._alpha = AlphaSchedule(
            self.config.alpha, warmup=0.1, ramp="linear", start=0.0, stop=self.config.alpha_stop
        )
        self.steps_done, self.pruned = 0, False
        self._hold = self._hold_masks()

    @property
    def n_weights(self) -> int:
        """Of the network, rows of absent symbols included."""
        return sum(p.numel() for p in self.params.values())

    def _absent_symbols(self) -> Masks:
        """Zero the rows of symbols that never occur; the masks that keep them so."""
        rows = torch.from_numpy(self.vocabulary.ranks >= 0)
        rows[START_SYMBOL] = True  # before a chunk in the embedding, trust in a match in the head
        out = {}
        for name, spec in self.specs.items():
            if not (spec.is_matrix and spec.by_symbol):
                continue
            keep = rows[: spec.shape[0], None]
            out[name] = keep.expand(spec.shape).clone().to(self.device)
            self.params[name].data.masked_fill_(~out[name], 0.0)
        return out

    def _hold_masks(self) -> MaskHold:
        return MaskHold(self.params, self.masks, *self.optimisers.values())

    # --- steps -------------------------------------------------------------------------------

    def step(self, fraction: float) -> Step:
        """One update at `fraction` of the run, 0 to 1, which sets learning rates and penalty."""
        number = self.steps_done
        if self.rounding is not None and number % _REFIT_EVERY == 0:
            self.refit_vectors()
        batch = self.batches.batch(number).to(self.device)
        with self._autocast():
            logits = self.model(batch.symbols, batch.matches)
        y = batch.targets
        loss = code_nats(logits, batch) / (y != IGNORE).sum()
        loss.backward()
        alpha, rates = self._alpha(fraction), self._rates(fraction)
        self._update(alpha, rates)
        self.steps_done += 1
        return Step(number, alpha, rates, loss.detach(), y)

    def _update(self, alpha: float, rates: Mapping[str, float]) -> None:
        """Penalty and optimisers on the gradients that are there."""
        c = self.config
        if c.optimiser == "adamw" and alpha:
            self.method.add_to_gradients(alpha)
        if c.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), c.clip)
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = rates[name]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        both = c.optimiser == "muon"
        lr = {n: rates[self.specs[n].optimiser if both else "adam"] for n in self.method.names}
        if both and alpha:
            self.method.shrink(alpha, lr)
        if alpha and not self.pruned:
            self.method.advance(alpha, lr)

    def _rates(self, fraction: float) -> dict[str, float]:
        """Learning rate of each optimiser: warm-up, plateau, linear decay."""
        c = self.config
        rate = min(1.0, (self.steps_done + 1) / max(c.warmup_steps, 1))
        if fraction > c.decay_start:
            rate *= max((1 - fraction) / max(1 - c.decay_start, 1e-9), c.final_lr)
        return {"muon": c.muon_lr * rate, "adam": c.adam_lr * rate}

    def _autocast(self) -> AbstractContextManager[object]:
        kind = self.device.type
        fast = kind == "cuda" or torch.cpu._is_avx512_bf16_supported()
        return torch.autocast(kind, torch.bfloat16) if fast else nullcontext()

    def synchronise(self) -> None:
        """Wait until the device has done what it was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def bits_per_byte(self, step: Step) -> float:
        """The loss of a step in bits for each byte of its batch."""
        symbols = int((step.targets != IGNORE).sum())
        symbols_per_byte = symbols / max(self.batches.bytes_of(step.targets), 1)
        return float(step.loss) / float(np.log(2)) * symbols_per_byte

    def bytes_before(self, step: int) -> float:
        """Bytes of all batches before step number `step`, on average."""
        return step * self.batches.passes_per_step * self.total_bytes

    # --- masks and rounding ------------------------------------------------------------------

    def sample(self, n: int) -> list[Batch]:
        """Batches of `n` pieces spread evenly over the file, on the session's device."""
        return [batch.to(self.device) for batch in self.batches.sample_pieces(n)]

    def fix_masks(self, masks: Masks) -> None:
        """Hold weights outside `masks` at zero from now on; no penalty moves them any more."""
        self.masks = {**self.masks, **masks}
        self.pruned = True
        self._hold.release()
        self._hold = self._hold_masks()

    @property
    def rounding(self) -> QatRounding | None:
        """How the network sees its own quantisation; None while it does not."""
        found = self.model.rounding
        return found if isinstance(found, QatRounding) else None

    def round_by(
        self,
        steps: Mapping[str, tuple[int, int]],
        exponents: Mapping[str, int],
        stream_shift: int,
    ) -> None:
        """Let the network see its quantisation; arguments as for `QatRounding`."""
        self.model.rounding = QatRounding(
            self.specs, steps, exponents, self.config.deadzone, stream_shift
        )

    def stop_rounding(self) -> None:
        """Let the network compute in floating point again."""
        self.model.rounding = Rounding()

    def refit_vectors(self) -> None:
        """Let the (fine) steps of the vectors follow their largest values.

        Left as they were when quantising began, they would cut off what grows, and gradients go
        straight through: it would grow on unseen.
        """
        if (old := self.rounding) is None:
            raise ValueError("nothing is rounded yet")
        vectors = {n: p for n, p in self.params.items() if not self.specs[n].is_matrix}
        steps = old.steps | choose_steps(vectors, self.specs, 1.0)
        self.round_by(steps, old.exponents, old.stream_shift)

    # --- state -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """All that later steps depend on, by name: the live tensors and integers as int64 ones."""
        out = collect(self.model, self.optimisers)
        out |= {f"method/{k}": v for k, v in self.method.state_dict().items()}
        out |= {f"mask/{k}": v for k, v in self.masks.items()}
        numbers = {"steps_done": self.steps_done, "pruned": int(self.pruned)}
        if (r := self.rounding) is not None:
            numbers["stream_shift"] = r.stream_shift
            numbers |= {f"mantissa/{k}": m for k, (m, _) in r.steps.items()}
            numbers |= {f"exponent/{k}": e for k, (_, e) in r.steps.items()}
            numbers |= {f"site/{k}": e for k, e in r.exponents.items()}
        return out | {k: torch.tensor(v) for k, v in numbers.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave, of a session with the same arguments; copies it."""
        self._hold.release()
        restore(self.model, self.optimisers, state)
        self.method.load_state_dict(below(state, "method/"))
        self.masks = {k: v.to(self.device, copy=True) for k, v in below(state, "mask/").items()}
        self.steps_done, self.pruned = int(state["steps_done"]), bool(state["pruned"])
        self.stop_rounding()
        if "stream_shift" in state:
            exponents, sites = below(state, "exponent/"), below(state, "site/")
            self.round_by(
                {k: (int(m), int(exponents[k])) for k, m in below(state, "mantissa/").items()},
                {k: int(sites[k]) for k in activation_sites(self.model.config)},  # in order
                int(state["stream_shift"]),
            )
        self._hold = self._hold_masks()
