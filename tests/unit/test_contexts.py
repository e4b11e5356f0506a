"""Which context an encoder takes: by size, by the time a read may take, by memory."""

from __future__ import annotations

import pytest

from mdlzip.codec.contexts import SOLID_BYTES, choose_context, reads_all
from mdlzip.codec.options import CompressOptions
from mdlzip.errors import UsageError
from mdlzip.symbols.context import Context, Units
from mdlzip.symbols.layout import Layout

MODES = ("chunk", "group", "reference", "solid")
SIZES = (1, 511, 70_000, 10**6, 10**7, 10**8, 10**9)


def layout(size: int, chunk_size: int = 512) -> Layout:
    return Layout(size, chunk_size, 65536 // chunk_size)


@pytest.mark.parametrize("chunk_size", [16, 512, 16384])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", (*MODES, "auto"))
def test_a_context_fits_its_file(mode: str, size: int, chunk_size: int) -> None:
    cut = layout(size, chunk_size)
    context = choose_context(mode, cut)
    assert context.problem(cut) is None
    units = Units(cut, context)
    groups = [g for unit in range(len(units)) for g in units.groups(unit)]
    assert sorted(groups) == list(range(cut.n_groups))
    assert sum(units.n_bytes(unit) for unit in range(len(units))) == size
    if mode in ("chunk", "group") or size > 65536:
        assert context.mode == mode or mode == "auto"


def test_auto_by_size_and_by_access() -> None:
    assert choose_context("auto", layout(SOLID_BYTES)).mode == "solid"
    large = layout(SOLID_BYTES + 1)
    assert choose_context("auto", large).mode == "reference"
    few = choose_context("auto", large, access_s=5.0)
    many = choose_context("auto", large)
    assert few.mode == "reference" and len(few.references) < len(many.references)
    assert Units(large, few).known_bytes() + large.group_bytes <= 5 * 150e3
    assert choose_context("auto", layout(10**6), access_s=2.0).mode == "reference"
    assert choose_context("auto", layout(10**6), access_s=60.0).mode == "solid"
    assert choose_context("auto", large, access_s=0.1).mode == "group"


def lanes(cut: Layout, context: Context) -> list[int]:
    """How many lanes each unit has."""
    units = Units(cut, context)
    chunks = [-(-units.n_bytes(unit) // cut.chunk_size) for unit in range(len(units))]
    return [-(-n // context.lane_chunks) for n in chunks]


@pytest.mark.parametrize("chunk_size", [64, 512, 4096, 16384])
@pytest.mark.parametrize("size", [40_000, 10**6, 10**7])
@pytest.mark.parametrize("mode", ["group", "reference", "solid", "auto"])
def test_lanes(mode: str, size: int, chunk_size: int) -> None:
    """Without a network one; with one enough for fast products, and few for a small file."""
    cut = layout(size, chunk_size)
    alone = choose_context(mode, cut, alone=True)
    assert max(lanes(cut, alone)) == 1 and alone.problem(cut) is None
    context = choose_context(mode, cut)
    most = max(lanes(cut, context))
    if reads_all(context.mode, cut):
        assert most <= max(1, min(32, size >> 14))
        assert size < 10**7 or most == 32
    elif mode == "group":
        assert most == 65536 // max(chunk_size, 4096)


def test_solid_has_a_limit() -> None:
    with pytest.raises(UsageError, match="files of up to"):
        choose_context("solid", layout(1 << 31))
    assert choose_context("auto", layout(1 << 40)).mode == "reference"


def test_tables_shrink_until_they_fit() -> None:
    asked: list[Context] = []

    def fits(context: Context) -> bool:
        asked.append(context)
        return max(context.table_bits) <= 15

    assert choose_context("solid", layout(10**7), fits).table_bits[0] <= 15
    assert len(asked) > 3
    nothing = choose_context("auto", layout(10**7), lambda context: context.mode == "chunk")
    assert nothing.mode == "chunk"


@pytest.mark.parametrize("value", [0, -1.0, "5", True, float("inf")])
def test_access_is_checked(value: object) -> None:
    with pytest.raises(UsageError, match="access_s"):
        CompressOptions(access_s=value)  # type: ignore[arg-type]


def test_context_is_checked() -> None:
    with pytest.raises(UsageError, match="choose auto, chunk, group, reference, solid"):
        CompressOptions(context="all")
