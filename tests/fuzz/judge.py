"""What mdlzip and the second decoder make of an archive, and whether they agree."""

from __future__ import annotations

import contextlib
import io
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from types import FrameType
from zlib import crc32

from mdlzip.archive.blocks import block_sums
from mdlzip.archive.bodies import LEARNED
from mdlzip.archive.bodies.stored import Stored
from mdlzip.archive.reader import ArchiveReader
from mdlzip.codec.fitting import Machine
from mdlzip.codec.models import load
from mdlzip.codec.units import InOrder, unit_decoder
from mdlzip.errors import LimitExceeded, MdlzipError
from tests.archive_tools import decode
from tests.fuzz.document import Document, Field
from tests.second_decoder import Refused, Undecoded
from tests.second_decoder import decode as decode_again

TIME_LIMIT_S = 10.0  # for one decoder and one archive
MEMORY_BYTES = 1 << 30  # that mdlzip may ask for
_EXTRA_BYTES = 3 << 30  # of address space, beyond what is mapped before the first mutant
_SECOND_LIMIT = 1 << 15  # weights, and bytes, that the second decoder decodes: it is slow


class TooSlow(BaseException):
    """The time limit is over; not an Exception, so that no decoder takes it for its own."""


class Verdict(StrEnum):
    """What became of a mutant; the last four are faults."""

    ACCEPTED = "accepted by both"
    REFUSED = "refused by both"
    UNCHECKED = "not decided by the second decoder"
    CRASH = "crash: no MdlzipError"
    HANG = "hang"
    WRONG = "wrong output"
    DISAGREE = "one refuses, the other does not"


FAULTS = (Verdict.CRASH, Verdict.HANG, Verdict.WRONG, Verdict.DISAGREE)


@dataclass(frozen=True)
class Judgement:
    """A verdict, and what the decoders said."""

    verdict: Verdict
    detail: str


Outcome = bytes | Exception | TooSlow


def judge(archive: bytes, *, pipe: bool) -> Judgement:
    """Decode with both; pipe: mdlzip gets a stream that it cannot seek in.

    Exceptions to "both accept the same bytes, or both refuse":

    - mdlzip refuses what takes more memory or time than allowed, which says nothing against the
      archive (docs/format.md, "Configuration and weights").
    - The second decoder does not decode zstd, nor more than it was told to.
    """
    first = _outcome(lambda: decode(archive, pipe=pipe, memory=MEMORY_BYTES))
    if isinstance(first, TooSlow):
        return Judgement(Verdict.HANG, "mdlzip")
    if isinstance(first, Exception) and not isinstance(first, MdlzipError):
        return Judgement(Verdict.CRASH, f"mdlzip: {first!r}")
    if isinstance(first, MdlzipError) and str(first).startswith("internal error"):
        return Judgement(Verdict.CRASH, f"mdlzip: {first}")
    if isinstance(first, LimitExceeded):
        return Judgement(Verdict.UNCHECKED, f"mdlzip: {first}")
    second = _outcome(lambda: decode_again(archive, _SECOND_LIMIT))
    return _compared(first, second)


def _compared(first: Outcome, second: Outcome) -> Judgement:
    said = " / ".join(
        f"{len(o)} bytes" if isinstance(o, bytes) else f"{type(o).__name__}: {o}"
        for o in (first, second)
    )
    if isinstance(second, TooSlow):
        return Judgement(Verdict.UNCHECKED, f"{said} (too slow)")
    if isinstance(second, Undecoded):
        return Judgement(Verdict.UNCHECKED, said)
    if isinstance(second, Exception) and not isinstance(second, Refused):
        return Judgement(Verdict.CRASH, f"second decoder: {second!r}")
    if isinstance(first, bytes) != isinstance(second, bytes):
        return Judgement(Verdict.DISAGREE, said)
    if isinstance(first, bytes):
        return Judgement(Verdict.ACCEPTED if first == second else Verdict.WRONG, said)
    return Judgement(Verdict.REFUSED, said)


def _outcome(run) -> Outcome:  # type: ignore[no-untyped-def]
    try:
        with time_limit(TIME_LIMIT_S):
            return bytes(run())
    except (Exception, TooSlow) as problem:
        return problem


def heal(document: Document) -> None:
    """Give the changed streams the checksums of what they decode to, if they decode to anything.

    What mdlzip's own decoder says they are: if it is wrong, the second decoder refuses them.
    """
    with contextlib.suppress(Exception, TooSlow), time_limit(TIME_LIMIT_S):
        archive = document.pack()
        reader = ArchiveReader(io.BytesIO(archive), len(archive))
        if reader.body is LEARNED:
            _heal_units(document, reader)
        else:
            _heal_payload(document, reader)


def _heal_units(document: Document, reader: ArchiveReader) -> None:
    network, fit = load(reader, Machine("cpu", 1, MEMORY_BYTES))
    order, whole, crcs = InOrder(reader.units), sha256(), []
    for unit, plain in unit_decoder(network, reader, fit).decode(reader.frames()):
        crcs.append(Field("unit crc", "number", crc32(plain).to_bytes(4, "little")))
        for block in order.take(unit, plain):
            whole.update(block)
    document.index, document.digest = crcs, whole.digest()


def _heal_payload(document: Document, reader: ArchiveReader) -> None:
    body, size = reader.body, reader.header.size
    if isinstance(body, Stored):
        data = b"".join(reader.source.blocks(size, "stored data"))
    else:
        data = b"".join(body.decompress(reader.payload(), size, MEMORY_BYTES))
    sums = block_sums([data])
    document.table = [Field("block crc", "number", s.to_bytes(4, "little")) for s in sums]
    document.digest = sha256(data).digest()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """TooSlow if the block takes longer; in the main thread only."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TooSlow

    before, began = signal.signal(signal.SIGALRM, stop), time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # a test runner has a limit of its own
            left = max(left - (time.monotonic() - began), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, interval)


@contextlib.contextmanager
def memory_limit() -> Iterator[None]:
    """An allocation far beyond what mdlzip was allowed is a MemoryError: a crash."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + _EXTRA_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
