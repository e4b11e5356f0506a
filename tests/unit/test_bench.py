"""Every baseline gives the file back; sampling, missing libraries and names behave."""

from __future__ import annotations

import lzma
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mdlzip.bench import measure
from mdlzip.bench.baselines import DEFAULT, NOT_INSTALLED, Ppmd, make_codec
from mdlzip.bench.measure import Measurement
from mdlzip.bench.run import BenchResult, ModelRun, PhaseTimer, run_baselines, run_bench
from mdlzip.bench.speed import products_per_symbol
from mdlzip.bench.table import context_rows, gap_lines, rows, speed_rows
from mdlzip.bench.weight_coders import order0_bytes, yardsticks
from mdlzip.codec import CompressOptions, decompress
from mdlzip.config import ModelConfig
from mdlzip.errors import MdlzipError, UsageError
from mdlzip.networks.registry import tensor_specs
from mdlzip.report import figures
from mdlzip.symbols.context import MODES
from tests.conftest import ROOT


@pytest.fixture
def text_file(tmp_path: Path, prose: bytes) -> Path:
    path = tmp_path / "prose.txt"
    path.write_bytes(prose * 8)  # large enough for a dictionary
    return path


def silent(phase: str, done: float, total: float, note: str) -> None:
    pass


@pytest.mark.parametrize("name", [*DEFAULT, "gzip-9", "xz-6", "zstd-3", "brotli-5", "chunk-zstd-3"])
def test_baseline_round_trip(name: str, text_file: Path) -> None:
    got = make_codec(name).measure(text_file, 512)
    assert got.name == name
    if got.note == NOT_INSTALLED:
        pytest.skip(f"{name}: {got.note}")
    assert got.bytes is not None and 0 < got.bytes < text_file.stat().st_size
    assert got.scope == ("chunk" if name.startswith("chunk-") else "file")
    assert got.compress_s is not None and got.decompress_s is not None


@pytest.mark.parametrize("content", [b"", b"x", bytes(1000), bytes(range(256)) * 3])
def test_small_and_odd_inputs(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    got = run_baselines(path, DEFAULT, 512, silent)
    assert all(m.bytes is not None or m.note for m in got)


def test_the_fair_per_chunk_baselines_beat_the_papers(text_file: Path) -> None:
    size = {n: make_codec(n).measure(text_file, 512).bytes or 0 for n in DEFAULT[5:]}
    assert size["chunk-lzma2"] < size["chunk-xz"]
    assert size["chunk-zstd-dict"] < size["chunk-zstd-bare"] < size["chunk-zstd-19"]
    chunks = -(-text_file.stat().st_size // 512)
    assert size["chunk-xz"] - size["chunk-lzma2"] > 40 * chunks  # .xz framing


def test_the_papers_lzma2_is_what_python_writes_by_default(text_file: Path) -> None:
    data = text_file.read_bytes()
    expected = sum(len(lzma.compress(data[i : i + 512])) for i in range(0, len(data), 512))
    assert make_codec("chunk-xz").measure(text_file, 512).bytes == expected


def test_many_chunks_are_sampled_and_said_so(
    text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_codec("chunk-zstd-19").measure(text_file, 512).bytes or 0
    monkeypatch.setattr(measure, "MAX_CHUNKS", 40)
    got = make_codec("chunk-zstd-19").measure(text_file, 512)
    assert "sampled: 40 of" in got.note
    assert got.bytes == pytest.approx(whole, rel=0.1)


def test_missing_library_is_named(text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "brotli", None)
    monkeypatch.setitem(sys.modules, "pyppmd", None)
    for name in ("brotli-11", "ppmd"):
        got = make_codec(name).measure(text_file, 512)
        assert got.bytes is None and got.note == NOT_INSTALLED


@pytest.mark.parametrize("name", ["", "xz", "xz-10", "zstd-23", "chunk", "rar-5", "xz-9ee"])
def test_unknown_baseline_lists_the_choices(name: str) -> None:
    with pytest.raises(UsageError, match="choose from xz-9e"):
        make_codec(name)


def test_a_baseline_that_loses_bytes_is_refused(text_file: Path) -> None:
    with pytest.raises(MdlzipError, match="did not give the file back"):
        measure.measure_chunks("broken", text_file, 512, lambda c: c, lambda c: c[:-1] + b"!")


@pytest.mark.parametrize("broken", [1, 8])
def test_ppmd_is_the_best_that_decodes(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    """pyppmd cannot read back all that it writes (a medical image of 10 MB, variant H)."""
    pytest.importorskip("pyppmd")
    best = Ppmd().measure(text_file, 512)
    round_trip, calls = Ppmd._round_trip, 0

    def fails_at_first(self: Ppmd, *where: Any) -> float | None:
        nonlocal calls
        calls += 1
        if calls <= broken:
            raise ValueError("L1595: Corrupted input data.")
        return round_trip(self, *where)

    monkeypatch.setattr(Ppmd, "_round_trip", fails_at_first)
    got = Ppmd().measure(text_file, 512)
    assert f"{best.bytes:,} bytes" in got.note and got.note.count("do not decode") == broken
    if broken == 8:
        assert got.bytes is None and "does not give the file back" in got.note
    else:
        assert best.bytes is not None and got.bytes is not None and got.bytes >= best.bytes


def test_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a regular file"):
        run_bench(
            tmp_path,
            against=(),
            options=None,
            chunk_size=512,
            on_progress=silent,
            should_stop=lambda: False,
        )


def made_up_result() -> BenchResult:
    ledger = {"data": 800, "positions": 100, "values": 100}
    numbers = figures(original_bytes=4000, archive_bytes=1000, ledger=ledger, nnz=50, n_weights=99)
    baselines = [
        Measurement("big", "file", 1250, 1.0, 1.0),
        Measurement("small", "file", 800, 1.0, 1.0),
        Measurement("chunky", "chunk", 2000, 1.0, 1.0, "fair"),
        Measurement("absent", "chunk", None, note=NOT_INSTALLED),
    ]
    run = ModelRun("learned", ledger, numbers, {}, {"train": 3.0, "encode": 1.0})
    return BenchResult("f", 4000, 512, baselines, run)


def test_gaps_are_against_the_hardest_of_each_kind() -> None:
    result = made_up_result()
    assert result.gaps() == {"file": 0.25, "chunk": -0.5}
    assert gap_lines(result) == [
        "mdlzip is 25.0% larger than small, the best whole file",
        "mdlzip is 50.0% smaller than chunky, the best per chunk",
    ]


def test_the_order_0_yardstick_is_the_entropy_of_every_tensor() -> None:
    flat = np.arange(-8, 8, dtype=np.int8).repeat(32)  # 16 values alike: 4 bits each
    sparse = np.zeros(1024, np.int8)
    sparse[:256] = 1  # 0.8113 bits each
    tensors = {n: SimpleNamespace(codes=c) for n, c in (("a", flat), ("b", sparse))}
    network: Any = SimpleNamespace(tensors=tensors)
    assert order0_bytes(network) == math.ceil((512 * 4 + 1024 * 0.811278) / 8)
    found = yardsticks(network, 300)
    assert found["weights_over_order0_percent"] == pytest.approx(100 * (300 / 360 - 1))


def test_the_yardsticks_are_told(tmp_path: Path) -> None:
    archive = ROOT / "tests" / "golden" / "v1-learned-merges.mdlz"
    decompress(str(archive), str(tmp_path / "original"))
    result = run_bench(
        tmp_path / "original", against=(), options=CompressOptions(), chunk_size=512,
        archive=archive, on_progress=silent, should_stop=lambda: False,
    )  # fmt: skip
    assert result.run is not None
    found, ledger = result.run.figures, result.run.ledger
    share = (ledger["positions"] + ledger["values"]) / found["order0_weight_bytes"] - 1
    assert found["weights_over_order0_percent"] == pytest.approx(100 * share)
    assert any("their order-0 entropy" in line for line in gap_lines(result))


def test_one_network_in_every_context(tmp_path: Path) -> None:
    """The archive's own context comes out as the archive has it; each decodes to the original."""
    archive = ROOT / "tests" / "golden" / "v1-trained-solid.mdlz"
    decompress(str(archive), str(tmp_path / "original"))
    result = run_bench(
        tmp_path / "original", against=(), options=CompressOptions(), chunk_size=512,
        archive=archive, contexts=True, on_progress=silent, should_stop=lambda: False,
    )  # fmt: skip
    assert result.run is not None
    runs = {(run.context, run.network): run for run in result.run.contexts}
    assert set(runs) == {
        *((name, True) for name in MODES), *((name, False) for name in MODES[1:])
    }  # fmt: skip
    assert runs["solid", True].archive_bytes < runs["chunk", True].archive_bytes
    assert runs["solid", True].archive_bytes <= runs["group", True].archive_bytes
    for run in runs.values():
        assert min(run.encode_s, run.decode_s, run.first_read_s, run.later_read_s) > 0
    lines = context_rows(result)
    assert [line[0] for line in lines[:5]] == [*MODES, "group, alone"]
    assert len(result.as_json()["mdlzip"]["contexts"]) == 7


@pytest.mark.parametrize("name", ["v1-trained-solid", "v1-learned-alone", "v1-xz"])
def test_speed_is_measured_in_one_run(tmp_path: Path, name: str) -> None:
    """Of a network, of experts alone, and of a general method; baselines stand beside."""
    archive = ROOT / "tests" / "golden" / f"{name}.mdlz"
    decompress(str(archive), str(tmp_path / "original"))
    result = run_bench(
        tmp_path / "original", against=("xz-9",), options=CompressOptions(), chunk_size=512,
        archive=archive, speed=True, on_progress=silent, should_stop=lambda: False,
    )  # fmt: skip
    assert result.run is not None and result.run.speed is not None
    found = result.run.speed
    assert min(found.decode_s, found.first_read_s, found.later_read_s) > 0
    assert found.threads >= 1
    assert (found.encode_s is None) == (name == "v1-xz")
    assert (found.step_s is None) == (name != "v1-trained-solid")
    lines = speed_rows(result)
    assert [line[0] for line in lines[:2]] == ["xz-9", f"mdlzip, {found.context}".rstrip(", ")]
    assert (lines[-1][0] == "billions of them a second") == (name == "v1-trained-solid")
    assert result.as_json()["mdlzip"]["speed"]["decode_s"] == found.decode_s
    assert "instruction_set" in result.as_json()["machine"]


def test_multiply_adds_are_those_of_the_matrices() -> None:
    config = ModelConfig(d_model=32, n_layers=2, d_ff=96, n_merges=7)
    specs = tensor_specs(config)
    cells = sum(s.n_cells for s in specs.values() if s.is_matrix and not s.by_symbol)
    assert products_per_symbol(config, 50) == cells + 51 * 32


def test_table_rows() -> None:
    table = rows(made_up_result())
    assert [r[0] for r in table[:5]] == ["small", "big", "chunky", "absent", "mdlzip"]
    assert table[3][1] == "-" and NOT_INSTALLED in table[3][-1]
    assert table[4][1:4] == ("1,000", "25.00%", "2.0000")
    assert table[4][4] == "4.00"
    assert [r[1] for r in table[5:]] == ["1,400", "1,000"]  # 12 * 50 + 800, 4 * 50 + 800


def test_json_names_machine_and_schema() -> None:
    got = made_up_result().as_json()
    assert got["schema"] == 1 and got["machine"]["cores"] >= 1
    assert got["mdlzip"]["ledger"][-1]["bytes"] == 1000


def test_phase_timer_books_every_phase() -> None:
    seen: list[str] = []
    timer = PhaseTimer(lambda phase, done, total, note: seen.append(phase))
    for phase in ("train", "train", "encode"):
        timer(phase, 0, 1, "")
    timer.stop()
    assert seen == ["train", "train", "encode"] and set(timer.seconds) == {"train", "encode"}
