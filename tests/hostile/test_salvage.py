"""`salvage`: what is not listed as damaged is the original, whatever was damaged and however."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from mdlzip.archive.repair import flipped_bit, mended
from mdlzip.codec import SalvageReport, salvage
from mdlzip.errors import CorruptArchive, MdlzipError, OutputExists, UsageError
from mdlzip.symbols.context import GROUP, REFERENCE, SOLID, STRICT, Context
from mdlzip.symbols.layout import Layout
from tests.archive_tools import compressible, decode, general_archive
from tests.fuzz.document import Document, parse
from tests.golden.make_golden import FAMILIES, coded_archive, family_network

TEXT = compressible(520)
LAYOUT = Layout(len(TEXT), 32, 2)
CONTEXTS = {
    "chunk": STRICT,
    "group": Context(GROUP, (8, 8, 8)),
    "reference": Context(REFERENCE, (8, 8, 8), references=(1, 4)),
    "solid": Context(SOLID, (8, 8, 8), waves=(1, 2, 3, 3)),
}
GENERAL = ("stored", "zstd", "xz")
LARGE = np.random.default_rng(4).bytes(150_000) + compressible(60_000)


@dataclass
class Bench:
    """An archive, its original, and a folder to work in."""

    folder: Path
    archive: bytes
    original: bytes

    def salvaged(self, damaged: bytes, **options: object) -> tuple[SalvageReport, bytes] | None:
        """None if nothing could be had; else every byte that is not listed was compared."""
        path, target = self.folder / "a.mdlz", self.folder / "a.salvaged"
        path.write_bytes(damaged)
        target.unlink(missing_ok=True)
        try:
            report = salvage(path, threads=1, device="cpu", **options)  # type: ignore[arg-type]
        except CorruptArchive as error:
            assert "\n" not in str(error) and not target.exists()
            return None
        found = target.read_bytes()
        assert report.path == target and not (self.folder / "a").exists()
        if report.verified:
            assert found == self.original and not report.damage
            return report, found
        if not options.get("skip_damaged"):
            right = np.ones(len(self.original), bool)
            for damage in report.damage:
                right[damage.start : damage.stop] = False
                if damage.lost:
                    assert not any(found[damage.start : damage.stop])
            a, b = (np.frombuffer(data, np.uint8) for data in (found, self.original))
            assert len(found) == len(self.original) and (a == b)[right].all()
        return report, found


@pytest.fixture(scope="module", params=[*CONTEXTS, *GENERAL])
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def bench(method: str, tmp_path: Path) -> Bench:
    if method in GENERAL:
        data = TEXT if method != "stored" else LARGE
        return Bench(tmp_path, general_archive(method, data, "name"), data)
    network = family_network(FAMILIES["ours"], TEXT)
    return Bench(tmp_path, coded_archive(TEXT, network, LAYOUT, CONTEXTS[method]), TEXT)


def flipped(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def test_nothing_is_lost_of_an_archive_that_is_whole(bench: Bench) -> None:
    found = bench.salvaged(bench.archive)
    assert found and found[0].verified and found[0].repaired == ()


def test_single_flipped_bits_cost_nothing(bench: Bench, method: str) -> None:
    """In no section and no unit; where it is the SHA-256 that was hit, that is said."""
    bits, digest = 8 * len(bench.archive), 8 * (len(bench.archive) - 32)
    step = max(1, bits // (40 if method in CONTEXTS else 60))
    for bit in [*range(0, 26 * 8, 41), *range(0, bits, step), bits - 1]:
        found = bench.salvaged(flipped(bench.archive, bit))
        assert found is not None, bit
        if bit < digest:
            assert found[0].verified, (bit, found[0])
        else:
            assert not found[0].verified and found[1] == bench.original, bit


def test_runs_of_zeros_anywhere(bench: Bench, method: str) -> None:
    """Damage of some bytes costs the units it hits, and what is needed by others."""
    n, outcomes = len(bench.archive), []
    for at in range(0, n, max(1, n // 30)):
        damaged = bench.archive[:at] + bytes(9) + bench.archive[at + 9 :]
        outcomes.append(bench.salvaged(damaged[:n]))
    assert any(o is not None and not o[0].verified for o in outcomes)
    if method in CONTEXTS:
        assert any(o is None for o in outcomes)  # header, configuration or weights


def test_truncation_and_bytes_that_are_missing_or_too_many(bench: Bench) -> None:
    n = len(bench.archive)
    for at in range(0, n, max(1, n // 25)):
        bench.salvaged(bench.archive[:at])
        bench.salvaged(bench.archive[:at] + bench.archive[at + 5 :])
        bench.salvaged(bench.archive[:at] + b"12345" + bench.archive[at:])
    found = bench.salvaged(bench.archive + b"more")
    assert found and found[1] == bench.original


# --- learned archives, unit by unit --------------------------------------------------------------


def groups_lost(report: SalvageReport) -> set[int]:
    """Numbers of the groups that are lost."""
    width = LAYOUT.group_bytes
    return {
        g for d in report.damage if d.lost for g in range(d.start // width, -(-d.stop // width))
    }


def with_damaged_unit(archive: bytes, unit: int) -> bytes:
    document: Document = parse(archive)
    frame = document.frames[unit]
    start = archive.index(frame.pack()) + len(frame.pack()) - 8
    return archive[:start] + b"\x5a" * 8 + archive[start + 8 :]


@pytest.mark.parametrize("context", CONTEXTS)
def test_each_unit_costs_what_depends_on_it(context: str, tmp_path: Path) -> None:
    network = family_network(FAMILIES["ours"], TEXT)
    archive = coded_archive(TEXT, network, LAYOUT, CONTEXTS[context])
    bench = Bench(tmp_path, archive, TEXT)
    for unit in range(len(parse(archive).frames)):
        found = bench.salvaged(with_damaged_unit(archive, unit))
        if context == "reference":
            if unit == 0:
                assert found is None
                continue
            group = [g for g in range(LAYOUT.n_groups) if g not in (1, 4)][unit - 1]
            expected = {group}
        elif context == "solid":
            if unit == 0:
                assert found is None  # nothing stands before it
                continue
            expected = set(range(sum((1, 2, 3, 3)[:unit]), LAYOUT.n_groups))
        else:
            expected = {unit}
        assert found is not None and groups_lost(found[0]) == expected, unit
        assert not found[0].verified
        other = bench.salvaged(with_damaged_unit(archive, unit), skip_damaged=True)
        assert other and other[0].damage == found[0].damage
        kept, edge = b"", 0
        for damage in found[0].damage:
            kept, edge = kept + TEXT[edge : damage.start], damage.stop
        assert other[1] == kept + TEXT[edge:]


def test_what_all_groups_need_is_named(tmp_path: Path) -> None:
    network = family_network(FAMILIES["ours"], TEXT)
    archive = coded_archive(TEXT, network, LAYOUT, CONTEXTS["reference"])
    path = tmp_path / "a.mdlz"
    path.write_bytes(with_damaged_unit(archive, 0))
    with pytest.raises(CorruptArchive, match="the reference groups are damaged, and every other"):
        salvage(path)
    path.write_bytes(archive[:120] + bytes(20) + archive[140:])
    with pytest.raises(CorruptArchive, match=r"weights section: .*--from-copy"):
        salvage(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("context", CONTEXTS)
def test_two_damaged_copies_make_a_whole_one(context: str, tmp_path: Path) -> None:
    """Where they are not damaged in the same section or unit."""
    network = family_network(FAMILIES["ours"], TEXT)
    archive = coded_archive(TEXT, network, LAYOUT, CONTEXTS[context])
    parsed, n = parse(archive), len(archive)
    bench, other = Bench(tmp_path, archive, TEXT), tmp_path / "other.mdlz"
    weights, frame = (part.pack() for part in (parsed.sections[-2], parsed.frames[1]))
    in_weights = {archive.index(weights), archive.index(weights) + 100}
    parts = [0, 30, *sorted(in_weights), archive.index(frame) + 2, n - 60, n - 20]
    for i, at in enumerate(parts):
        for place in parts[:i] + parts[i + 1 :]:
            first, second = (archive[:p] + bytes(12) + archive[p + 12 :] for p in (at, place))
            other.write_bytes(second[:n])
            found = bench.salvaged(first[:n], from_copy=other)
            same = {at, place} == in_weights
            assert found is None if same else found is not None and found[0].verified, (at, place)


def test_another_archive_is_no_copy(bench: Bench) -> None:
    other = bench.folder / "other.mdlz"
    other.write_bytes(general_archive("stored", b"another"))
    with pytest.raises(UsageError, match="not a copy of the same archive"):
        bench.salvaged(bench.archive, from_copy=other)


def test_outputs_are_those_of_an_ordinary_call(tmp_path: Path) -> None:
    path = tmp_path / "text.mdlz"
    path.write_bytes(general_archive("stored", TEXT))
    assert salvage(path).path == tmp_path / "text.salvaged"
    with pytest.raises(OutputExists):
        salvage(path)
    assert salvage(path, force=True).verified
    with pytest.raises(UsageError, match="same file"):
        salvage(path, path, force=True)
    path.write_bytes(b"no archive at all, but long enough to have been one")
    with pytest.raises(MdlzipError, match="header"):
        salvage(path, force=True)
    assert decode(general_archive("stored", TEXT)) == TEXT


# --- the repair ----------------------------------------------------------------------------------


def test_every_flipped_bit_is_found() -> None:
    data = np.random.default_rng(1).bytes(50)
    stored = crc32(data)
    for bit in range(8 * len(data)):
        assert mended(flipped(data, bit), stored) == (data, True)
        assert flipped_bit(len(data), crc32(flipped(data, bit)) ^ stored) == bit
    for bit in range(32):
        assert mended(data, stored ^ 1 << bit) == (data, True)
    assert mended(data, stored) == (data, False)
    pairs = ((a, b) for a in range(0, 400, 7) for b in range(a + 1, 400, 11))
    assert all(mended(flipped(flipped(data, a), b), stored) is None for a, b in pairs)
