from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mdlzip
from mdlzip.codec import CompressOptions, read_network
from mdlzip.codec.work import work_folder
from mdlzip.coding.range_coder import RangeCoder
from mdlzip.errors import (
    CorruptArchive,
    Interrupted,
    LimitExceeded,
    MdlzipError,
    OutputExists,
    UsageError,
    VerifyFailed,
)
from tests.archive_tools import (
    GENERAL_METHODS,
    METHODS,
    compressible,
    general_archive,
    make_archive,
    random_network,
    sample,
    with_trainer,
)

CPU = CompressOptions(device="cpu", threads=1)
LEARNED = CompressOptions(device="cpu", threads=1, chunk_size=64, group_chunks=3, fallback=False)
SCRIPTS = "Ünïcode Ελληνικά Русский 中文字符 العربية हिन्दी 日本語 🙂 ".encode()
INPUTS = {
    "empty": b"",
    "one": b"a",
    "511": compressible(511),
    "512": compressible(512),
    "513": compressible(513),
    "all values": bytes(range(256)),
    "random": np.random.default_rng(0).bytes(1000),
    "repeated": b"\0" * 1500,
    "scripts": SCRIPTS * 9,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file with rights and a time of its own."""
    path = tmp_path / "letter.txt"
    path.write_bytes(compressible(3000))
    path.chmod(0o640)
    os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    return path


@pytest.mark.parametrize("data", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("learned", [False, True], ids=["general", "learned"])
def test_round_trip(tmp_path: Path, data: bytes, learned: bool) -> None:
    path = tmp_path / "f"
    path.write_bytes(data)
    network = random_network() if learned else None
    report = mdlzip.compress(path, options=LEARNED if learned else CPU, network=network)
    archive = tmp_path / "f.mdlz"
    assert report.path == archive
    assert report.archive_bytes == archive.stat().st_size == sum(report.ledger.values())
    assert report.method == ("learned" if learned and data else report.method)
    info = mdlzip.inspect(archive)
    assert info.ledger == report.ledger
    assert (info.method, info.original_bytes) == (report.method, len(data))
    mdlzip.test(archive, device="cpu")
    path.unlink()
    back = mdlzip.decompress(archive, device="cpu", threads=1)
    assert back.path == path
    assert path.read_bytes() == data


def test_random_bytes_grow_by_no_more_than_64(tmp_path: Path) -> None:
    path = tmp_path / ("long name " * 20)
    path.write_bytes(np.random.default_rng(1).bytes(4000))
    report = mdlzip.compress(path, options=CPU)
    assert report.method == "stored"
    assert report.archive_bytes - 4000 == 62


def test_the_name_of_random_bytes_is_kept_where_the_archives_own_does_not_tell_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "picture.jpg"
    data = np.random.default_rng(1).bytes(4000)
    path.write_bytes(data)
    report = mdlzip.compress(path, tmp_path / "x.mdlz", CPU)
    assert report.archive_bytes - 4000 < 62 + 2 * 12 + len(path.name) + 8
    path.unlink()
    assert mdlzip.decompress(tmp_path / "x.mdlz").path == path
    assert path.read_bytes() == data


def test_metadata_come_back(source: Path, tmp_path: Path) -> None:
    for method in METHODS:
        archive = tmp_path / f"{method}.mdlz"
        network = random_network() if method == "learned" else None
        mdlzip.compress(source, archive, LEARNED if network else CPU, network=network)
        assert archive.stat().st_mode & 0o777 == 0o640
        out = tmp_path / f"{method}.out"
        mdlzip.decompress(archive, out, device="cpu")
        assert out.stat().st_mode & 0o7777 == 0o640
        assert out.stat().st_mtime_ns == archive.stat().st_mtime_ns == 1_600_000_000_123_456_789


def test_the_name_is_kept_where_the_archives_own_does_not_tell_it(
    source: Path, tmp_path: Path
) -> None:
    mdlzip.compress(source, options=CPU)
    assert mdlzip.inspect(tmp_path / "letter.txt.mdlz").name is None
    mdlzip.compress(source, tmp_path / "a", CPU)
    assert mdlzip.inspect(tmp_path / "a").name == "letter.txt"
    data = source.read_bytes()
    source.unlink()
    assert mdlzip.decompress(tmp_path / "a").path == source
    assert source.read_bytes() == data


def test_an_archive_without_name_or_suffix_needs_an_output(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(general_archive("stored", b"abc"))
    with pytest.raises(UsageError, match="-o"):
        mdlzip.decompress(tmp_path / "a")


def test_never_worse_and_says_by_how_much(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.write_bytes(compressible(3000) + np.random.default_rng(3).bytes(6000))
    record = with_trainer(monkeypatch)
    report = mdlzip.compress(source, options=CPU)
    assert record.calls == 1
    assert report.skipped_training is None
    assert set(report.candidates) == {*METHODS, "experts"}
    assert report.archive_bytes == min(report.candidates.values())
    assert report.method != "learned"
    assert report.model_lost_by == report.candidates["learned"] - report.archive_bytes > 0
    assert report.figures == {"steps": 1.0}
    kept = mdlzip.compress(source, tmp_path / "k", CompressOptions(device="cpu", fallback=False))
    assert kept.method == "learned"
    assert kept.archive_bytes > report.archive_bytes
    assert kept.nnz == random_network().nnz
    assert sorted(os.listdir(tmp_path)) == ["k", "letter.txt", "letter.txt.mdlz"]


def test_experts_alone_take_bytes_where_that_is_smaller(tmp_path: Path) -> None:
    """A table: strings across its fields hide from the experts what stands above."""
    rng = np.random.Generator(np.random.PCG64(0))
    walks = 500 + np.cumsum(rng.integers(-3, 4, (1500, 3)), axis=0)
    rows = [
        f"{i // 24:04},{i % 24:02},{a / 100:.2f},{b},{c}\n" for i, (a, b, c) in enumerate(walks)
    ]
    source = tmp_path / "table.csv"
    source.write_text("".join(rows))
    sizes = {}
    for strings in (True, False):
        overrides = () if strings else ("train.vocabulary=0",)
        options = CompressOptions(
            preset="nano", steps=1, overrides=overrides, device="cpu", force=True
        )
        report = mdlzip.compress(source, options=options)
        assert report.method == "experts"
        assert not mdlzip.inspect(f"{source}.mdlz").config.n_merges
        sizes[strings] = report.archive_bytes
    assert sizes[True] == sizes[False]
    out = mdlzip.decompress(f"{source}.mdlz", tmp_path / "out").path
    assert out is not None and out.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("data", [b"", compressible(2000), np.random.default_rng(1).bytes(9000)])
def test_training_is_skipped_where_it_cannot_pay(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = with_trainer(monkeypatch)
    (tmp_path / "f").write_bytes(data)
    report = mdlzip.compress(tmp_path / "f", options=CPU)
    assert record.calls == 0
    assert report.skipped_training


@pytest.mark.parametrize("method", METHODS)
def test_random_access_equals_slices(tmp_path: Path, method: str) -> None:
    archive = tmp_path / "a.mdlz"
    archive.write_bytes(make_archive(tmp_path, method))
    data = sample(method)
    rng = np.random.default_rng(7)
    with mdlzip.open(archive, threads=1) as opened:
        assert opened.size == len(data)
        for _ in range(40):
            offset, n = (int(x) for x in rng.integers(0, len(data) + 20, 2))
            assert opened.read(offset, n) == data[offset : offset + n]
        assert opened.read(0, 1 << 60) == data
        assert opened.read(len(data), 1) == b""
        with pytest.raises(UsageError):
            opened.read(-1, 2)
    with pytest.raises(MdlzipError, match="closed"):
        opened.read(0, 1)


def test_random_access_decodes_only_the_groups_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mdlzip.quantised.unit_decoder import UnitDecoder

    archive = tmp_path / "a.mdlz"
    archive.write_bytes(make_archive(tmp_path, "learned", compressible(2000)))
    asked: list[int] = []
    true_decode = UnitDecoder.decode

    def spy(self, coded):  # type: ignore[no-untyped-def]
        coded = list(coded)
        asked.extend(unit for unit, _ in coded)
        return true_decode(self, coded)

    monkeypatch.setattr(UnitDecoder, "decode", spy)
    with mdlzip.open(archive, threads=1) as opened:
        assert opened.read(600, 300) == compressible(2000)[600:900]
        assert asked == [2, 3]
        opened.read(700, 10)
        assert asked == [2, 3]  # from the cache


def test_random_access_notices_damage(tmp_path: Path) -> None:
    data = bytearray(make_archive(tmp_path, "learned", compressible(2000)))
    archive = tmp_path / "a.mdlz"
    from mdlzip.archive.reader import ArchiveReader

    reader = ArchiveReader(io.BytesIO(bytes(data)), len(data))
    reader.weights()
    table, first = reader.jump_to_index()
    data[first + table.lengths[0] // 2] ^= 1
    archive.write_bytes(data)
    with mdlzip.open(archive, threads=1) as opened:
        opened.read(300, 10)
        with pytest.raises(CorruptArchive, match="unit 0"):
            opened.read(0, 10)


def _flawed_decoder(monkeypatch: pytest.MonkeyPatch, gaps: slice) -> None:
    """Decoders see the counts of some gaps changed by a millionth of the sum of all.

    (Less may vanish when the range coder rounds the counts to 24 bits, and then changes nothing.)
    """
    true_init = RangeCoder.__init__

    def init(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        true_init(self, *args, **kwargs)
        if self._decoding:
            self.counts = self.counts.copy()
            self.counts[gaps] += 1 + self.counts[0] // (1 << 18)

    monkeypatch.setattr(RangeCoder, "__init__", init)


@pytest.mark.parametrize("gaps", [slice(1), slice(1, None)])
@pytest.mark.parametrize("force", [False, True])
def test_changed_counts_make_verify_refuse(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gaps: slice, force: bool
) -> None:
    target = tmp_path / "letter.txt.mdlz"
    if force:
        target.write_bytes(b"old")
    _flawed_decoder(monkeypatch, gaps)
    with_trainer(monkeypatch)
    options = CompressOptions(device="cpu", threads=1, fallback=False, force=force, context="chunk")
    with pytest.raises(VerifyFailed) as caught:
        mdlzip.compress(source, options=options)
    assert caught.value.exit_code == 7
    expected = ["letter.txt", "letter.txt.mdlz"] if force else ["letter.txt"]
    assert sorted(os.listdir(tmp_path)) == expected
    assert not force or target.read_bytes() == b"old"


def test_outputs_are_refused_before_any_work(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = with_trainer(monkeypatch)
    target = tmp_path / "letter.txt.mdlz"
    target.write_bytes(b"theirs")
    with pytest.raises(OutputExists):
        mdlzip.compress(source, options=LEARNED)
    with pytest.raises(UsageError, match="same file"):
        mdlzip.compress(source, source, LEARNED)
    with pytest.raises(UsageError, match="does not exist"):
        mdlzip.compress(source, tmp_path / "no" / "out", LEARNED)
    with pytest.raises(UsageError, match="is a folder"):
        mdlzip.compress(source, tmp_path, LEARNED)
    with pytest.raises(UsageError, match="tar"):
        mdlzip.compress(tmp_path, tmp_path / "x", LEARNED)
    assert record.calls == 0
    assert target.read_bytes() == b"theirs"


def test_decompress_refuses_bad_outputs(source: Path, tmp_path: Path) -> None:
    archive = mdlzip.compress(source, options=CPU).path
    before = archive.read_bytes()
    with pytest.raises(OutputExists):
        mdlzip.decompress(archive)
    with pytest.raises(UsageError, match="same file"):
        mdlzip.decompress(archive, archive, force=True)
    assert archive.read_bytes() == before
    mdlzip.decompress(archive, force=True)


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_archive_leaves_no_output(tmp_path: Path, method: str) -> None:
    data = bytearray(make_archive(tmp_path, method))
    data[-1] ^= 1
    bad = tmp_path / "bad.mdlz"
    bad.write_bytes(data)
    with pytest.raises(CorruptArchive, match="SHA-256"):
        mdlzip.decompress(bad, tmp_path / "out", device="cpu", threads=1)
    assert not (tmp_path / "out").exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_sources_are_removed_only_when_asked(source: Path, tmp_path: Path) -> None:
    data = source.read_bytes()
    archive = mdlzip.compress(source, options=CompressOptions(remove_source=True)).path
    assert not source.exists()
    mdlzip.decompress(archive, remove_source=True)
    assert source.read_bytes() == data
    assert not archive.exists()
    with pytest.raises(UsageError):
        mdlzip.compress(source, "-", CompressOptions(remove_source=True))
    assert source.exists()


def test_pipes_on_both_sides(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = source.read_bytes()
    for options, network in ((CPU, None), (LEARNED, random_network())):
        packed, plain = io.BytesIO(), io.BytesIO()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=packed))
        report = mdlzip.compress("-", options=options, network=network)
        assert report.path is None
        assert report.archive_bytes == len(packed.getvalue())
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(packed.getvalue())))
        monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=plain))
        mdlzip.decompress("-", device="cpu")
        assert plain.getvalue() == data
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(packed.getvalue())))
        info = mdlzip.inspect("-")
        assert (info.mode, info.name, info.archive_bytes) == (None, None, report.archive_bytes)


def test_memory_limit_names_need_and_flag(tmp_path: Path) -> None:
    for method in ("zstd", "xz", "learned"):
        archive = tmp_path / "a.mdlz"
        archive.write_bytes(make_archive(tmp_path, method))
        with pytest.raises(LimitExceeded, match=r"--memory \d+MiB"):
            mdlzip.test(archive, memory=1 << 20)
        assert mdlzip.inspect(archive).decode_memory_bytes > 1 << 20


def test_interrupted_work_is_kept_and_resumed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = work_folder(tmp_path / "letter.txt.mdlz", b"", None, resume=False)
    with_trainer(monkeypatch, raises=Interrupted("stopped"))
    with pytest.raises(Interrupted):
        mdlzip.compress(source, options=LEARNED)
    assert (folder / "step-00000001.safetensors").is_file()
    resume = CompressOptions(device="cpu", fallback=False, resume=True)
    record = with_trainer(monkeypatch)
    mdlzip.compress(source, options=resume)
    assert record.resumed == 1
    assert not folder.exists()


def test_old_work_is_discarded_only_when_asked(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_trainer(monkeypatch, raises=Interrupted("stopped"))
    with pytest.raises(Interrupted):
        mdlzip.compress(source, options=LEARNED)
    record = with_trainer(monkeypatch)
    with pytest.raises(OutputExists, match="--resume goes on from it, --force begins anew"):
        mdlzip.compress(source, options=LEARNED)
    assert record.calls == 0
    mdlzip.compress(source, options=replace(LEARNED, force=True))
    assert (record.calls, record.resumed) == (1, 0)


def test_work_of_another_input_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_trainer(monkeypatch, raises=Interrupted("stopped"))
    with pytest.raises(Interrupted):
        mdlzip.compress(source, options=LEARNED)
    source.write_bytes(compressible(3001))
    with pytest.raises(UsageError, match="another input"):
        mdlzip.compress(source, options=CompressOptions(device="cpu", fallback=False, resume=True))


def test_a_work_folder_serves_one_run_at_a_time(source: Path, tmp_path: Path) -> None:
    from mdlzip.codec.work import WorkFolder

    work = tmp_path / "work"
    with WorkFolder(work, "id", resume=False):
        with pytest.raises(UsageError, match="another mdlzip"), WorkFolder(work, "id", resume=True):
            pass
    assert not work.exists()


def test_a_source_that_changes_is_noticed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = source.read_bytes()

    def change(phase: str, done: float, total: float, note: str) -> None:
        if phase == "compare" and source.read_bytes() == before:
            source.write_bytes(before[::-1])
            os.utime(source, ns=(1, 1_600_000_000_123_456_789))  # the time of before

    with pytest.raises(MdlzipError, match="changed while"):
        mdlzip.compress(source, options=CPU, on_progress=change)
    assert os.listdir(tmp_path) == ["letter.txt"]


@pytest.mark.parametrize("when", ["tokenise", "encode", "verify"])
def test_a_source_cut_short_at_any_time_is_an_error(
    source: Path, tmp_path: Path, when: str
) -> None:
    def cut(phase: str, done: float, total: float, note: str) -> None:
        if phase == when:
            os.truncate(source, 100)

    with pytest.raises(MdlzipError, match=r"letter\.txt: changed while it was being compressed"):
        mdlzip.compress(source, options=LEARNED, on_progress=cut, network=random_network())
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_progress_reaches_its_end_in_every_phase(source: Path) -> None:
    last: dict[str, tuple[float, float]] = {}

    def note(phase: str, done: float, total: float, text: str) -> None:
        assert 0 <= done <= total
        last[phase] = done, total

    mdlzip.compress(source, options=LEARNED, on_progress=note, network=random_network())
    mdlzip.test(f"{source}.mdlz", device="cpu", on_progress=note)
    assert set(last) == {"tokenise", "encode", "verify", "decode"}
    assert all(done == total == 3000 for done, total in last.values())


def test_options_out_of_range_are_refused() -> None:
    for bad in ({"chunk_size": 8}, {"level": 0}, {"group_chunks": 0}, {"weights": "x"}):
        with pytest.raises(UsageError):
            CompressOptions(**bad)
    with pytest.raises(UsageError):
        CompressOptions(budget_s=0)
    assert CompressOptions().chunks_per_group() == 128


def test_read_network_gives_the_weights_back(tmp_path: Path) -> None:
    archive = tmp_path / "a.mdlz"
    archive.write_bytes(make_archive(tmp_path, "learned"))
    network, layout = read_network(archive)
    assert (layout.chunk_size, layout.group_chunks) == (256, 1)
    for name, tensor in random_network().tensors.items():
        assert np.array_equal(network.tensors[name].codes, tensor.codes)
    for method in GENERAL_METHODS:
        archive.write_bytes(make_archive(tmp_path, method))
        with pytest.raises(UsageError, match="no weights"):
            read_network(archive)


def test_weights_travel_through_safetensors(source: Path, tmp_path: Path) -> None:
    from mdlzip.codec import export_weights, import_weights

    archive = mdlzip.compress(source, options=LEARNED, network=random_network()).path
    weights = tmp_path / "w.safetensors"
    export_weights(archive, weights)
    with pytest.raises(OutputExists):
        export_weights(archive, weights)
    again = import_weights(weights, source, tmp_path / "b.mdlz", LEARNED).path
    first, second = mdlzip.inspect(archive), mdlzip.inspect(again)
    assert {**second.ledger, "metadata": 0} == {
        **first.ledger,
        "metadata": 0,
        "header": second.ledger["header"],
        "checksums": second.ledger["checksums"],
    }


def test_decoding_works_without_the_training_code(tmp_path: Path) -> None:
    archive = tmp_path / "a.mdlz"
    archive.write_bytes(make_archive(tmp_path, "learned"))
    code = (
        "import sys\n"
        "for room in ('training', 'sparsity', 'model'): sys.modules['mdlzip.' + room] = None\n"
        "import mdlzip; mdlzip.decompress(*sys.argv[1:], device='cpu')"
    )
    out = tmp_path / "out"
    subprocess.run(
        [sys.executable, "-c", code, archive, out], check=True, cwd=Path(mdlzip.__file__).parents[1]
    )
    assert out.read_bytes() == sample("learned")


def test_importing_the_package_is_instant() -> None:
    code = (
        "import sys, mdlzip, mdlzip.codec; mdlzip.CompressOptions();"
        "heavy = {'torch', 'numpy', 'numba'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(mdlzip.__file__).parents[1])


def test_general_methods_need_no_torch(tmp_path: Path) -> None:
    for method in GENERAL_METHODS:
        (tmp_path / f"{method}.mdlz").write_bytes(general_archive(method, compressible(900)))
    code = (
        "import sys; sys.modules['torch'] = None; import mdlzip\n"
        "for m in ('stored', 'zstd', 'xz'):\n"
        f"    p = {str(tmp_path)!r} + '/' + m + '.mdlz'; mdlzip.inspect(p); mdlzip.decompress(p)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(mdlzip.__file__).parents[1])
    assert (tmp_path / "xz").read_bytes() == compressible(900)
