"""One training run for one file: the plan, the machine's settings, then the loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mdlzip.callbacks import OnProgress
from mdlzip.config import ModelConfig
from mdlzip.errors import NoGain
from mdlzip.symbols.tokens import Tokens
from mdlzip.training.budget import Budget
from mdlzip.training.checkpoint import Checkpoint, Checkpoints, Settings
from mdlzip.training.cpu import settled_cpu
from mdlzip.training.loop import Loop, TrainResult
from mdlzip.training.metrics import Metrics
from mdlzip.training.options import Options
from mdlzip.training.planner import Plan, choose, make_plan
from mdlzip.training.session import Session
from mdlzip.training.threads import choosing_threads


def train(
    tokens: Tokens,
    sample: np.ndarray,
    options: Options,
    *,
    work_dir: Path,
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
    began: float | None = None,
    rival_bytes: int | None = None,
    resumed: Checkpoint | None = None,
    check_model: Callable[[ModelConfig], None] = lambda config: None,
    check_source: Callable[[], None] = lambda: None,
    coded: bool = True,
    warn: Callable[[str], None] = lambda text: None,
) -> TrainResult:
    """Train a network for a file of at least one byte, given by its symbols.

    sample: some of its bytes, as `learn.sample_of` takes them. began: when the work that the budget
    is for began (time.monotonic()), now by default. rival_bytes: the size to beat, None for any.
    Checkpoints go to `work_dir`; resumed: the one to go on from. check_model: raises if the chosen
    model must not be trained; check_source: raises if the input has changed, asked with every
    checkpoint. coded: whether the file will be coded with the network, which takes a part of the
    budget. warn: takes what went wrong without harm. Raises NoGain as soon as the rival is out of
    reach, Interrupted after a checkpoint if `should_stop()` becomes true, ExportRefused if the
    trained network breaks a bound of the predictor.
    """
    began = time.monotonic() if began is None else began
    with settled_cpu(options.threads):
        choice = choose(tokens, sample, options, resumed.settings.preset if resumed else None)
        session = Session(tokens, choice.preset, device=choice.device, seed=options.seed)
        plan = make_plan(session, choice, options, began, coded=coded)
        check_model(plan.preset.model)
        sentence = plan.sentence(tokens.total_bytes, rival_bytes)
        if resumed:
            at = resumed.progress
            sentence = f"going on at step {at.step} ({at.fraction:.0%} done): {sentence}"
        on_progress("plan", 0, plan.budget_s, sentence)
        doubt = None if resumed else plan.doubt(rival_bytes)
        if doubt and rival_bytes is not None:
            raise NoGain(doubt)
        if doubt:
            warn(doubt)
        if resumed:
            session.load_state_dict(resumed.state)
        if plan.steps is None and plan.device == "cpu":
            on_progress = choosing_threads(on_progress)
        work_dir.mkdir(parents=True, exist_ok=True)
        checkpoints = Checkpoints(work_dir, _settings(tokens, plan, options), warn)
        with Metrics(
            work_dir / "metrics.jsonl",
            options.metrics,
            resume=resumed is not None,
            append=options.append_metrics,
            force=options.force,
            warn=warn,
        ) as metrics:
            metrics.write(
                "plan",
                preset=plan.preset.name,
                budget_s=plan.budget_s,
                step_s=plan.step_s,
                coding_s=plan.coding_s,
            )
            return Loop(
                session,
                _budget(plan, began, resumed),
                checkpoints,
                metrics,
                on_progress=on_progress,
                should_stop=should_stop,
                check_source=check_source,
                rival_bytes=rival_bytes,
            ).run()


def _settings(tokens: Tokens, plan: Plan, options: Options) -> Settings:
    return Settings(
        preset=plan.preset,
        chunk_size=tokens.layout.chunk_size,
        group_chunks=tokens.layout.group_chunks,
        context=options.context,
        access_s=options.access_s,
        seed=options.seed,
        steps=plan.steps,
        budget_s=None if plan.steps else plan.budget_s,
        total_bytes=tokens.total_bytes,
    )


def _budget(plan: Plan, began: float, resumed: Checkpoint | None) -> Budget:
    """Where it counts seconds, those of planning count, too."""
    if resumed:
        at = resumed.progress
        return Budget(plan.train_s, plan.steps, elapsed_s=at.elapsed_s, fraction=at.fraction)
    spent_s = time.monotonic() - began if plan.steps is None else 0.0
    return Budget(plan.train_s, plan.steps, elapsed_s=spent_s)
