"""The steps of a training run: train under the l0 penalty, prune, fine-tune, quantise, export.

The phases follow the fraction of the run that is done. With a time budget the fraction grows by
measured seconds, with `--steps` by 1 / steps (then the same seed gives the same archive). All state
is in a checkpoint, so a killed run goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from mdlzip.errors import ExportRefused, Interrupted, MdlzipError, NoGain, UsageError
from mdlzip.fileio import plain_errors
from mdlzip.model.transformer import Rounding, Transformer
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.reorder import like_next_to_like
from mdlzip.sparsity.base import NoMethod
from mdlzip.sparsity.masks import MaskHold, Masks, density, from_nonzero
from mdlzip.sparsity.schedule import AlphaSchedule
from mdlzip.symbols.tokens import Tokens
from mdlzip.symbols.vocabulary import START_SYMBOL
from mdlzip.training import checkpoint, figures
from mdlzip.training.checkpoint import Checkpoint
from mdlzip.training.data import IGNORE, Batch
from mdlzip.training.metrics import Metrics, prequential_bytes, read_metrics, step_seconds
from mdlzip.training.optim import make_optimisers
from mdlzip.training.penalty import make_penalty, price_weights
from mdlzip.training.planner import Plan, make_batches
from mdlzip.training.pruning import prune
from mdlzip.training.qat import (
    QatRounding,
    calibrate,
    choose_steps,
    choose_stream_shift,
    export,
    halve_unbearable,
    measure_curvature,
    price_steps,
)

Progress = Callable[[str, float, float, str], None]
_CHECKPOINT_EVERY_S = 60.0
_FIRST_CHECKPOINT = 10  # steps
_REFIT_EVERY = 10  # steps
_SAMPLE_CHUNKS, _FINAL_CHUNKS = 48, 64
# Fraction of the run, and the least share of the loss there that may be left at its end; on prose
# and logs it was 0.8 to 0.9.
_LEAST_SHARE_OF_LOSS = ((0.15, 0.5), (0.4, 0.65))


@dataclass(frozen=True)
class TrainResult:
    """The network that the archive will hold, and what was measured on the way."""

    network: IntegerNetwork
    figures: dict[str, float] = field(default_factory=dict)


class Trainer:
    """State and steps of one run."""

    def __init__(
        self,
        tokens: Tokens,
        options: Any,
        plan: Plan,
        work_dir: Path,
        *,
        resumed: Checkpoint | None = None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.plan, self.config = plan, plan.preset.train
        self.work_dir, self.total_bytes = work_dir, tokens.total_bytes
        self.device = torch.device(plan.device)
        self.vocabulary = tokens.vocabulary
        self.batches = make_batches(tokens, plan.preset, options.seed)
        self.model = Transformer(plan.preset.model, tokens.layout.chunk_size).to(self.device)
        self.model.restrict(torch.from_numpy(self.vocabulary.symbols).long())
        self.model.initialise(options.seed)
        self.params, self.specs = dict(self.model.named_parameters()), self.model.specs
        self.optimisers = make_optimisers(self.model, self.config)
        self.method = make_penalty(self.config)
        self.method.attach({n: p for n, p in self.params.items() if self.specs[n].prunable})
        self.masks: Masks = self._absent_symbols()
        dead = sum(int((~mask).sum()) for mask in self.masks.values())
        alive = sum(p.numel() for p in self.params.values()) - dead
        self.config = price_weights(
            self.config, alive / max(self.total_bytes, 1), tokens.bytes_per_symbol
        )
        self.alpha = AlphaSchedule(
            self.config.alpha, warmup=0.1, ramp="linear", start=0.0, stop=self.config.alpha_stop
        )
        self.hold: MaskHold | None = None
        self.steps: dict[str, tuple[int, int]] = {}
        self.exponents: dict[str, int] = {}
        self.stream_shift = 0
        self.loss_mean = float("nan")
        self.rival_bytes: int | None = None
        self.progress = checkpoint.Progress()
        self.settings = checkpoint.Settings(
            preset=plan.preset,
            chunk_size=tokens.layout.chunk_size,
            group_chunks=tokens.layout.group_chunks,
            seed=options.seed,
            steps=plan.steps,
            budget_s=None if plan.steps else plan.budget_s,
            total_bytes=self.total_bytes,
        )
        if resumed is not None:
            self._resume(resumed)
        work_dir.mkdir(parents=True, exist_ok=True)
        self.warn = warn
        self.metrics = Metrics(
            work_dir / "metrics.jsonl",
            options.metrics,
            resume=resumed is not None,
            append=options.append_metrics,
            force=options.force,
            warn=warn,
        )
        self._hold()

    def _absent_symbols(self) -> Masks:
        """Rows of symbols that never occur are never trained: they are zero from the start."""
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

    def _hold(self) -> None:
        if self.hold:
            self.hold.release()
        self.hold = MaskHold(self.params, self.masks, *self.optimisers.values())

    # --- the loop ----------------------------------------------------------------------------

    def run(
        self,
        on_progress: Progress,
        should_stop: Callable[[], bool],
        began: float,
        check_source: Callable[[], None] = lambda: None,
    ) -> TrainResult:
        """Train to the end of the budget and export."""
        last_saved = last_step = time.monotonic()
        p, plan = self.progress, self.plan
        if plan.steps is None and p.step == 0:
            p.elapsed_s = last_step - began  # planning counts
        while p.fraction < 1.0:
            if not p.pruned and p.fraction >= self.config.prune_at:
                on_progress("prune", 0, 1, "searching the threshold")
                self._prune()
            if not p.quantising and p.fraction >= self.config.qat_at:
                self._start_quantising()
            if p.quantising and p.step % _REFIT_EVERY == 0:
                self._refit_vectors()
            self.step()
            now = time.monotonic()
            p.elapsed_s += now - last_step
            last_step = now
            p.step += 1
            if plan.steps is not None:
                p.fraction = p.step / plan.steps
            else:
                p.fraction = max(p.fraction, p.elapsed_s / max(plan.train_s, 1e-3))
            on_progress("train", min(p.fraction, 1.0), 1.0, f"{self.loss_mean:.3f} bits per byte")
            if p.step % 10 == 0:
                self._give_up_in_time()
            if should_stop():
                check_source()
                if self._save():
                    raise Interrupted(
                        "stopped after a checkpoint; the same command with --resume goes on"
                    )
                raise Interrupted("stopped; the checkpoint could not be written")
            early = p.step == _FIRST_CHECKPOINT  # a disk without room for it is known soon
            if early or now - last_saved > _CHECKPOINT_EVERY_S:
                check_source()
                self._save()
                last_saved = time.monotonic()
        if not p.pruned:
            self._prune()
        if not p.quantising:
            self._start_quantising()
        check_source()
        self._save()
        return self._finish(on_progress)

    def _give_up_in_time(self) -> None:
        """Raise NoGain if not even a loss that falls faster than any seen would beat the rival."""
        p = self.progress
        share = max((s for f, s in _LEAST_SHARE_OF_LOSS if p.fraction >= f), default=0.0)
        least = self.loss_mean * share * self.total_bytes / 8
        if self.rival_bytes is not None and p.step >= 100 and least > self.rival_bytes:
            raise NoGain(
                f"training was given up after {p.elapsed_s:.0f} s: at {self.loss_mean:.2f} bits per"
                f" byte the model will not get below {self.rival_bytes:,} bytes"
            )

    def _rates(self) -> dict[str, float]:
        """Learning rate of each optimiser at this fraction: warm-up, plateau, linear decay."""
        c, f = self.config, self.progress.fraction
        rate = min(1.0, (self.progress.step + 1) / max(c.warmup_steps, 1))
        if f > c.decay_start:
            rate *= max((1 - f) / max(1 - c.decay_start, 1e-9), c.final_lr)
        return {"muon": c.muon_lr * rate, "adam": c.adam_lr * rate}

    def _autocast(self) -> Any:
        kind = self.device.type
        fast = kind == "cuda" or torch.cpu._is_avx512_bf16_supported()
        return torch.autocast(kind, torch.bfloat16) if fast else nullcontext()

    def step(self) -> None:
        """One training step at the fraction and step of `progress`, which it leaves as they are."""
        x, y, matches = self.batches.batch(self.progress.step).to(self.device)
        with self._autocast():
            logits = self.model(x, matches)
        loss = F.cross_entropy(logits.float().flatten(0, 1), y.flatten(), ignore_index=IGNORE)
        loss.backward()
        c, rates = self.config, self._rates()
        alpha = self.alpha(self.progress.fraction)
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
        if alpha and not self.progress.pruned:
            self.method.advance(alpha, lr)
        if self.progress.step % 10 == 0 or self.progress.step < 10:
            symbols_per_byte = int((y != IGNORE).sum()) / max(self.batches.bytes_of(y), 1)
            bits = float(loss.detach()) / np.log(2) * symbols_per_byte
            old = self.loss_mean
            self.loss_mean = bits if old != old else 0.8 * old + 0.2 * bits
            self.metrics.write(
                "step",
                step=self.progress.step,
                bytes_seen=self._bytes_seen(),
                fraction=self.progress.fraction,
                alpha=alpha,
                bits_per_byte=bits,
                muon_lr=rates["muon"],
                elapsed_s=self.progress.elapsed_s,
            )

    def _bytes_seen(self) -> float:
        """Bytes of all batches before this step, on average."""
        return self.progress.step * self.batches.passes_per_step * self.total_bytes

    def _from_log(self) -> dict[str, float]:
        """The time of a step, and the online code length if the run has seen the whole file."""
        path = self.metrics.path
        if path is None:
            return {}
        try:
            records = read_metrics(path)
            out = {"step_seconds": step_seconds(records)}
            if self._bytes_seen() >= self.total_bytes:
                out["online_bytes"] = prequential_bytes(records, self.total_bytes)
        except (OSError, UsageError):
            return {}  # a metrics file that another run has begun anew
        return out

    # --- phases ------------------------------------------------------------------------------

    def _sample(self, n: int = _SAMPLE_CHUNKS) -> list[Batch]:
        return [batch.to(self.device) for batch in self.batches.sample_pieces(n)]

    def _prune(self) -> None:
        """Prune, unless there is no method to prune by; the mask is fixed from here on."""
        prunable = {n: self.params[n] for n in self.method.names}
        if not isinstance(self.method, NoMethod):
            prune(
                self.model,
                self.method,
                self.batches,
                self._sample(),
                self.config.tolerance,
                self.progress.step,
            )
            self.masks = {**self.masks, **from_nonzero(prunable)}
        self.progress.pruned = True
        self._hold()
        self.metrics.write("prune", step=self.progress.step, density=density(prunable))

    def _start_quantising(self) -> None:
        sample = [batch.symbols for batch in self._sample(16)]
        self.steps = choose_steps(self.params, self.specs, self._wanted_steps())
        self.exponents = calibrate(self.model, sample)
        self.stream_shift = choose_stream_shift(self.model, sample)
        self._use_rounding()
        self.progress.quantising = True
        self.metrics.write(
            "quantise", step=self.progress.step, stream_shift=self.stream_shift, **self.exponents
        )

    def _wanted_steps(self) -> float | dict[str, float]:
        """One step in root mean squares if the user set it, else from what each tensor bears."""
        c = self.config
        if c.step_rms:
            return c.step_rms
        sample = self._sample(24)

        def loss() -> float:
            return figures.float_nats(self.model, self.batches, sample)

        matrices = {n: p for n, p in self.params.items() if self.specs[n].is_matrix}
        curvature = measure_curvature(matrices, loss)
        wanted = price_steps(self.params, curvature, self.total_bytes, c.coarseness)
        wanted = halve_unbearable(self.params, wanted, loss, self.total_bytes, c.coarseness)
        self.metrics.write("steps", **wanted)
        return wanted

    def _use_rounding(self) -> None:
        self.model.rounding = QatRounding(
            self.specs, self.steps, self.exponents, self.config.deadzone, self.stream_shift
        )

    def _refit_vectors(self) -> None:
        """Let the (fine) steps of the vectors follow their largest values.

        Left as they were when quantising began, they would cut off what grows, and gradients go
        straight through: it would grow on unseen.
        """
        vectors = {n: p for n, p in self.params.items() if not self.specs[n].is_matrix}
        self.steps |= choose_steps(vectors, self.specs, 1.0)
        self._use_rounding()

    def _finish(self, on_progress: Progress) -> TrainResult:
        on_progress("quantise", 0, 1, "exporting")
        self._refit_vectors()
        rounding = self.model.rounding
        assert isinstance(rounding, QatRounding)
        network = like_next_to_like(export(self.model, rounding, self.vocabulary))
        sample = self.batches.sample_chunks(_FINAL_CHUNKS)  # whole ones, as they are coded
        qat = figures.float_nats(self.model, self.batches, sample)
        self.model.rounding = Rounding()
        plain = figures.float_nats(self.model, self.batches, sample)
        integer = figures.integer_nats(
            network, self.batches, self.batches.chunks_for(_FINAL_CHUNKS)
        )
        out = {
            "float_bits_per_byte": plain / np.log(2),
            "qat_bits_per_byte": qat / np.log(2),
            "integer_bits_per_byte": integer / np.log(2),
            "steps": float(self.progress.step),
            "train_seconds": self.progress.elapsed_s,
            "alpha": self.config.alpha,
        }
        out |= self._from_log()
        self.metrics.write("finish", **out)
        if not integer < 1e3:
            raise ExportRefused(
                "training diverged; try a smaller learning rate (--set train.muon_lr)"
            )
        return TrainResult(network, {k: float(v) for k, v in out.items()})

    # --- checkpoints -------------------------------------------------------------------------

    def _save(self) -> bool:
        """Write a checkpoint; whether that went well. It is a convenience, the archive decides."""
        tensors = checkpoint.collect(self.model, self.optimisers)
        tensors |= {f"method/{k}": v for k, v in self.method.state_dict().items()}
        tensors |= {f"mask/{k}": v for k, v in self.masks.items()}
        table = {f"mantissa/{k}": m for k, (m, _) in self.steps.items()}
        table |= {f"step/{k}": e for k, (_, e) in self.steps.items()}
        table |= {f"site/{k}": e for k, e in self.exponents.items()}
        table["stream_shift"] = self.stream_shift
        state = checkpoint.Checkpoint(self.settings, self.progress, tensors, table)
        try:
            with plain_errors("the checkpoint cannot be written, training goes on without"):
                checkpoint.save(self.work_dir, state)
        except MdlzipError as problem:
            self.warn(str(problem))
            return False
        return True

    def _resume(self, found: Checkpoint) -> None:
        self.progress, tensors, table = found.progress, found.tensors, found.table
        checkpoint.restore(self.model, self.optimisers, tensors)

        def part(prefix: str) -> dict[str, Any]:
            both = {**tensors, **table}
            return {k[len(prefix) :]: v for k, v in both.items() if k.startswith(prefix)}

        self.method.load_state_dict(part("method/"))
        self.masks = {k: v.bool().to(self.device) for k, v in part("mask/").items()}
        exponents = part("step/")
        self.steps = {k: (m, exponents[k]) for k, m in part("mantissa/").items()}
        self.exponents = part("site/")
        self.stream_shift = table.get("stream_shift", 0)
        if self.progress.quantising:
            self._use_rounding()
