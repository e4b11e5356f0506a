"""The bodies an archive may have: a new one is a file of this folder and a line of `BODIES`."""

from __future__ import annotations

from mdlzip.archive.bodies.base import Body
from mdlzip.archive.bodies.compressed import Compressed
from mdlzip.archive.bodies.general import General
from mdlzip.archive.bodies.learned import Learned
from mdlzip.archive.bodies.stored import Stored
from mdlzip.archive.bodies.xz import Xz
from mdlzip.archive.bodies.zstd import Zstd
from mdlzip.errors import CorruptArchive

LEARNED = Learned()
BODIES: tuple[Body, ...] = (Stored(), Zstd(), Xz(), LEARNED)

GENERAL = tuple(body for body in BODIES if isinstance(body, General))
COMPRESSED = tuple(body for body in BODIES if isinstance(body, Compressed))


def body_of(number: int) -> Body:
    """The body that the header of an archive names; CorruptArchive if there is none."""
    for body in BODIES:
        if body.number == number:
            return body
    raise CorruptArchive(f"header: method {number} is unknown")
