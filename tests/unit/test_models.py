"""Archives that name a model instead of holding a network."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

import mdlzip
from mdlzip.archive.card import Card, pack_card, unpack_card
from mdlzip.codec import models
from mdlzip.codec.options import CompressOptions
from mdlzip.codec.salvaging import salvage
from mdlzip.errors import (
    CorruptArchive,
    MissingModel,
    OutputExists,
    UnsupportedVersion,
    UsageError,
)
from mdlzip.symbols.learn import learn_merges
from mdlzip.symbols.vocabulary import Vocabulary, all_bytes
from tests import second_decoder
from tests.archive_tools import TINY, compressible, make_archive, random_network
from tests.model_tools import TEXT, make_model

DATA = TEXT[200:600] + b" and one more." + TEXT[:400]
CONTEXTS = ("chunk", "group", "reference", "solid")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model folder."""
    monkeypatch.setenv(models.FOLDER_VARIABLE, str(tmp_path / "kept"))
    return tmp_path / "kept"


def compressed(folder: Path, model: Path, data: bytes = DATA, **options: object) -> Path:
    """An archive of `data` that names the model."""
    source = folder / "data"
    source.write_bytes(data)
    chosen: dict[str, object] = {"fallback": False, "force": True, "threads": 1, "device": "cpu"}
    mdlzip.compress(source, options=CompressOptions(model=model, **chosen | options))  # type: ignore[arg-type]
    return folder / "data.mdlz"


def strings() -> Vocabulary:
    sample = np.frombuffer(TEXT, np.uint8)
    return Vocabulary(all_bytes(), learn_merges(sample, 30, 3, 0.0, 8))


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("vocabulary", [Vocabulary(), strings()], ids=["bytes", "merges"])
def test_both_decoders_give_the_file_back(
    tmp_path: Path, context: str, vocabulary: Vocabulary
) -> None:
    config = replace(TINY, n_merges=len(vocabulary.merges))
    network = random_network(config=config, vocabulary=vocabulary)
    model = make_model(tmp_path / "m.mdlm", network)
    archive = compressed(tmp_path, model, context=context, chunk_size=64, group_chunks=4)
    mdlzip.decompress(archive, tmp_path / "out", model=model)
    assert (tmp_path / "out").read_bytes() == DATA
    with mdlzip.open(archive, model=model) as opened:
        assert opened.read(500, 200) == DATA[500:700]
    known = [model.read_bytes()]
    assert second_decoder.decode(archive.read_bytes(), models=known) == DATA
    with pytest.raises(second_decoder.Undecoded, match="not at hand"):
        second_decoder.decode(archive.read_bytes())


@pytest.mark.parametrize("context", CONTEXTS[1:])
def test_the_text_is_known_from_the_start(tmp_path: Path, context: str) -> None:
    """What stands in it costs next to nothing."""
    text = compressible(3000)
    options = {"context": context, "chunk_size": 64, "group_chunks": 8}
    with_text = make_model(tmp_path / "a.mdlm", text=text)
    without = make_model(tmp_path / "b.mdlm", text=b"nothing of the kind")
    sizes = [
        compressed(tmp_path, model, text[500:2500], **options).stat().st_size
        for model in (with_text, without)
    ]
    assert sizes[0] < 0.6 * sizes[1]


def test_the_archive_is_small_and_says_what_it_needs(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m.mdlm")
    report = mdlzip.compress(
        _written(tmp_path / "data", DATA),
        options=CompressOptions(model=model, fallback=False, device="cpu"),
    )
    assert report.method == "learned"
    assert report.model_id == sha256(model.read_bytes()).hexdigest()
    assert report.model_bytes == model.stat().st_size
    assert sum(report.ledger.values()) == report.archive_bytes
    assert report.ledger["positions"] == report.ledger["values"] == report.ledger["scales"] == 0
    info = mdlzip.inspect(tmp_path / "data.mdlz")
    assert (info.model_id, info.ledger) == (report.model_id, report.ledger)
    assert info.model_bytes is None  # nobody keeps it
    models.add_model(model)
    assert mdlzip.inspect(tmp_path / "data.mdlz").model_bytes == model.stat().st_size
    card = mdlzip.inspect(model).card
    assert card is not None and card.name == "m"


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_kept_models_are_found(tmp_path: Path, folder: Path) -> None:
    model = make_model(tmp_path / "logs.mdlm")
    archive = compressed(tmp_path, model)
    out = tmp_path / "out"
    with pytest.raises(MissingModel, match="mdlzip models add"):
        mdlzip.decompress(archive, out)
    assert not out.exists()
    kept = models.add_model(model)
    model.unlink()
    mdlzip.decompress(archive, out)
    assert out.read_bytes() == DATA
    with pytest.raises(OutputExists, match="kept already"):
        models.add_model(kept.path)
    assert [found.name for found in models.kept_models()] == ["logs"]
    for name in ("logs", kept.model_id.hex(), kept.model_id.hex()[:6]):
        assert models.named_model(name) == kept.path
    models.remove_model("logs")
    assert not list(folder.iterdir())


def test_wrong_missing_damaged_and_swapped_models(tmp_path: Path, folder: Path) -> None:
    first = make_model(tmp_path / "first.mdlm")
    second = make_model(tmp_path / "second.mdlm", random_network(seed=1))
    archive, out = compressed(tmp_path, first), tmp_path / "out"

    def fails(error: type[Exception], match: str, model: Path | None) -> None:
        with pytest.raises(error, match=match):
            mdlzip.decompress(archive, out, model=model)
        assert not out.exists()

    fails(MissingModel, "the archive was made with model", second)
    kept = models.add_model(first)
    shutil.copy(second, kept.path)
    fails(CorruptArchive, "is damaged, its content is not what its name says", None)
    data = bytearray(first.read_bytes())
    data[-60] ^= 1
    damaged = _written(tmp_path / "damaged.mdlm", bytes(data))
    fails(MissingModel, "is model", damaged)
    with pytest.raises(CorruptArchive, match=r"damaged\.mdlm: "):
        compressed(tmp_path, damaged)
    newer = bytearray(first.read_bytes())
    newer[4] = 2
    newer[22:26] = crc32(bytes(newer[:22])).to_bytes(4, "little")
    with pytest.raises(UnsupportedVersion, match="newer mdlzip"):
        compressed(tmp_path, _written(tmp_path / "newer.mdlm", bytes(newer)))


def test_a_damaged_kept_model_is_no_obstacle(tmp_path: Path, folder: Path) -> None:
    """It can be put right by adding it again, and hides no other."""
    model = make_model(tmp_path / "m.mdlm")
    kept = models.add_model(model).path
    kept.write_bytes(b"junk")
    (folder / "gone.mdlm").symlink_to(tmp_path / "nowhere")
    models.add_model(make_model(tmp_path / "other.mdlm", random_network(seed=1)))
    assert [found.name for found in models.kept_models()] == ["other"]
    models.add_model(model)
    assert kept.read_bytes() == model.read_bytes()


def test_no_output_takes_the_place_of_the_model(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m.mdlm")
    archive, before = compressed(tmp_path, model), model.read_bytes()
    options = CompressOptions(model=model, force=True, fallback=False, device="cpu")
    with pytest.raises(UsageError, match="would overwrite the input"):
        mdlzip.compress(tmp_path / "data", model, options)
    with pytest.raises(UsageError, match="would overwrite the input"):
        mdlzip.decompress(archive, model, model=model, force=True)
    with pytest.raises(UsageError, match="the same file"):
        salvage(archive, model, model=model, force=True)
    assert model.read_bytes() == before


def test_what_is_whole_is_salvaged(tmp_path: Path) -> None:
    """Of an archive that names a model; a flipped bit in its id is put right."""
    model = make_model(tmp_path / "m.mdlm")
    archive = compressed(tmp_path, model, context="group", chunk_size=64, group_chunks=4)
    whole = archive.read_bytes()
    place = whole.index(sha256(model.read_bytes()).digest())
    archive.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    report = salvage(archive, tmp_path / "a", model=model)
    assert report.verified and report.repaired == ("model",)
    assert (tmp_path / "a").read_bytes() == DATA
    torn = bytearray(whole)
    torn[place + 70 : place + 90] = bytes(20)  # of some groups
    archive.write_bytes(torn)
    report = salvage(archive, tmp_path / "b", model=model)
    found, expected = (tmp_path / "b").read_bytes(), bytearray(DATA)
    for damage in report.damage:
        expected[damage.start : damage.stop] = bytes(damage.stop - damage.start)
    assert 0 < report.lost_bytes < len(DATA) and found == expected
    with pytest.raises(MissingModel):
        salvage(archive, tmp_path / "c")


def test_every_single_bit_flip_is_found(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m.mdlm")
    archive = compressed(tmp_path, model, TEXT[:100], context="group", chunk_size=64)
    whole = archive.read_bytes()
    for place in range(8 * len(whole)):
        torn = bytearray(whole)
        torn[place >> 3] ^= 1 << (place & 7)
        archive.write_bytes(torn)
        with pytest.raises((CorruptArchive, UnsupportedVersion)):
            mdlzip.test(archive, model=model)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a regular file"):
        models.survey_model(tmp_path / "pipe")


def test_what_is_no_model(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m.mdlm")
    named = compressed(tmp_path, model)
    shutil.copy(named, tmp_path / "named.mdlm")
    alone = _written(tmp_path / "alone.mdlm", make_archive(tmp_path, "xz"))
    long = make_model(tmp_path / "long.mdlm", text=bytes(2**18 + 1), context="chunk")
    for path, reason in (
        (tmp_path / "named.mdlm", "its own network is in another file"),
        (alone, "there is no network in it"),
        (long, "262,144 are the most"),
    ):
        with pytest.raises(UsageError, match=reason):
            models.survey_model(path)


def test_unknown_bytes_leave_it_to_others(tmp_path: Path) -> None:
    known = Vocabulary(np.array(sorted(set(TEXT)), np.uint8))
    model = make_model(tmp_path / "m.mdlm", replace(random_network(), vocabulary=known))
    source = _written(tmp_path / "data", DATA + "ü".encode())
    report = mdlzip.compress(source, options=CompressOptions(model=model, device="cpu"))
    assert report.method in ("stored", "zstd", "xz")
    assert any("cannot predict" in warning for warning in report.warnings)
    with pytest.raises(UsageError, match="cannot predict"):
        compressed(tmp_path, model, DATA + b"\xff")


def test_options_that_training_would_need(tmp_path: Path) -> None:
    for more in ({"preset": "nano"}, {"steps": 3}, {"resume": True}, {"overrides": ("a=b",)}):
        with pytest.raises(UsageError, match="with a model nothing is trained"):
            CompressOptions(model=tmp_path, **more)  # type: ignore[arg-type]


def test_cards() -> None:
    card = Card("logs", True, 10, 5, 7.5)
    assert unpack_card(pack_card(card)) == card
    assert unpack_card(pack_card(Card())) == Card()
    assert card.held_out_bits_per_byte == 1.5
    assert unpack_card(b'{"name":"a","later":[1]}') == Card("a")
    wrong = ('"name":3', '"name":"a/b"', '"held_out_bits":-1', '"records":1', '"trained_bytes":9.5')
    for bad in ("", "[1]", "[" * 9999, *(f"{{{field}}}" for field in wrong)):
        assert unpack_card(bad.encode()) is None
