"""Learned archives of any shape without training or encoding: random weights, empty streams.

Their groups decode to the first symbol again and again and fail at the end, where the checksum of
the bytes is compared; until then they cost a decoder what an honest archive of that shape does.
"""

from __future__ import annotations

import io
from pathlib import Path

from mdlzip.archive.bodies import LEARNED
from mdlzip.archive.bodies.learned import Model
from mdlzip.archive.header import Header
from mdlzip.archive.weights import pack_weights
from mdlzip.config import ModelConfig
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.symbols.context import STRICT, Context, Units
from mdlzip.symbols.layout import Layout
from tests.archive_tools import random_network


def random_archive(
    config: ModelConfig, layout: Layout, *, weights: str = "coo", density: float = 0.02
) -> bytes:
    """An archive whose checksums are right but those of the decoded bytes."""
    return archive_of(random_network(3, config, density), layout, weights=weights)


def archive_of(
    network: IntegerNetwork,
    layout: Layout,
    *,
    weights: str = "coded",
    context: Context = STRICT,
    coded: bytes = b"",
) -> bytes:
    """The same for a given network; coded: the stream of every unit."""
    packed = pack_weights(network, weights)
    model = Model(network.config, layout, packed.data, packed.ledger, context)
    units = [(coded, 0)] * len(Units(layout, context))
    out = io.BytesIO()
    header = Header(LEARNED.number, 0o644, 0, layout.total_bytes)
    LEARNED.write(out, header, None, model, units, bytes(32))
    return out.getvalue()


def write_random(path: Path, config: ModelConfig, layout: Layout, **options: object) -> Path:
    """`random_archive` in a file."""
    path.write_bytes(random_archive(config, layout, **options))  # type: ignore[arg-type]
    return path
