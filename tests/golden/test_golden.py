"""Archives of every released format version decode, and today's writer still makes their bytes."""

from __future__ import annotations

import io
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

import mdlzip
from mdlzip.archive.reader import ArchiveReader
from mdlzip.archive.weights import unpack_weights
from mdlzip.codec.options import CompressOptions
from tests import second_decoder
from tests.golden import make_golden

HERE = Path(__file__).resolve().parent
DIGESTS = {
    name: digest
    for digest, name in (line.split() for line in (HERE / "SHA256").read_text().splitlines())
}
MOST_BYTES = 100_000


def test_every_archive_has_a_digest() -> None:
    assert {p.name for p in HERE.glob("*.mdlz")} == set(DIGESTS)
    cases = [*make_golden.seeded_cases(), *make_golden.trained_cases()]
    assert {f"v{make_golden.VERSION}-{name}.mdlz" for name in cases} <= set(DIGESTS)
    assert max(p.stat().st_size for p in HERE.glob("*.mdlz")) <= MOST_BYTES


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_it_decodes(name: str, tmp_path: Path) -> None:
    shutil.copy(HERE / name, tmp_path / name)
    mdlzip.decompress(tmp_path / name, tmp_path / "out")
    assert sha256((tmp_path / "out").read_bytes()).hexdigest() == DIGESTS[name]
    assert (tmp_path / "out").stat().st_mtime_ns == 10**18


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_the_second_decoder_decodes_it(name: str) -> None:
    archive = (HERE / name).read_bytes()
    if name == "v1-general.mdlz":
        with pytest.raises(second_decoder.Undecoded, match="zstd payload"):
            second_decoder.decode(archive)
    else:
        assert sha256(second_decoder.decode(archive)).hexdigest() == DIGESTS[name]


@pytest.mark.parametrize("name", [n for n in make_golden.seeded_cases() if n != "general"])
def test_the_writer_makes_the_same_bytes(name: str, tmp_path: Path) -> None:
    """Any difference is a format change ("general" depends on the zstd library)."""
    archive = HERE / f"v{make_golden.VERSION}-{name}.mdlz"
    assert make_golden.make(name, tmp_path) == archive.read_bytes()


@pytest.mark.parametrize("name", make_golden.trained_cases())
def test_trained_archives_are_coded_alike(name: str, tmp_path: Path) -> None:
    """With the archive's own weights and its original, the writer makes the archive again."""
    archive = (HERE / f"v{make_golden.VERSION}-{name}.mdlz").read_bytes()
    reader = ArchiveReader(io.BytesIO(archive), len(archive))
    network = unpack_weights(reader.weights(), reader.config)
    with mdlzip.open(HERE / f"v{make_golden.VERSION}-{name}.mdlz") as opened:
        original = opened.read(0, opened.size)
    options = CompressOptions(
        chunk_size=reader.layout.chunk_size,
        group_chunks=reader.layout.group_chunks,
        fallback=False,
        context=reader.context.mode,
        device="cpu",
        threads=1,
    )
    arguments = {"network": network, "options": options}
    assert make_golden.compress(original, arguments, tmp_path) == archive


def test_the_trained_archives_are_what_they_are_for() -> None:
    found = {}
    for name in make_golden.trained_cases():
        archive = (HERE / f"v{make_golden.VERSION}-{name}.mdlz").read_bytes()
        reader = ArchiveReader(io.BytesIO(archive), len(archive))
        found[name] = reader.config, reader.layout
    assert found["trained-merges"][0].n_merges >= 200
    assert found["trained-16k"][1].chunk_size == 16384 < found["trained-16k"][1].total_bytes
    paper = found["trained-paper"][0]
    assert (paper.norm, paper.activation, paper.positions) == ("layer", "gelu", "sinusoidal")
    assert paper.biases and paper.shared_norm
    ours = found["trained-ours"][0]
    assert (ours.norm, ours.positions) == ("rms", "rotary") and ours.conv_width and ours.match_min
