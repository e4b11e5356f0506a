"""What to train for this file, device and budget, and what it will cost."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from mdlzip import limits
from mdlzip.config import Preset, load_preset
from mdlzip.process.devices import pick_device
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.learn import learn_merges
from mdlzip.symbols.tokens import Tokens
from mdlzip.symbols.vocabulary import Vocabulary, alphabet_of
from mdlzip.training.choice import choose_preset, estimate_lzma
from mdlzip.training.options import Options, PresetOptions
from mdlzip.training.session import Session
from mdlzip.training.timing import throw_away, time_coding, time_step

_TIMING_SHARE = 0.02  # of the budget, to time training steps
_HOPELESS = 2.5  # the estimate is rough; none has been this much too high
_UNSEEN = 0.9  # ... but where a part of the file is not seen even once, some were too low
_SENSIBLE_BYTES = 16e6  # a network that has not seen so much of a file has hardly learned it
_ENOUGH_PASSES = 3


@dataclass(frozen=True)
class Choice:
    """What will be trained, before anything is timed.

    budget_s: of the whole job, seconds. lzma_bytes: what LZMA would make of the file, estimated.
    """

    preset: Preset
    device: str
    budget_s: float
    lzma_bytes: int


@dataclass(frozen=True)
class Plan:
    """What will be done. Times in seconds; `steps` is fixed only if the user fixed it.

    spent_s: what start, rivals and planning have taken of the budget already. pass_s: training
    time for one pass over the file, or over the first 16 MB of a larger one, if nothing disturbs.
    passes: over the whole file that there is time for.
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
    passes: float = math.inf

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
        if rival_bytes is not None and self.steps is None and self.passes < 1:
            if self.expected_bytes > _UNSEEN * rival_bytes:
                return (
                    f"training would see {self.passes:.0%} of the file, and the estimate of"
                    f" {self.expected_bytes:,} bytes is not far below the {rival_bytes:,} of the"
                    " best general method; give a larger --budget"
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


def choose(
    tokens: Tokens, sample: np.ndarray, options: Options, preset: Preset | None = None
) -> Choice:
    """Choose device and preset for a file.

    sample: of its bytes, as `learn.sample_of` takes it. preset: what an earlier run has begun with;
    then that is not chosen.
    """
    device = pick_device(options.device)
    budget_s = options.seconds(tokens.total_bytes)
    lzma_bytes = estimate_lzma(sample, tokens.total_bytes)
    if preset is None:
        preset = choose_preset(options, tokens.n_symbols, lzma_bytes, budget_s, device)
    model = replace(preset.model, n_merges=len(tokens.vocabulary.merges))
    return Choice(replace(preset, model=model), device, budget_s, lzma_bytes)


def make_plan(
    session: Session, choice: Choice, options: Options, began: float, *, coded: bool = True
) -> Plan:
    """Time training steps of `session` and the coder on this machine, and estimate.

    The session is as it was afterwards. began: when the time of the budget began, as
    time.monotonic(). coded: whether the file will be coded with the network.
    """
    total_bytes, budget = session.total_bytes, choice.budget_s
    with throw_away(session):
        times = time_step(session, _TIMING_SHARE * budget)
        coding_s = 0.0
        if coded:
            coding_s = time_coding(
                session,
                options.threads,
                verify=options.verify,
                device=options.device,
                memory=options.memory,
            )
    passes_per_step = session.batches.passes_per_step
    spent_s = time.monotonic() - began
    # A rough law, from prose; the comparison with the fallback is what decides in the end.
    left_s = budget - coding_s
    passes = max(left_s, 0.1 * budget) / times.usual_s * passes_per_step
    share = 0.62 + 0.2 / (0.3 + passes)
    expected = min(int(choice.lzma_bytes * share), total_bytes) + session.n_weights * 22 // 80
    return Plan(
        choice.preset,
        choice.device,
        budget,
        times.usual_s,
        coding_s,
        1.0 + min(14.0, 0.04 * budget),
        expected,
        options.steps,
        spent_s,
        times.least_s / passes_per_step * min(1.0, _SENSIBLE_BYTES / max(total_bytes, 1)),
        max(left_s - spent_s, 0.0) / times.usual_s * passes_per_step,
    )


def choose_vocabulary(
    present: np.ndarray,
    sample: np.ndarray,
    layout: Layout,
    options: PresetOptions,
    chosen: Preset | None = None,
) -> Vocabulary:
    """The byte values of the file and as many merges as the settings and the file allow.

    present: boolean (256,), the values that occur. sample, chosen: as for `choose`.
    """
    any_preset = chosen or load_preset(
        options.preset or "nano", options.config_file, options.overrides
    )
    config, alphabet = any_preset.train, alphabet_of(present)
    most = min(config.vocabulary - alphabet.size, limits.MAX_MERGES)
    longest = min(config.merge_bytes, layout.chunk_size // 2)
    merges = learn_merges(
        sample, most, config.merge_count, config.merge_gain, longest, layout.total_bytes
    )
    return Vocabulary(alphabet, merges)
