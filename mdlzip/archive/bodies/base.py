"""What every body has: a number, a name, and what stands around its data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from mdlzip.archive.reader import ArchiveReader


class Body(ABC):
    """How an archive keeps the original.

    number: the low three bits of byte 5 of the archive; label: the name in reports;
    has_sections: whether anything stands between the fixed header and the data. A body has no
    state: there is one of each, in `bodies.BODIES`.
    """

    number: ClassVar[int]
    label: ClassVar[str]
    has_sections: ClassVar[bool] = True

    @abstractmethod
    def begin(self, reader: ArchiveReader) -> None:
        """Read what stands between the fixed header and the data; raises CorruptArchive."""

    @abstractmethod
    def footer_bytes(self, size: int) -> int:
        """Bytes behind the data of an original of `size` bytes, the digest included."""
