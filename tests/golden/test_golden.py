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
from mdlzip.networks.none import NoNetwork
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


def reader_of(name: str) -> ArchiveReader:
    archive = (HERE / f"v{make_golden.VERSION}-{name}.mdlz").read_bytes()
    return ArchiveReader(io.BytesIO(archive), len(archive))


@pytest.mark.parametrize("name", make_golden.trained_cases())
def test_trained_archives_are_coded_alike(name: str) -> None:
    """With the archive's own weights, cut and context the writer makes the archive again."""
    archive = (HERE / f"v{make_golden.VERSION}-{name}.mdlz").read_bytes()
    reader = reader_of(name)
    network = unpack_weights(reader.weights(), reader.config)
    with mdlzip.open(HERE / f"v{make_golden.VERSION}-{name}.mdlz") as opened:
        original = opened.read(0, opened.size)
    again = make_golden.coded_archive(original, network, reader.layout, reader.context)
    assert again == archive


def test_the_trained_archives_are_what_they_are_for() -> None:
    found = {name: reader_of(name) for name in make_golden.trained_cases()}
    assert found["trained-merges"].config.n_merges >= 200
    long = found["trained-16k"].layout
    assert long.chunk_size == 16384 < long.total_bytes
    paper = found["trained-paper"].config
    assert (paper.norm, paper.activation, paper.positions) == ("layer", "gelu", "sinusoidal")
    assert paper.biases and paper.shared_norm
    ours = found["trained-ours"].config
    assert (ours.norm, ours.positions) == ("rms", "rotary") and ours.conv_width and ours.match_min
    solid = found["trained-solid"]
    assert solid.config.n_merges and len(solid.context.waves) >= 3 < max(solid.context.waves)


def test_the_contexts_are_what_they_are_for() -> None:
    """All of them, each with several units; with merges, and without."""
    found = [reader_of(name) for name in make_golden.context_cases()]
    assert [reader.context.mode for reader in found] == [
        "group",
        "reference",
        "solid",
        "solid",
        "solid",
    ]
    assert min(len(reader.units) for reader in found) >= 2
    assert [reader.config.n_merges > 0 for reader in found] == [False, True, True, False, True]
    assert all(isinstance(reader.config, NoNetwork) for reader in found[3:])
    assert found[3].context.grid == (46, 2)
    assert len(found[1].context.references) == 2
    assert max(found[2].context.waves) > 1


NAMED = {
    name: digest
    for digest, name in (
        line.split() for line in (make_golden.MODELS / "SHA256").read_text().splitlines()
    )
}
MODEL = make_golden.MODELS / f"v{make_golden.VERSION}-log.mdlm"


@pytest.mark.parametrize("name", sorted(NAMED))
def test_archives_that_name_a_model(name: str, tmp_path: Path) -> None:
    """Both decoders decode them, and today's writer makes the same bytes."""
    archive = (make_golden.MODELS / name).read_bytes()
    shutil.copy(make_golden.MODELS / name, tmp_path / name)
    mdlzip.decompress(tmp_path / name, tmp_path / "out", model=MODEL)
    assert sha256((tmp_path / "out").read_bytes()).hexdigest() == NAMED[name]
    second = second_decoder.decode(archive, models=[MODEL.read_bytes()])
    assert sha256(second).hexdigest() == NAMED[name]
    assert make_golden.named_cases()[name][1] == archive


def test_the_model_is_made_alike() -> None:
    model, network = make_golden.model_file()
    assert model == MODEL.read_bytes()
    assert second_decoder.decode(model) == network.text
    assert network.config.n_merges
    assert {path.name for path in make_golden.MODELS.glob("*.mdlz")} == set(NAMED)
