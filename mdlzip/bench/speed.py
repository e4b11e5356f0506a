"""How fast an archive is coded, decoded and read, and a step of training, in one run."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mdlzip.archive.bodies import LEARNED
from mdlzip.archive.reader import ArchiveReader
from mdlzip.bench.measure import same_file
from mdlzip.callbacks import OnProgress
from mdlzip.codec.decode import open_source
from mdlzip.codec.fitting import load_weights
from mdlzip.config import ModelConfig
from mdlzip.errors import VerifyFailed
from mdlzip.process.cores import thread_count
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.symbols.layout import Layout

if TYPE_CHECKING:
    from mdlzip.codec import CompressOptions

BASELINES = ("zstd-19", "xz-9", "ppmd")
PROGRAMS = ("zpaq",)  # where they are installed
_ROUNDS = 3
_READ_BYTES = 512
_LATER_READS = 5
_STEPS_S = 10.0


@dataclass(frozen=True)
class SpeedRun:
    """The least of several rounds, in each of which everything has its turn; seconds.

    threads: that coding and training may use. encode_s: without training, None for a general
    method. first_read_s, later_read_s: see `timed_reads`. step_s: a training step of a network of
    this shape, for step_symbols symbols; None without a network. symbols: of the file;
    multiply_adds: of the network's products for each of them, which nothing is spared. macs_per_s:
    those of decoding.
    """

    context: str
    threads: int
    encode_s: float | None
    decode_s: float
    first_read_s: float
    later_read_s: float
    step_s: float | None = None
    step_symbols: float | None = None
    symbols: int | None = None
    multiply_adds: int | None = None
    macs_per_s: float | None = None


def timed_reads(archive: Path, total_bytes: int, where: dict[str, Any]) -> tuple[float, float]:
    """Seconds of a first read and of a later one, the mean of several; 512 bytes each.

    The first one is that of the file's end, opening included: in `solid` all is decoded for it. The
    later ones are spread over the file.
    """
    from mdlzip import codec

    began = time.perf_counter()
    with codec.open(archive, **where) as opened:
        opened.read(max(total_bytes - _READ_BYTES, 0), _READ_BYTES)
        first = time.perf_counter()
        for i in range(_LATER_READS):
            opened.read(total_bytes * i // _LATER_READS, _READ_BYTES)
        last = time.perf_counter()
    return first - began, (last - first) / _LATER_READS


class Learned(NamedTuple):
    """What an archive holds beside its units."""

    network: IntegerNetwork
    layout: Layout
    context: str


def read_learned(archive: Path, memory: int) -> Learned | None:
    """None for a general method."""
    with open_source(archive) as (file, total):
        reader = ArchiveReader(file, total)
        if reader.body is not LEARNED:
            return None
        return Learned(load_weights(reader, memory), reader.layout, reader.context.mode)


def run_speed(
    path: Path, archive: Path, options: CompressOptions, on_progress: OnProgress
) -> SpeedRun:
    """Measure an archive of `path`. Raises VerifyFailed if it is of something else."""
    learned, rounds = read_learned(archive, options.memory), []
    if learned:
        options = replace(
            options,
            context=learned.context,
            chunk_size=learned.layout.chunk_size,
            group_chunks=learned.layout.group_chunks,
            verify=False,
            fallback=False,
        )
    for i in range(_ROUNDS):
        on_progress("speed", i, _ROUNDS, "")
        rounds.append(_round(path, archive, learned, options))
    on_progress("speed", _ROUNDS, _ROUNDS, "")
    encoding, decode_s, first_s, later_s = (min(times) for times in zip(*rounds, strict=True))
    found = SpeedRun(
        learned.context if learned else "",
        thread_count(options.threads),
        encoding if learned else None,
        decode_s,
        first_s,
        later_s,
    )
    if learned is None or not isinstance(learned.network.config, ModelConfig):
        return found
    return replace(found, **_steps(path, learned.network, learned.layout, options, decode_s))


def _round(
    path: Path, archive: Path, learned: Learned | None, options: CompressOptions
) -> tuple[float, float, float, float]:
    """Seconds to encode, to decode, of a first and of a later read."""
    from mdlzip import codec

    where: dict[str, Any] = {
        "device": options.device,
        "threads": options.threads,
        "memory": options.memory,
    }
    encode_s = 0.0
    with tempfile.TemporaryDirectory(prefix="mdlzip-bench-") as name:
        if learned is not None:
            coded = Path(name) / "coded"
            report = codec.compress(path, coded, options, network=learned.network)
            encode_s = report.encode_s or 0.0
        back = Path(name) / "back"
        began = time.perf_counter()
        codec.decompress(archive, back, **where)
        decode_s = time.perf_counter() - began
        if not same_file(path, back):
            raise VerifyFailed(f"{archive} does not decode to {path}")
        total_bytes = back.stat().st_size
    return encode_s, decode_s, *timed_reads(archive, total_bytes, where)


def _steps(
    path: Path, network: IntegerNetwork, layout: Layout, options: CompressOptions, decode_s: float
) -> dict[str, Any]:
    from mdlzip.config import load_preset
    from mdlzip.corpus import open_corpus
    from mdlzip.process.devices import pick_device
    from mdlzip.symbols.tokens import prepare
    from mdlzip.training.cpu import settled_cpu
    from mdlzip.training.session import Session
    from mdlzip.training.timing import time_step

    preset = replace(load_preset("nano", None, ()), model=network.shape)
    with open_corpus(path) as corpus, settled_cpu(options.threads):
        tokens = prepare(corpus, layout, network.vocabulary, None, threads=options.threads)
        with tokens:
            session = Session(tokens, preset, device=pick_device(options.device), seed=0)
            step_s = time_step(session, _STEPS_S).usual_s
            passes = session.batches.passes_per_step
            symbols = tokens.n_symbols
    specs = network.shape
    multiply_adds = products_per_symbol(specs, network.vocabulary.n_symbols)
    return {
        "step_s": step_s,
        "step_symbols": passes * symbols,
        "symbols": symbols,
        "multiply_adds": multiply_adds,
        "macs_per_s": multiply_adds * symbols / decode_s,
    }


def products_per_symbol(config: ModelConfig, n_symbols: int) -> int:
    """Multiply-adds of the matrix products for one symbol, of which V can be predicted.

    Attention is left out: it looks at `window` positions, few beside the widths.
    """
    d, hidden = config.d_model, config.d_ff
    return config.n_layers * (4 * d * d + 2 * d * hidden) + (n_symbols + 1) * d
