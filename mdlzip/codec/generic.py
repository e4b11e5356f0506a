"""The general-purpose methods as rivals of the model: the archive is never worse than theirs."""

from __future__ import annotations

import math
import time

from mdlzip.archive.bodies import COMPRESSED, GENERAL
from mdlzip.archive.bodies.compressed import Compressed
from mdlzip.archive.header import HEADER_BYTES
from mdlzip.archive.index import MIN_UNIT_BYTES
from mdlzip.archive.sections import DIGEST_BYTES
from mdlzip.callbacks import OnProgress
from mdlzip.codec.options import ShouldStop
from mdlzip.codec.race import CutShort, Race, Rivals
from mdlzip.corpus import Corpus
from mdlzip.errors import Interrupted
from mdlzip.limits import DEFAULT_MEMORY_BYTES
from mdlzip.process.cores import thread_count
from mdlzip.symbols.layout import Layout

_TIMED_BYTES = 1 << 22  # enough to tell how long a level takes

# The smallest model seen so far that beats an order-0 count; for a file that a general method makes
# smaller than this, training cannot pay.
LEAST_MODEL_BYTES = 2048
INCOMPRESSIBLE = 0.99  # what no general method shrinks below this is noise to a model, too


def compete(
    corpus: Corpus,
    name: str | None,
    progress: OnProgress,
    should_stop: ShouldStop,
    *,
    memory: int = DEFAULT_MEMORY_BYTES,
    limit_s: float = math.inf,
    threads: int | None = None,
) -> Rivals:
    """Compress with zstd and LZMA at their hardest, side by side; stored needs no trying.

    name: file name that the archive will hold, None for none; memory: limit for decoding, bytes: a
    method that needs more is left out. limit_s: seconds after which the methods are stopped; then
    zstd at a quick level takes their place. With one of `threads` (None: of the usable cores), or
    where they would take too much memory side by side, they take turns. Raises Interrupted.
    """
    size = corpus.size
    tried = [body for body in COMPRESSED if body.most_memory_bytes(size) <= memory]
    rivals = Rivals(
        {body: body.archive_bytes(name, size, size) for body in GENERAL if body not in COMPRESSED}
    )
    if size == 0 or not tried:
        return rivals
    race = Race(corpus, rivals, name, progress, should_stop, thread_count(threads))
    try:
        race.run({body: body.levels[0] for body in tried}, limit_s)
        if not rivals.streams:
            quick = {body: body.levels[-1] for body in rivals.cut_short if len(body.levels) > 1}
            race.run(quick, math.inf)
    except BaseException:
        rivals.close()
        raise
    return rivals


def use_rest(
    rivals: Rivals,
    corpus: Corpus,
    name: str | None,
    progress: OnProgress,
    should_stop: ShouldStop,
    *,
    limit_s: float,
    threads: int | None = None,
) -> None:
    """Take up again what was cut short, at the hardest level that `limit_s` seconds are enough for.

    What comes out smaller takes the place of what `rivals` holds. Raises Interrupted.
    """
    best, end = min(rivals.sizes.values()), time.monotonic() + limit_s
    levels = {}
    for body, heading in sorted(rivals.cut_short.items(), key=lambda item: item[1]):
        if heading.archive_bytes >= best:
            continue
        level = _level_within(body, corpus, heading, limit_s, should_stop)
        if level is not None:
            levels[body] = level
    race = Race(corpus, rivals, name, progress, should_stop, thread_count(threads))
    if race.takes_turns(levels):
        levels = dict(list(levels.items())[:1])
    race.run(levels, end - time.monotonic())


def _level_within(
    body: Compressed,
    corpus: Corpus,
    heading: CutShort,
    limit_s: float,
    should_stop: ShouldStop,
) -> int | None:
    """The hardest level of `body` that would compress the input in the time given.

    Those below the hardest are timed on a part of it. None if only the quickest would, which has
    had its turn.
    """
    if heading.seconds <= limit_s:
        return body.levels[0]
    half = corpus.size // 2
    part = corpus.read(half, min(half + _TIMED_BYTES, corpus.size)).tobytes()
    for level in body.levels[1:-1]:
        if should_stop():
            raise Interrupted("stopped while general methods compressed the input")
        began = time.monotonic()
        body.compress([part], corpus.size, lambda block: None, level)
        if (time.monotonic() - began) * corpus.size / len(part) <= limit_s:
            return level
    return None


def hopeless(layout: Layout, rivals: Rivals) -> str | None:
    """Why neither experts nor training can pay for an original cut like `layout`, or None."""
    best, size = rivals.sizes[rivals.best], layout.total_bytes
    if size == 0:
        return "the file is empty"
    frames = layout.n_groups * MIN_UNIT_BYTES
    if best <= HEADER_BYTES + DIGEST_BYTES + LEAST_MODEL_BYTES + frames:
        return f"{rivals.best.label} needs {best} bytes, less than any model and its index do"
    if best > INCOMPRESSIBLE * size:
        return "the data look random or compressed already"
    return None
