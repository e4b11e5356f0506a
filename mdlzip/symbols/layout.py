"""How a corpus is cut: bytes -> chunks -> groups. Pure arithmetic, no data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The cut of `total_bytes` into chunks of `chunk_size` (the last may be short) and groups.

    A chunk is predicted from its own bytes alone; a group of `group_chunks` consecutive chunks is
    the unit of coding, checksum, parallelism and random access.
    """

    total_bytes: int
    chunk_size: int
    group_chunks: int

    @property
    def n_chunks(self) -> int:
        """Number of chunks; 0 for an empty corpus."""
        return -(-self.total_bytes // self.chunk_size)

    @property
    def n_groups(self) -> int:
        """Number of groups; 0 for an empty corpus."""
        return -(-self.n_chunks // self.group_chunks)

    @property
    def group_bytes(self) -> int:
        """Bytes of the corpus in every group but the last."""
        return self.chunk_size * self.group_chunks

    def group_span(self, group: int) -> tuple[int, int]:
        """First byte and one past the last byte of `group` in the corpus."""
        start = group * self.group_bytes
        return start, min(start + self.group_bytes, self.total_bytes)

    def chunk_lengths(self, group: int) -> list[int]:
        """Length in bytes of every chunk of `group`; only the very last may be short."""
        start, stop = self.group_span(group)
        return [min(self.chunk_size, stop - i) for i in range(start, stop, self.chunk_size)]
