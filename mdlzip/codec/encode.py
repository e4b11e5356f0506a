"""From a file to the smallest archive: train, code, compare with general methods, verify."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from mdlzip.archive.blocks import block_sums
from mdlzip.archive.header import NO_METADATA, Header, Method
from mdlzip.archive.ledger import Ledger
from mdlzip.archive.reader import ArchiveReader
from mdlzip.archive.sections import storable_name
from mdlzip.archive.writer import Model, write_learned, write_payload, write_stored
from mdlzip.chunks import Layout
from mdlzip.codec.decode import decode_archive, pick_device
from mdlzip.codec.fitting import Machine
from mdlzip.codec.generic import Rivals, compete, hopeless
from mdlzip.codec.options import (
    SUFFIX,
    CompressOptions,
    CompressReport,
    Progress,
    ShouldStop,
    no_progress,
)
from mdlzip.codec.work import WorkFolder, default_folder, identity
from mdlzip.corpus import STDIN, Corpus, open_corpus
from mdlzip.errors import (
    CorruptArchive,
    ExportRefused,
    Interrupted,
    LimitExceeded,
    MdlzipError,
    NoGain,
    UsageError,
    VerifyFailed,
)
from mdlzip.fileio import Output, check_output, is_stream, open_output, plain_errors
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.work import check_operations
from mdlzip.vocabulary import N_BYTES

if TYPE_CHECKING:
    from mdlzip.training.trainer import TrainResult


@dataclass
class _Job:
    """One compression under way."""

    corpus: Corpus
    target: Path | None
    options: CompressOptions
    progress: Progress
    should_stop: ShouldStop
    digest: bytes = b""
    figures: dict[str, float] = field(default_factory=dict)
    candidates: dict[str, int] = field(default_factory=dict)
    skipped: str | None = None
    network: IntegerNetwork | None = None
    encode_s: dict[str, float] = field(default_factory=dict)
    decode_s: float | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def layout(self) -> Layout:
        options = self.options
        return Layout(self.corpus.size, options.chunk_size, options.chunks_per_group())

    @property
    def stored_name(self) -> str | None:
        """The name the archive must hold because its own does not tell it."""
        name = self.corpus.name
        if name is None or (self.target is not None and self.target.name == name + SUFFIX):
            return None
        return storable_name(name)

    def header(self, method: Method) -> Header:
        corpus = self.corpus
        mode = NO_METADATA if corpus.mode is None else corpus.mode
        return Header(method, mode, corpus.mtime_ns, corpus.size)


def compress(
    src: str | Path,
    dst: str | Path | None = None,
    options: CompressOptions | None = None,
    *,
    on_progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
    network: IntegerNetwork | None = None,
) -> CompressReport:
    """Compress a file, or stdin ("-"), into an archive; None as `dst` means src + ".mdlz".

    network: code with this network instead of training one; it must know every byte value of the
    input. Nothing appears under the final name until the archive has decoded to the input (unless
    options.verify is off). Raises UsageError, OutputExists, Interrupted (`--resume` continues),
    VerifyFailed, ExportRefused, MdlzipError.
    """
    options = options or CompressOptions()
    source = None if str(src) == STDIN else Path(src)
    target = _target(source, dst)
    if options.remove_source and (source is None or target is None or is_stream(target)):
        raise UsageError("the source is only removed if it and the output are files")
    if target is not None:
        check_output(target, source=source, force=options.force)
    with open_corpus(src) as corpus:
        job = _Job(
            corpus, target, options, on_progress or no_progress, should_stop or (lambda: False)
        )
        job.network = network if corpus.size else None
        report = _run(job, str(src))
        if options.remove_source:
            corpus.remove_source()
    return report


def _target(source: Path | None, dst: str | Path | None) -> Path | None:
    if dst is not None:
        return None if str(dst) == STDIN else Path(dst)
    return source.with_name(source.name + SUFFIX) if source else None


def _run(job: _Job, source: str) -> CompressReport:
    given = job.network is not None
    if job.network is not None:
        _check_alphabet(job.corpus, job.network, source)
    text, job.digest = identity(job.corpus)
    with ExitStack() as stack:
        rivals = Rivals({})
        if (job.options.fallback and not given) or job.corpus.size == 0:
            began = time.monotonic()
            rivals = compete(job.corpus, job.stored_name, job.progress, job.should_stop)
            stack.callback(rivals.close)
            job.skipped = hopeless(job.corpus.size, rivals)
            job.encode_s |= dict.fromkeys((m.label for m in rivals.sizes), time.monotonic() - began)
        job.candidates |= {method.label: size for method, size in rivals.sizes.items()}
        if not given and not job.skipped:
            folder = job.options.work_dir or default_folder(job.target, job.digest)
            work = stack.enter_context(WorkFolder(folder, text, resume=job.options.resume))
            try:
                _train(job, work.path, min(rivals.sizes.values(), default=None))
            except NoGain as reason:
                job.skipped = str(reason)
            except ExportRefused as problem:
                if not rivals.sizes:
                    raise
                job.skipped = f"the trained model cannot be stored ({problem})"
        return _write(job, rivals, source)


def _check_alphabet(corpus: Corpus, network: IntegerNetwork, source: str) -> None:
    """Raises UsageError if the file holds a byte value that a given network cannot predict."""
    if network.alphabet.size == N_BYTES:
        return
    outside = network.vocabulary.ranks[:N_BYTES] < 0
    for block in corpus.blocks():
        values = np.frombuffer(block, np.uint8)
        if outside[values].any():
            raise UsageError(
                f"{source}: holds byte value {values[outside[values]][0]}, which the given weights"
                f" cannot predict; they know {network.alphabet.size} values"
            )


def _train(job: _Job, work_dir: Path, rival_bytes: int | None) -> None:
    from mdlzip.training.run import train

    result: TrainResult = train(
        job.corpus.data,
        job.layout,
        job.options,
        began=job.began,
        rival_bytes=rival_bytes,
        work_dir=work_dir,
        on_progress=job.progress,
        should_stop=job.should_stop,
    )
    job.network, job.figures = result.network, dict(result.figures)


def _write(job: _Job, rivals: Rivals, source: str) -> CompressReport:
    with open_output(job.target, force=job.options.force, seekable=True) as out:
        method, ledger = Method.LEARNED, {}
        if job.network is not None:
            try:
                ledger = _write_learned(job, out, job.network)
                job.candidates[method.label] = sum(ledger.values())
            except LimitExceeded as problem:
                if not rivals.sizes:
                    raise
                job.skipped = str(problem)
        if rivals.sizes and (not ledger or rivals.sizes[rivals.best] <= sum(ledger.values())):
            method = rivals.best
            out.restart()
            ledger = _write_rival(job, out, rivals)
        job.corpus.check_unchanged()
        if job.options.verify:
            _verify(job, out)
        job.corpus.check_unchanged()
        mode = job.corpus.mode
        out.commit(mode, None if mode is None else job.corpus.mtime_ns)
    return _report(job, method, ledger, source)


def _write_learned(job: _Job, out: Output, network: IntegerNetwork) -> Ledger:
    from mdlzip.archive.weights import pack_weights

    began = time.monotonic()
    packed = pack_weights(network, job.options.weights)
    check_operations(network.config, job.layout, len(packed.data), "a smaller --preset")
    model = Model(network.config, job.layout, packed.data, packed.ledger)
    header, groups = job.header(Method.LEARNED), _coded_groups(job, network)
    with closing(groups):
        ledger = write_learned(out, header, job.stored_name, model, groups, job.digest)
    job.encode_s[Method.LEARNED.label] = time.monotonic() - began
    return ledger


def _coded_groups(job: _Job, network: IntegerNetwork) -> Generator[tuple[bytes, int]]:
    from mdlzip.quantised.groups import encode_groups

    data, layout, options = job.corpus.data, job.layout, job.options

    def report(done: int, total: int) -> None:
        job.progress("encode", done, total, "")

    coded = encode_groups(
        network,
        data,
        layout,
        device=pick_device(options.device),
        threads=options.threads,
        on_progress=report,
    )
    with closing(coded):
        for group, payload in enumerate(coded):
            if job.should_stop():
                raise Interrupted("stopped while the data were being coded")
            start, stop = layout.group_span(group)
            yield payload, crc32(data[start:stop].tobytes())


def _write_rival(job: _Job, out: Output, rivals: Rivals) -> Ledger:
    method = rivals.best
    header = job.header(method)
    if method is Method.STORED:
        return write_stored(out, header, job.corpus.blocks(), job.digest)
    sums = block_sums(job.corpus.blocks())
    stream = rivals.streams[method]
    return write_payload(out, header, job.stored_name, stream, sums, job.digest)


def _verify(job: _Job, out: Output) -> None:
    """Decode what was written and compare it with the input byte by byte."""
    began = time.monotonic()
    data, position = job.corpus.data, 0

    def compare(block: bytes) -> None:
        nonlocal position
        if job.should_stop():
            raise Interrupted("stopped while the archive was being verified")
        if data[position : position + len(block)].tobytes() != block:
            raise VerifyFailed(
                f"the archive decodes to other bytes near offset {position}; nothing was kept"
            )
        position += len(block)

    with plain_errors("cannot read the new archive back"):
        out.file.flush()
        total = out.file.seek(0, 2)
        out.file.seek(0)
    machine = Machine(job.options.device, job.options.threads, memory=None)
    try:
        reader = ArchiveReader(out.file, total)
        decode_archive(reader, compare, machine, job.progress, "verify")
    except CorruptArchive as error:
        raise VerifyFailed(f"the archive does not decode: {error}; nothing was kept") from error
    if position != job.corpus.size:
        raise VerifyFailed(f"the archive decodes to {position} bytes only; nothing was kept")
    job.decode_s = time.monotonic() - began


def _report(job: _Job, method: Method, ledger: Ledger, source: str) -> CompressReport:
    network = job.network if method is Method.LEARNED else None
    if network is None and method is Method.LEARNED:
        raise MdlzipError("internal error: no method was chosen")
    return CompressReport(
        source=source,
        path=job.target,
        method=method.label,
        original_bytes=job.corpus.size,
        archive_bytes=sum(ledger.values()),
        ledger=ledger,
        candidates=job.candidates,
        skipped_training=job.skipped,
        config=network.config if network else None,
        chunk_size=job.layout.chunk_size if network else None,
        group_chunks=job.layout.group_chunks if network else None,
        nnz=network.nnz if network else None,
        n_weights=network.n_weights if network else None,
        figures=job.figures,
        encode_s=job.encode_s.get(method.label),
        decode_s=job.decode_s,
    )
