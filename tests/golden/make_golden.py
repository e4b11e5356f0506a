"""Make the golden archives and their digests: `python tests/golden/make_golden.py`.

Archives of a released format version are kept for ever and never made anew; a change of the format
gets a new version and new files beside the old ones. Originals and settings come from this file and
the LICENSE. Networks of the cases "learned-..." come from seeds, and any machine makes their
archives to the byte. Those of the cases "trained-..." are trained; another machine may find other
weights, so what is committed cannot be made again, but anyone can code it again: the tests do.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODELS = HERE / "models"
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from mdlzip import codec  # noqa: E402
from mdlzip.archive.bodies import LEARNED  # noqa: E402
from mdlzip.archive.bodies.learned import Model  # noqa: E402
from mdlzip.archive.bodies.xz import Xz  # noqa: E402
from mdlzip.archive.card import Card, pack_card  # noqa: E402
from mdlzip.archive.header import Header  # noqa: E402
from mdlzip.archive.weights import pack_weights  # noqa: E402
from mdlzip.archive.weights_head import LINES  # noqa: E402
from mdlzip.codec.options import CompressOptions  # noqa: E402
from mdlzip.config import ModelConfig  # noqa: E402
from mdlzip.networks.none import NoNetwork  # noqa: E402
from mdlzip.networks.registry import activation_sites, tensor_shapes, tensor_specs  # noqa: E402
from mdlzip.quantised.network import IntegerNetwork, QuantTensor  # noqa: E402
from mdlzip.quantised.selftest import CONFIGS, random_network  # noqa: E402
from mdlzip.quantised.units import encode_units  # noqa: E402
from mdlzip.symbols.context import GROUP, REFERENCE, SOLID, Context, Grid  # noqa: E402
from mdlzip.symbols.layout import Layout  # noqa: E402
from mdlzip.symbols.learn import learn_merges  # noqa: E402
from mdlzip.symbols.tokens import prepare  # noqa: E402
from mdlzip.symbols.vocabulary import Vocabulary, alphabet_of  # noqa: E402
from tests.symbol_tools import Held  # noqa: E402

VERSION = 1
MTIME_NS = 10**18
Case = tuple[bytes, dict[str, object]]

TEXT = " ".join(f"{n} green bottles hanging on the wall," for n in range(200)).encode()
OURS = replace(CONFIGS[0], d_model=16, n_heads=1, d_ff=24, window=10)
PAPER = replace(CONFIGS[1], d_model=16, n_heads=2, d_ff=24)
SMALLEST = ModelConfig(
    d_model=8, n_layers=1, n_heads=1, d_ff=8, window=1, conv_width=0, match_min=0
)
FAMILIES = {
    "ours": replace(SMALLEST, window=3, conv_width=2, match_min=2),
    "paper": replace(CONFIGS[1], d_model=8, n_heads=2, d_ff=8, window=0, shared_norm=False),
}
PAPER_SETTINGS = (
    'model.norm="layer"', 'model.activation="gelu"', 'model.positions="sinusoidal"',
    "model.biases=true", "model.shared_norm=true", "model.window=0", "model.conv_width=0",
    "model.match_min=0", "model.n_heads=2", "train.vocabulary=0",
)  # fmt: skip


def licence() -> bytes:
    """The text that the trained cases are trained on."""
    return (ROOT / "LICENSE").read_bytes()


def access_log(n_bytes: int) -> bytes:
    """Lines like those of a web server's log, from a linear congruential generator."""
    pages = ("index.html", "about.html", "docs/format.md", "img/logo.png", "search?q=entropy")
    lines, size, state = [], 0, 1
    while size < n_bytes:
        draws = []
        for _ in range(4):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            draws.append(state >> 33)
        host, second, page, length = draws
        line = f"10.0.{host % 7}.{host % 29} [{len(lines) // 9:05}:{second % 60:02}] "
        line += (
            f'"GET /{pages[page % 97 % 5]} HTTP/1.1" {(200, 304)[page % 11 == 0]} {length % 9000}\n'
        )
        lines.append(line)
        size += len(line)
    return "".join(lines).encode()[:n_bytes]


def letters_of(data: bytes) -> Vocabulary:
    """The byte values of `data`, no merges."""
    return Vocabulary(alphabet_of(np.bincount(np.frombuffer(data, np.uint8), minlength=256) > 0))


def blank_network(data: bytes) -> IntegerNetwork:
    """A network of zeros, of the smallest shape there is."""
    tensors = {
        name: QuantTensor(np.zeros(shape, np.int8), 1, 0)
        for name, shape in tensor_shapes(SMALLEST).items()
    }
    sites = dict.fromkeys(activation_sites(SMALLEST), 0)
    return IntegerNetwork(SMALLEST, tensors, sites, letters_of(data))


def family_network(config: ModelConfig, data: bytes) -> IntegerNetwork:
    """A small, lively random network whose rows for byte values outside `data` are zero."""
    vocabulary = letters_of(data)
    network = random_network(config)
    tensors = dict(network.tensors)
    for name, spec in tensor_specs(config).items():
        tensor = tensors[name]
        codes, exponent = tensor.codes.copy(), tensor.exponent
        if spec.by_symbol:
            unused = np.ones(len(codes), bool)
            unused[[row for row in [*vocabulary.symbols, 256] if row < len(codes)]] = False
            codes[unused] = 0
        elif spec.is_matrix:
            exponent -= 3
        tensors[name] = replace(tensor, codes=codes, exponent=exponent)
    exponents = {s: 7 if s.endswith("mlp_act") else e for s, e in network.exponents.items()}
    return replace(network, tensors=tensors, exponents=exponents, vocabulary=vocabulary)


def merging(data: bytes) -> Vocabulary:
    """The byte values of `data` and some strings of it."""
    merges = learn_merges(np.frombuffer(data, np.uint8), 20, 2, 1.0, 16)
    return Vocabulary(letters_of(data).alphabet, merges)


def merging_network(config: ModelConfig, data: bytes) -> IntegerNetwork:
    """A random network for `data` with strings as symbols."""
    vocabulary = merging(data)
    network = random_network(replace(config, n_merges=len(vocabulary.merges)))
    return replace(network, vocabulary=vocabulary)


def samples(rows: int) -> bytes:
    """Rows of 23 numbers of two bytes each, each near those to its left and above."""
    place = np.add.outer(3 * np.arange(rows), 5 * np.arange(23))
    return (1000 + place + place % 7 * 40).astype("<u2").tobytes()


def no_network(data: bytes) -> IntegerNetwork:
    """What stands in an archive of `data` where the experts are alone."""
    return without_network(merging(data))


def without_network(vocabulary: Vocabulary) -> IntegerNetwork:
    """The experts alone."""
    return IntegerNetwork(NoNetwork(len(vocabulary.merges)), {}, {}, vocabulary)


def context_cases() -> dict[str, Case]:
    """Name -> (original bytes, arguments of `coded_archive`): chunks that know of others.

    Tables are so small that contexts must share their places.
    """
    tiny, log = FAMILIES["ours"], access_log(1600)
    return {
        "learned-group": (
            TEXT[:700],
            {
                "network": family_network(tiny, TEXT[:700]),
                "layout": Layout(700, 64, 4),
                "context": Context(GROUP, (8, 8, 8), lane_chunks=3),
            },
        ),
        "learned-reference": (
            log,
            {
                "network": merging_network(tiny, log),
                "layout": Layout(len(log), 128, 2),
                "context": Context(REFERENCE, (9, 10, 8), references=(1, 4), lane_chunks=2),
            },
        ),
        "learned-solid": (
            log,
            {
                "network": merging_network(tiny, log),
                "layout": Layout(len(log), 200, 1),
                "context": Context(SOLID, (8, 11, 9), waves=(1, 1, 2, 4)),
            },
        ),
        "learned-grid": (
            samples(30),
            {
                "network": without_network(letters_of(samples(30))),
                "layout": Layout(30 * 46, 256, 2),
                "context": Context(
                    SOLID, (9, 10, 8), waves=(1, 2), lane_chunks=2, grid=Grid(46, 2)
                ),
            },
        ),
        "learned-alone": (
            log,
            {
                "network": no_network(log),
                "layout": Layout(len(log), 160, 2),
                "context": Context(SOLID, (10, 12, 10), waves=(2, 3), lane_chunks=65536),
            },
        ),
    }


def seeded_cases() -> dict[str, Case]:
    """As `context_cases`, or with arguments of `codec.compress`; nothing is trained."""
    small = CompressOptions(chunk_size=64, group_chunks=4, fallback=False, context="chunk")
    tiny = CompressOptions(chunk_size=16, group_chunks=2, fallback=False, context="chunk")
    letters = letters_of(TEXT)
    ours = replace(random_network(OURS), vocabulary=letters)
    merged = merging_network(OURS, TEXT)
    coo = replace(small, weights="coo")
    return {
        "empty": (b"", {}),
        "stored": (bytes(np.arange(256, dtype=np.uint8)), {}),
        "general": (TEXT, {}),
        "xz": (TEXT, {}),
        "learned-smallest": (b"abba", {"network": blank_network(b"ab"), "options": tiny}),
        "learned-tiny-ours": (
            b"abracadabra, abracadabra",
            {"network": family_network(FAMILIES["ours"], b"abcdr, "), "options": tiny},
        ),
        "learned-tiny-paper": (
            b"abracadabra, abracadabra",
            {"network": family_network(FAMILIES["paper"], b"abcdr, "), "options": tiny},
        ),
        "learned-mdl": (TEXT[:1000], {"network": ours, "options": small}),
        "learned-paper": (TEXT[:777], {"network": random_network(PAPER), "options": small}),
        "learned-merges": (TEXT[:2000], {"network": merged, "options": small}),
        "learned-coo": (TEXT[:130], {"network": ours, "options": coo}),
        **context_cases(),
    }


def trained_cases() -> dict[str, Case]:
    """As `seeded_cases`, with training: some minutes on two cores."""

    def trained(
        steps: int,
        chunk_size: int,
        *overrides: str,
        context: str = "chunk",
        group_chunks: int | None = None,
    ) -> dict[str, object]:
        shape = ("model.d_model=32", "model.d_ff=64", "train.batch_chunks=4")
        options = CompressOptions(
            preset="nano", overrides=shape + overrides, steps=steps, chunk_size=chunk_size,
            fallback=False, device="cpu", threads=1, context=context, group_chunks=group_chunks,
        )  # fmt: skip
        return {"options": options}

    return {
        "trained-ours": (
            licence()[:8000],
            trained(600, 512, "model.n_layers=2", "model.window=16", "train.vocabulary=0"),
        ),
        "trained-paper": (licence()[:8000], trained(600, 512, *PAPER_SETTINGS)),
        "trained-merges": (licence(), trained(900, 512, "train.merge_count=4.0")),
        "trained-16k": (access_log(50_000), trained(600, 16384, "train.merge_count=40.0")),
        "trained-solid": (
            access_log(20_000),
            trained(300, 512, "train.merge_count=8.0", context=SOLID, group_chunks=1),
        ),
    }


def xz_archive(data: bytes) -> bytes:
    """An xz archive of `data`, whether or not zstd would be smaller."""
    body, stream, out = Xz(), io.BytesIO(), io.BytesIO()
    body.compress([data], len(data), stream.write, body.levels[0])
    header = Header(body.number, 0o640, MTIME_NS, len(data))
    body.write(out, header, "original", [data], stream, sha256(data).digest())
    return out.getvalue()


def compress(data: bytes, arguments: dict[str, object], folder: Path) -> bytes:
    """The archive that `codec.compress` makes of `data`, with fixed metadata."""
    source, target = folder / "original", folder / "original.mdlz"
    source.write_bytes(data)
    source.chmod(0o640)
    os.utime(source, ns=(MTIME_NS, MTIME_NS))
    codec.compress(source, target, **arguments)  # type: ignore[arg-type]
    archive = target.read_bytes()
    target.unlink()
    return archive


def coded_archive(
    data: bytes,
    network: IntegerNetwork,
    layout: Layout,
    context: Context,
    *,
    weights: str = "coded",
    card: bytes = b"",
) -> bytes:
    """The archive of `data` with a network and context that are given, and fixed metadata."""
    out, lines, payload = io.BytesIO(), dict.fromkeys(LINES, 0), b""
    if not network.model_id:
        packed = pack_weights(network, weights)
        payload, lines = packed.data, packed.ledger
    header = Header(LEARNED.number, 0o640, MTIME_NS, len(data))
    model = Model(network.config, layout, payload, lines, context, network.model_id, card)
    source = Held(np.frombuffer(data, np.uint8))
    with prepare(source, layout, network.vocabulary, None, threads=1) as tokens:
        units = encode_units(network, tokens, context, threads=1)
        LEARNED.write(out, header, None, model, units, sha256(data).digest())
    return out.getvalue()


def model_file() -> tuple[bytes, IntegerNetwork]:
    """(A model file, its network with text and id): strings as symbols, some lines of a log."""
    text = access_log(1400)[800:]
    network = merging_network(FAMILIES["ours"], access_log(2400))
    card = pack_card(Card("log", records=True, trained_bytes=2400))
    context = Context(GROUP, (8, 9, 8))
    model = coded_archive(text, network, Layout(len(text), 512, 8), context, card=card)
    return model, replace(network, text=text, model_id=sha256(model).digest())


def named_cases() -> dict[str, tuple[bytes, bytes]]:
    """Name -> (original, archive) of archives that name the model file; small tables, as above."""
    _, network = model_file()
    data = access_log(900)
    layout, bits = Layout(len(data), 200, 2), (8, 10, 8)
    contexts = {
        "chunk": Context(),
        "group": Context(GROUP, bits, lane_chunks=2),
        "reference": Context(REFERENCE, bits, references=(1,), lane_chunks=2),
        "solid": Context(SOLID, bits, waves=(1, 2), lane_chunks=65536),
    }
    return {
        f"v{VERSION}-named-{name}.mdlz": (data, coded_archive(data, network, layout, context))
        for name, context in contexts.items()
    }


def make_models() -> None:
    """Write the model file and the archives that name it."""
    MODELS.mkdir(exist_ok=True)
    (MODELS / f"v{VERSION}-log.mdlm").write_bytes(model_file()[0])
    cases = named_cases()
    for name, (_, archive) in cases.items():
        (MODELS / name).write_bytes(archive)
    lines = [f"{sha256(data).hexdigest()}  {name}\n" for name, (data, _) in cases.items()]
    (MODELS / "SHA256").write_text("".join(lines), encoding="utf-8")


def make(name: str, folder: Path) -> bytes:
    """The archive of case `name`."""
    data, arguments = {**seeded_cases(), **trained_cases()}[name]
    if name == "xz":
        return xz_archive(data)
    if name in context_cases():
        return coded_archive(data, **arguments)  # type: ignore[arg-type]
    return compress(data, arguments, folder)


def main() -> None:
    """Write what does not exist yet, or what is named by the arguments."""
    lines = []
    cases = {**seeded_cases(), **trained_cases()}
    with tempfile.TemporaryDirectory() as folder:
        for name, (data, _) in cases.items():
            path = HERE / f"v{VERSION}-{name}.mdlz"
            if not path.exists() or name in sys.argv[1:]:
                path.write_bytes(make(name, Path(folder)))
            lines.append(f"{sha256(data).hexdigest()}  {path.name}\n")
    if not MODELS.exists() or "models" in sys.argv[1:]:
        make_models()
    (HERE / "SHA256").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
