"""What to train for this file, device and budget, and what it will cost."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from mdlzip import limits
from mdlzip.config import Preset, load_preset
from mdlzip.model.transformer import Transformer
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.learn import learn_merges
from mdlzip.symbols.tokens import Tokens
from mdlzip.symbols.vocabulary import Vocabulary, alphabet_of
from mdlzip.training.choice import Options, choose_preset, estimate_lzma
from mdlzip.training.data import Batches
from mdlzip.training.timing import time_coding, time_step

_TIMING_SHARE = 0.02  # of the budget, to time training steps
_HOPELESS = 2.5  # the estimate is rough; none has been this much too high
_SENSIBLE_BYTES = 16e6  # a network that has not seen so much of a file has hardly learned it
_ENOUGH_PASSES = 3


@dataclass(frozen=True)
class Plan:
    """What will be done. Times in seconds; `steps` is fixed only if the user fixed it.

    spent_s: what start, rivals and planning have taken of the budget already. pass_s: training
    time for one pass over the file, or over the first 16 MB of a larger one.
    """

    preset: Preset
    device: str
    budget_s: float
    step_s: float
    coding_s: float
    overhead_s: float
    expected_bytes: int
    steps: int | None
    spent_s: float = 0.0
    pass_s: float = 0.0

    @property
    def train_s(self) -> float:
        """Time from the start until training must end."""
        return max(self.budget_s - self.coding_s - self.overhead_s, 0.1 * self.budget_s)

    def sentence(self, total_bytes: int, rival_bytes: int | None = None) -> str:
        """The estimate for people. rival_bytes: what the best general method needs, if known."""
        n = self.steps or max(1, int((self.train_s - self.spent_s) / self.step_s))
        total = self.spent_s + self.step_s * n + self.coding_s + self.overhead_s
        return (
            f"{self.preset.name} model, about {n} steps on {self.device}; "
            f"{_duration(total)} in all ({_duration(self.coding_s)} of it coding and checking), "
            f"expected size very roughly {self.expected_bytes:,} of {total_bytes:,} bytes"
            + self._pay(rival_bytes)
        )

    def doubt(self, rival_bytes: int | None) -> str | None:
        """Why training is not worth beginning; None if it is.

        The budget leaves too little of it for a network to earn its bytes, or not even a size
        well below the estimate would beat the rival.
        """
        left = self.budget_s - self.spent_s - self.coding_s - self.overhead_s
        if self.steps is None and left < self.pass_s:
            need = self.spent_s + self.coding_s + self.overhead_s + _ENOUGH_PASSES * self.pass_s
            return (
                f"a budget of {_duration(self.budget_s)} leaves {_duration(max(left, 0.0))} for"
                f" training, since coding and checking take {_duration(self.coding_s)}; give"
                f" --budget {math.ceil(need / 60)}m or more"
            )
        if rival_bytes is not None and self.expected_bytes > _HOPELESS * rival_bytes:
            return (
                f"the estimate of {self.expected_bytes:,} bytes is far above the {rival_bytes:,} of"
                " the best general method; --no-fallback trains all the same"
            )
        return None

    def _pay(self, rival_bytes: int | None) -> str:
        if rival_bytes is None:
            return ""
        share = self.expected_bytes / max(rival_bytes, 1)
        if share > 1:
            return (
                f"; this may not pay, a general method needs {rival_bytes:,}; then training stops"
            )
        return f", {1 - share:.0%} below the {rival_bytes:,} of the best general method"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def pick_device(name: str) -> str:
    """The device: auto becomes cuda where there is one."""
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def make_plan(
    tokens: Tokens,
    sample: np.ndarray,
    options: Options,
    began: float,
    chosen: Preset | None = None,
) -> Plan:
    """Choose the preset, time a training step and the coder on this machine, and estimate.

    sample: of the file's bytes, as `learn.sample_of` takes it. began: when the time of the budget
    began, as time.monotonic(). chosen: what an earlier run has begun with; then nothing is left to
    choose.
    """
    layout, vocabulary, total_bytes = tokens.layout, tokens.vocabulary, tokens.total_bytes
    device = pick_device(options.device)
    budget = options.seconds(total_bytes)
    rival = estimate_lzma(sample, total_bytes)
    preset = chosen or choose_preset(options, tokens.n_symbols, rival, budget, device)
    preset = replace(preset, model=replace(preset.model, n_merges=len(vocabulary.merges)))
    model = Transformer(preset.model, layout.chunk_size).to(device)
    model.initialise(options.seed)
    model.restrict(torch.from_numpy(vocabulary.symbols).long())
    batches = make_batches(tokens, preset, 0)
    step_s = time_step(model, preset, batches, device, _TIMING_SHARE * budget)
    coding_s = time_coding(model, batches, device, options.threads, verify=options.verify)
    weights = sum(p.numel() for p in model.parameters())
    # A rough law, from prose; the comparison with the fallback is what decides in the end.
    passes = max(budget - coding_s, 0.1 * budget) / step_s * batches.passes_per_step
    expected = min(int(rival * (0.62 + 0.2 / (0.3 + passes))), total_bytes) + weights * 22 // 80
    overhead = 1.0 + min(14.0, 0.04 * budget)
    spent = time.monotonic() - began
    return Plan(
        preset,
        device,
        budget,
        step_s,
        coding_s,
        overhead,
        expected,
        options.steps,
        spent,
        step_s / batches.passes_per_step * min(1.0, _SENSIBLE_BYTES / max(total_bytes, 1)),
    )


def choose_vocabulary(
    present: np.ndarray,
    sample: np.ndarray,
    layout: Layout,
    options: Options,
    chosen: Preset | None = None,
) -> Vocabulary:
    """The byte values of the file and as many merges as the settings and the file allow.

    present: boolean (256,), the values that occur. sample: as for `make_plan`.
    """
    any_preset = chosen or load_preset(
        options.preset or "nano",
        options.config_file,  # type: ignore[arg-type]
        options.overrides,
    )
    config, alphabet = any_preset.train, alphabet_of(present)
    most = min(config.vocabulary - alphabet.size, limits.MAX_MERGES)
    longest = min(config.merge_bytes, layout.chunk_size // 2)
    merges = learn_merges(
        sample, most, config.merge_count, config.merge_gain, longest, layout.total_bytes
    )
    return Vocabulary(alphabet, merges)


def make_batches(tokens: Tokens, preset: Preset, seed: int) -> Batches:
    """The training data for a preset, whose `batch_chunks` counts 512 symbols each.

    Long chunks come in pieces where the network sees a window only and places are relative to one
    another. All layers together see further back than the one window that is put before a piece,
    but every symbol of context is computed and not learned from.
    """
    model = preset.model
    local = 0 < model.window < tokens.layout.chunk_size and model.positions == "rotary"
    return Batches(
        tokens,
        preset.train.batch_chunks * 512,
        seed,
        lead=model.window if local else 0,
        least_match=model.match_min,
    )
