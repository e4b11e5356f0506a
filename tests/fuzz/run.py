"""Make mutants one after the other, judge them, count, and keep those that show a fault."""

from __future__ import annotations

import faulthandler
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.corpus import POOL, golden, pooled, random_document
from tests.fuzz.document import Document
from tests.fuzz.judge import FAULTS, TIME_LIMIT_S, Judgement, Verdict, heal, judge, memory_limit
from tests.fuzz.mutations import mutate, raw_damage

_DEAD_S = 6 * TIME_LIMIT_S  # a hang that no signal ends: the process is ended, the mutant is kept


@dataclass(frozen=True)
class Mutant:
    """An archive; `seed` and `number` make it again; done: what was done to a right one."""

    seed: int
    number: int
    archive: bytes
    done: tuple[str, ...]
    pipe: bool

    @property
    def command(self) -> str:
        """What makes and judges it again."""
        return f"python -m tests.fuzz --seed {self.seed} --only {self.number}"


@dataclass
class Tally:
    """What became of the mutants."""

    seed: int
    counts: Counter[Verdict] = field(default_factory=Counter)
    faults: list[tuple[Mutant, Judgement, Path]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Mutants judged."""
        return self.counts.total()

    def text(self) -> str:
        """For people: every verdict with its count, then every fault."""
        lines = [f"seed {self.seed}: {self.total} mutants"]
        lines += [f"{self.counts[verdict]:8}  {verdict}" for verdict in Verdict]
        for mutant, judgement, path in self.faults:
            lines.append(f"{path}: {judgement.verdict}: {judgement.detail}")
            lines.append(f"    {', '.join(mutant.done)}; again: {mutant.command}")
        return "\n".join(lines)


def make_mutant(seed: int, number: int) -> Mutant:
    """Mutant `number` of `seed`; the same on every machine."""
    rng = random.Random(f"{seed}:{number}")
    if rng.random() < 0.1:
        archive = random_document(rng).pack()
        return Mutant(seed, number, archive, ("a new archive",), rng.random() < 0.3)
    document = _drawn(rng, seed).copy()
    done = mutate(rng, document, _drawn(rng, seed).copy())
    if rng.random() < 0.6:
        heal(document)
        done.append("checksums healed")
    archive = document.pack()
    if rng.random() < 0.05:
        archive = raw_damage(rng, archive)
        done.append("raw damage")
    return Mutant(seed, number, archive, tuple(done), rng.random() < 0.2)


def _drawn(rng: random.Random, seed: int) -> Document:
    if rng.random() < 0.25:
        return rng.choice(golden())
    return pooled(seed, rng.randrange(POOL))


def fuzz(
    seed: int,
    folder: Path,
    *,
    seconds: float | None = None,
    mutants: int | None = None,
    start: int = 0,
    on_progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Judge mutants `start`, `start` + 1 ... until the time is over or so many are done.

    folder: for mutants that show a fault, and for the one in work, so that it is there should the
    process end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tally, began, number = Tally(seed), time.monotonic(), start
    current = folder / "in-work.mdlz"
    golden()
    with memory_limit():
        while not _over(tally, began, seconds, mutants):
            faulthandler.dump_traceback_later(_DEAD_S, exit=True)
            mutant = make_mutant(seed, number)
            current.write_bytes(mutant.archive)
            judgement = judge(mutant.archive, pipe=mutant.pipe)
            tally.counts[judgement.verdict] += 1
            if judgement.verdict in FAULTS:
                path = folder / f"seed-{seed}-mutant-{number}.mdlz"
                path.write_bytes(mutant.archive)
                tally.faults.append((mutant, judgement, path))
            on_progress(tally)
            number += 1
    faulthandler.cancel_dump_traceback_later()
    current.unlink(missing_ok=True)
    return tally


def _over(tally: Tally, began: float, seconds: float | None, mutants: int | None) -> bool:
    late = seconds is not None and time.monotonic() - began >= seconds
    return late or (mutants is not None and tally.total >= mutants)
