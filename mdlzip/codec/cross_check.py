"""A part of what a GPU coded is decoded on the CPU.

The device that encoded also decodes what it wrote: an error that it makes alike both ways would
show on other machines only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import BinaryIO

from mdlzip.archive.reader import ArchiveReader
from mdlzip.codec.access import archive_in
from mdlzip.codec.fitting import Machine
from mdlzip.corpus import Corpus
from mdlzip.errors import CorruptArchive, VerifyFailed
from mdlzip.symbols.context import SOLID, Units

_EVERY = 1000  # groups


def may_be_on_a_gpu(device: str) -> bool:
    """Whether an option names a GPU or leaves the choice where there is one."""
    if device != "auto":
        return device.split(":")[0] != "cpu"
    import torch

    return torch.cuda.is_available()


def sampled_groups(units: Units) -> list[int]:
    """One group in a thousand, and at least one; of groups that build on all before, the first."""
    n = units.layout.n_groups
    if not n:
        return []
    return [0] if units.context.mode == SOLID else list(range(n - 1, -1, -_EVERY))


def check_on_cpu(
    corpus: Corpus, file: BinaryIO, total: int, machine: Machine, reader: ArchiveReader
) -> None:
    """Decode some groups of the learned archive in `file` on the CPU and compare.

    total: bytes of the archive; machine: that encoded; reader: any that has read its header. Raises
    VerifyFailed.
    """
    file.seek(0)
    cpu = replace(machine, device="cpu", memory=None, allow_slow=True)
    archive = archive_in(file, total, cpu)
    for group in sampled_groups(reader.units):
        start, stop = reader.layout.group_span(group)
        try:
            plain = archive.read(start, stop - start)
        except CorruptArchive as error:
            raise VerifyFailed(
                f"the CPU does not decode what the device coded: {error}; nothing was kept"
            ) from error
        if plain != corpus.read(start, stop).tobytes():
            raise VerifyFailed(
                f"the CPU decodes group {group} to other bytes than the device; nothing was kept"
            )
