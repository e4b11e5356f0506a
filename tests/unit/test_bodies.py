"""The bodies of archives: one registry, and nothing else asks which of them an archive has."""

from __future__ import annotations

import ast
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import mdlzip
from mdlzip.archive import bodies
from mdlzip.archive.bodies.compressed import Compressed, Sink
from mdlzip.archive.source import SectionSource
from mdlzip.codec import CompressOptions, generic
from mdlzip.errors import CorruptArchive
from tests.archive_tools import compressible, with_trainer

PACKAGE = Path(mdlzip.__file__).parent
REGISTRY = PACKAGE / "archive" / "bodies"
# A body that is decoded without a network does all by itself; the learned one needs the codec.
ASK_WHETHER_LEARNED = {"codec/access.py", "codec/decode.py", "codec/inspection.py",
                       "codec/exchange.py", "codec/models.py", "codec/pieces.py",
                       "bench/speed.py"}  # fmt: skip


def test_numbers_and_labels_are_unique() -> None:
    assert len({body.number for body in bodies.BODIES}) == len(bodies.BODIES)
    assert len({body.label for body in bodies.BODIES}) == len(bodies.BODIES)
    assert all(0 <= body.number < 8 for body in bodies.BODIES)  # three bits of the header
    assert [bodies.body_of(body.number) for body in bodies.BODIES] == list(bodies.BODIES)
    with pytest.raises(CorruptArchive, match="method 4 is unknown"):
        bodies.body_of(4)


def asks(tree: ast.AST) -> Iterator[str]:
    """Questions that a piece of code asks of bodies: which one it is, or of what kind."""
    kinds = {type(body).__name__ for body in bodies.BODIES} | {"General", "Compressed"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            if kinds & {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}:
                yield ast.unparse(node)
        elif isinstance(node, ast.Compare):
            text = ast.unparse(node)
            sides = [node.left, *node.comparators]
            if any(ast.unparse(side).endswith((".body", ".header.method")) for side in sides):
                yield text
            elif "LEARNED" in text.split():
                yield text


def test_questions_are_found() -> None:
    tree = ast.parse(
        "a = isinstance(reader.body, General)\n"
        "b = reader.body is LEARNED\n"
        "c = reader.header.method == 3\n"
        "d = isinstance(x, int) or size == 3\n"
    )
    assert len(list(asks(tree))) == 3


def test_only_the_registry_tells_bodies_apart() -> None:
    asking = set()
    for path in PACKAGE.rglob("*.py"):
        found = [] if REGISTRY in path.parents else list(asks(ast.parse(path.read_text())))
        assert len(found) <= 1, f"{path}: {found}"
        if found:
            asking.add(path.relative_to(PACKAGE).as_posix())
    assert asking == ASK_WHETHER_LEARNED


class Deflate(Compressed):
    """A body that no release knows: raw deflate."""

    number = 5
    label = "deflate"
    levels = (9,)

    def window_bytes(self, size: int) -> int:
        return 1 << 15

    def compress(self, blocks: Iterable[bytes], size: int, sink: Sink, level: int) -> None:
        compressor = zlib.compressobj(level, wbits=-15)
        for block in blocks:
            sink(compressor.compress(block))
        sink(compressor.flush())

    def compression_memory_bytes(self, size: int, level: int) -> int:
        return 1 << 18

    def declared_window(self, payload: SectionSource, size: int) -> int:
        return 1 << 15

    def decompress(self, payload: SectionSource, size: int, memory: int | None) -> Iterator[bytes]:
        yield zlib.decompress(payload.exactly(payload.left, "deflate"), wbits=-15)


def test_a_new_body_is_a_class_and_a_line_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It competes, is chosen, written, listed, decoded and read in parts."""
    deflate = Deflate()
    monkeypatch.setattr(bodies, "BODIES", (*bodies.BODIES, deflate))
    monkeypatch.setattr(generic, "GENERAL", (bodies.BODIES[0], deflate))
    monkeypatch.setattr(generic, "COMPRESSED", (deflate,))
    with_trainer(monkeypatch)
    source, data = tmp_path / "f", compressible(100_000)
    source.write_bytes(data)
    report = mdlzip.compress(source, options=CompressOptions(device="cpu", context="chunk"))
    assert report.method == "deflate"
    archive = tmp_path / "f.mdlz"
    assert archive.read_bytes()[5] == Deflate.number
    info = mdlzip.inspect(archive)
    assert (info.method, info.ledger) == ("deflate", report.ledger)
    assert sum(info.ledger.values()) == archive.stat().st_size
    out = mdlzip.decompress(archive, tmp_path / "out")
    assert out.method == "deflate"
    assert (tmp_path / "out").read_bytes() == data
    with mdlzip.open(archive) as opened:
        assert opened.read(70_000, 100) == data[70_000:70_100]
        assert opened.read(5, 10) == data[5:15]
