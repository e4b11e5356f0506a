"""A network (or none, and experts alone) and the units that were coded with its predictions."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

from mdlzip.archive.bodies.base import Body
from mdlzip.archive.config_section import config_bytes, pack_config
from mdlzip.archive.context_section import context_bytes, pack_context
from mdlzip.archive.cursor import put_varint
from mdlzip.archive.header import Header
from mdlzip.archive.index import UnitTable
from mdlzip.archive.ledger import Ledger, learned_ledger
from mdlzip.archive.sections import (
    DIGEST_BYTES,
    INDEX_OFFSET_BYTES,
    Kind,
    framed_header,
    pack_section,
)
from mdlzip.archive.writer import Counting, Writable, balanced, name_section
from mdlzip.errors import MdlzipError
from mdlzip.networks.registry import NetworkConfig
from mdlzip.symbols.context import CHUNK, STRICT, Context, Units
from mdlzip.symbols.layout import Layout

if TYPE_CHECKING:
    from mdlzip.archive.reader import ArchiveReader


@dataclass(frozen=True)
class Model:
    """What a learned archive says before its groups; weights: packed, with its three lines.

    model_id: of the model file that has the weights, in place of them. card: what a model file says
    of itself, see `archive.card`; empty for none.
    """

    config: NetworkConfig
    layout: Layout
    weights: bytes
    weight_lines: dict[str, int]
    context: Context = STRICT
    model_id: bytes = b""
    card: bytes = b""


class Learned(Body):
    """The body that is decoded with what it has learned of the original; see `codec.fitting`."""

    number = 3
    label = "learned"

    def begin(self, reader: ArchiveReader) -> None:
        """Name, optional sections, configuration, context, model; the weights come next."""
        reader.begin_sections()
        reader.begin_configuration()

    def footer_bytes(self, size: int) -> int:
        """The offset of the index and the digest."""
        return INDEX_OFFSET_BYTES + DIGEST_BYTES

    def write(
        self,
        sink: Writable,
        header: Header,
        name: str | None,
        model: Model,
        units: Iterable[tuple[bytes, int]],
        digest: bytes,
    ) -> Ledger:
        """Write an archive; units: coded bytes of each and CRC-32 of what they decode to.

        Raises MdlzipError if there are more or fewer units than there must be.
        """
        out = Counting(sink)
        out.write(header.pack())
        out.write(name_section(name))
        if model.card:
            out.write(pack_section(Kind.CARD, model.card))
        out.write(pack_section(Kind.CONFIGURATION, pack_config(model.config, model.layout)))
        if model.context.mode != CHUNK:
            out.write(pack_section(Kind.CONTEXT, pack_context(model.context)))
        if model.model_id:
            out.write(pack_section(Kind.MODEL, model.model_id))
        else:
            out.write(pack_section(Kind.WEIGHTS, model.weights))
        out.write(framed_header(Kind.GROUPS))
        table, expected = UnitTable.empty(), len(Units(model.layout, model.context))
        for coded, crc in units:
            out.write(put_varint(len(coded)) + struct.pack("<I", crc32(coded)))
            out.write(coded)
            table.lengths.append(len(coded))
            table.crcs.append(crc)
        if len(table.lengths) != expected:
            raise MdlzipError(f"internal error: {len(table.lengths)} units coded of {expected}")
        index_offset = out.offset
        out.write(pack_section(Kind.INDEX, table.pack()))
        out.write(struct.pack("<Q", index_offset) + digest)
        return balanced(self._ledger(name, model, table.lengths), out.offset)

    def archive_bytes(self, name: str | None, model: Model, lengths: Iterable[int]) -> int:
        """Size of an archive whose units are coded in so many bytes each."""
        return sum(self._ledger(name, model, lengths).values())

    def ledger(
        self, reader: ArchiveReader, weight_lines: dict[str, int], lengths: Iterable[int]
    ) -> Ledger:
        """Lines of an archive that was read; lengths: coded bytes of its units."""
        return learned_ledger(
            len((reader.name or "").encode()),
            config_bytes(reader.config),
            weight_lines,
            lengths,
            reader.optional,
            context_bytes=context_bytes(reader.context),
            model_bytes=len(reader.model_id),
        )

    def _ledger(self, name: str | None, model: Model, lengths: Iterable[int]) -> Ledger:
        return learned_ledger(
            len((name or "").encode()),
            config_bytes(model.config),
            model.weight_lines,
            lengths,
            [len(model.card)] if model.card else [],
            context_bytes=context_bytes(model.context),
            model_bytes=len(model.model_id),
        )
