"""One network in every context, and the experts without it: sizes, decoding, reads."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdlzip.bench.measure import same_file
from mdlzip.bench.speed import read_learned, timed_reads
from mdlzip.callbacks import OnProgress
from mdlzip.errors import VerifyFailed
from mdlzip.networks.none import NoNetwork
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.symbols.context import CHUNK, MODES
from mdlzip.symbols.layout import Layout

if TYPE_CHECKING:
    from mdlzip.codec import CompressOptions


@dataclass(frozen=True)
class ContextRun:
    """The file, coded in one context.

    network: whether there is one, or the experts are alone. first_read_s, later_read_s: see
    `timed_reads`.
    """

    context: str
    network: bool
    archive_bytes: int
    encode_s: float
    decode_s: float
    first_read_s: float
    later_read_s: float


def run_contexts(
    path: Path, archive: Path, options: CompressOptions, on_progress: OnProgress
) -> list[ContextRun]:
    """Code the file of a learned archive anew in each context; empty for other archives.

    The network is the archive's, which was trained for the archive's own context: one that was
    trained for another would make less of that. The experts alone get its symbols, too, though
    `compress` may give them bytes. Each new archive is decoded and compared. Raises
    VerifyFailed.
    """
    learned = read_learned(archive, options.memory)
    if learned is None:
        return []
    network, layout = learned.network, learned.layout
    jobs = list(_jobs(network))
    runs = []
    for i, (context, given) in enumerate(jobs):
        on_progress("contexts", i, len(jobs), context if given is network else f"{context}, alone")
        runs.append(_run(path, given, layout, replace(options, context=context)))
    on_progress("contexts", len(jobs), len(jobs), "")
    return runs


def _jobs(network: IntegerNetwork) -> Iterator[tuple[str, IntegerNetwork]]:
    if network.tensors:
        for context in MODES:
            yield context, network
    vocabulary = network.vocabulary
    alone = IntegerNetwork(NoNetwork(len(vocabulary.merges)), {}, {}, vocabulary)
    for context in MODES:
        if context != CHUNK:  # there experts know nothing
            yield context, alone


def _run(
    path: Path, network: IntegerNetwork, layout: Layout, options: CompressOptions
) -> ContextRun:
    from mdlzip import codec

    options = replace(
        options,
        chunk_size=layout.chunk_size,
        group_chunks=layout.group_chunks,
        verify=False,
        fallback=False,
    )
    where: dict[str, Any] = {
        "device": options.device,
        "threads": options.threads,
        "memory": options.memory,
    }
    with tempfile.TemporaryDirectory(prefix="mdlzip-bench-") as name:
        target, back = Path(name) / "coded", Path(name) / "back"
        began = time.perf_counter()
        report = codec.compress(path, target, options, network=network)
        coded = time.perf_counter()
        codec.decompress(target, back, **where)
        decoded = time.perf_counter()
        if not same_file(path, back):
            raise VerifyFailed(f"context {options.context} does not give {path} back")
        first_read_s, later_read_s = timed_reads(target, layout.total_bytes, where)
    return ContextRun(
        str(report.context),
        bool(network.tensors),
        report.archive_bytes,
        coded - began,
        decoded - coded,
        first_read_s,
        later_read_s,
    )
