"""From a file to the smallest archive: train, code, compare with general methods, verify."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from mdlzip.archive.bodies.general import General
from mdlzip.archive.card import Card, pack_card
from mdlzip.archive.ledger import Ledger
from mdlzip.archive.reader import ArchiveReader
from mdlzip.callbacks import OnProgress
from mdlzip.codec.cross_check import check_on_cpu, may_be_on_a_gpu
from mdlzip.codec.decode import decode_archive
from mdlzip.codec.fitting import Machine
from mdlzip.codec.job import Job
from mdlzip.codec.learned import (
    check_fits,
    label_of,
    read_input,
    settle_cut,
    settle_grid,
    tokenise,
    train_on,
    write_with,
)
from mdlzip.codec.models import chosen_model, read_model, survey_model
from mdlzip.codec.options import (
    EXPERTS,
    SUFFIX,
    CompressOptions,
    CompressReport,
    ShouldStop,
    no_progress,
)
from mdlzip.codec.race import Rivals
from mdlzip.codec.resume import take_up
from mdlzip.codec.rivalry import compete_for, least_within_reach, use_rest_of_budget
from mdlzip.codec.work import WorkFolder, identity, work_folder
from mdlzip.corpus import STDIN, is_standard_stream, open_corpus
from mdlzip.errors import (
    CorruptArchive,
    ExportRefused,
    Interrupted,
    LimitExceeded,
    MdlzipError,
    NoGain,
    SourceChanged,
    UsageError,
    VerifyFailed,
)
from mdlzip.fileio import (
    Output,
    check_apart,
    check_output,
    check_removable,
    check_space,
    check_writable,
    checked_path,
    is_stream,
    open_output,
    plain_errors,
)
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.symbols.survey import Survey, take_survey
from mdlzip.symbols.vocabulary import N_BYTES


def compress(
    src: str | Path,
    dst: str | Path | None = None,
    options: CompressOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    network: IntegerNetwork | None = None,
    check_target: Callable[[Path], None] | None = None,
) -> CompressReport:
    """Compress a file, or stdin ("-"), into an archive; None as `dst` means src + ".mdlz".

    network: code with this network instead of training one; it must know every byte value of the
    input. check_target: called with the output's path before anything is read; what it raises
    passes. Nothing appears under the final name until the archive has decoded to the input (unless
    options.verify is off). Raises UsageError, OutputExists, Interrupted (`--resume` continues),
    VerifyFailed, ExportRefused, MdlzipError.
    """
    options = options or CompressOptions()
    checked_path(src, "src")
    if dst is not None:
        checked_path(dst, "dst")
    options = replace(options, model=chosen_model(options.model))
    source = None if is_standard_stream(src) else Path(src)
    target = _target(source, dst)
    _check_files(source, target, options)
    if target is not None and check_target is not None:
        check_target(target)
    model = None if options.model is None else survey_model(options.model)
    with open_corpus(src) as corpus:
        job = Job(
            corpus, target, options, on_progress or no_progress, should_stop or (lambda: False)
        )
        if model is not None:
            machine = Machine("cpu", options.threads, options.memory)
            network, job.model_bytes = read_model(model, machine), model.size
        job.network = network if corpus.size else None
        try:
            report = _run(job, str(src))
        except (Interrupted, SourceChanged):
            raise
        except Exception:
            job.check_source()  # whatever failed, failed because of that
            raise
        if options.remove_source:
            corpus.remove_source()
    return report


def _target(source: Path | None, dst: str | Path | None) -> Path | None:
    if dst is not None:
        return None if str(dst) == STDIN else Path(dst)
    return source.with_name(source.name + SUFFIX) if source and source.name else None


def _check_files(source: Path | None, target: Path | None, options: CompressOptions) -> None:
    """Everything that can be wrong with the paths of a call, before the first byte is read."""
    metrics = options.metrics
    if options.remove_source:
        if source is None or target is None or is_stream(target):
            raise UsageError("the source is only removed if it and the output are files")
        if os.path.exists(source):
            check_removable(source)
    if str(metrics) == STDIN and target is None:
        raise UsageError("archive and metrics cannot both go to standard output")
    if target is not None:
        check_output(target, source=source, force=options.force)
    if metrics is not None and str(metrics) != STDIN:
        append = options.append_metrics or options.resume
        check_output(metrics, source=source, force=options.force, append=append)
    read = (source, options.config_file, options.model)
    inputs = [path for path in read if path is not None]
    check_apart([path for path in (target, metrics) if path is not None], inputs)
    if target is not None and not is_stream(target):
        check_writable(target, force=options.force)


def _run(job: Job, source: str) -> CompressReport:
    options, given = job.options, job.network is not None
    only = given and not options.model
    survey = take_survey(job.corpus)
    job.corpus.remember(survey.digest)
    if job.network is not None:
        _check_alphabet(job, survey, source)
    with ExitStack() as stack:
        work = None
        if job.network is not None:
            if not only:
                settle_cut(job)
            check_fits(job, job.network.config)
            job.tokens = stack.enter_context(tokenise(job, job.network.vocabulary, None))
            settle_grid(job)
        if options.resume and not given:
            work = enter_work_folder(job, stack)
            job.options, job.resumed = take_up(options, work.files, work.path)
        rivals = compete_for(job, stack) if not only or job.corpus.size == 0 else Rivals({})
        if job.network is not None:
            job.skipped = None  # nothing is to be trained
        job.candidates |= {body.label: size for body, size in rivals.sizes.items()}
        rival_bytes = min(rivals.sizes.values(), default=None)
        job.check_source()
        if job.target is not None and rival_bytes and not is_stream(job.target):
            check_space(job.target, rival_bytes // 2, "the archive")
        if not given and not job.skipped:
            work = work or enter_work_folder(job, stack)
            _learn(job, survey, work.files, least_within_reach(job, rivals), stack)
        if not only:
            use_rest_of_budget(job, rivals)
        return _write(job, rivals, source)


def _learn(
    job: Job, survey: Survey, work_dir: Path, rival_bytes: int | None, stack: ExitStack
) -> None:
    """Let the experts read the input, then train a network unless that cannot pay."""
    alone = read_input(job, survey, work_dir, rival_bytes, stack)
    assert job.tokens is not None
    if alone is not None:
        job.candidates[EXPERTS] = alone
        rival_bytes = alone if rival_bytes is None else min(alone, rival_bytes)
    try:
        train_on(job, job.tokens, work_dir, rival_bytes if job.options.fallback else None)
    except NoGain as reason:
        job.skipped = str(reason)
    except ExportRefused as problem:
        if rival_bytes is None:
            raise
        job.skipped = f"the trained model cannot be stored ({problem})"


def enter_work_folder(job: Job, stack: ExitStack) -> WorkFolder:
    """The locked folder for checkpoints; what was made for it goes away with it, if it is empty."""
    options, parent = job.options, job.options.work_dir
    target = None if job.target is None or is_stream(job.target) else job.target
    if parent is not None and not parent.exists():
        with plain_errors(f"{parent}: cannot make the work folder"):
            parent.mkdir(0o700)
        stack.callback(_remove_empty, parent)
    path = work_folder(target, job.corpus.digest(), parent, resume=options.resume)
    text = identity(job.corpus.size, job.corpus.digest())
    folder = WorkFolder(path, text, resume=options.resume, fresh=options.force)
    return stack.enter_context(folder)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _check_alphabet(job: Job, survey: Survey, source: str) -> None:
    """Look for a byte value that the network at hand cannot predict.

    A model is not used then, if a general method may be; raises UsageError otherwise.
    """
    network = job.network
    assert network is not None
    outside = np.flatnonzero(survey.present & (network.vocabulary.ranks[:N_BYTES] < 0))
    if not outside.size:
        return
    which = "model" if network.model_id else "given weights"
    text = (
        f"{source}: holds byte value {outside[0]}, which the {which} cannot predict;"
        f" {network.alphabet.size} values are known"
    )
    if not (network.model_id and job.options.fallback):
        raise UsageError(text)
    job.warn(text)
    job.network = None


def _write(job: Job, rivals: Rivals, source: str) -> CompressReport:
    with open_output(job.target, force=job.options.force, seekable=True) as out:
        rival: General | None = None
        ledger: Ledger = {}
        for network, tokens in ((job.network, job.tokens), (job.alone, job.alone_tokens)):
            if network is None or tokens is None:
                continue
            total = sum(ledger.values())
            if ledger and (not job.options.fallback or job.candidates.get(EXPERTS, 0) >= total):
                continue
            out.restart()
            try:
                ledger = write_with(job, out, network, tokens)
                job.candidates[label_of(network)] = sum(ledger.values())
                job.network = network
            except LimitExceeded as problem:
                if not rivals.sizes:
                    raise
                ledger, job.skipped = {}, str(problem)
        if rivals.sizes and (not ledger or rivals.sizes[rivals.best] <= sum(ledger.values())):
            rival = rivals.chosen(job.stored_name)
            out.restart()
            ledger = rival.write(
                out,
                job.header(rival),
                job.stored_name,
                job.corpus.blocks(),
                rivals.streams.get(rival),
                job.corpus.digest(),
            )
        job.check_source()
        if job.options.verify:
            _verify(job, out, job.network if rival is None else None)
        job.check_source()
        out.commit(job.corpus.metadata)
    return _report(job, rival, ledger, source)


def write_model(job: Job, network: IntegerNetwork, card: Card) -> CompressReport:
    """The model file of a network; the input of `job` becomes the text that it is to know."""
    job.network, job.card = network, pack_card(card)
    with ExitStack() as stack:
        settle_cut(job)
        check_fits(job, network.config)
        job.tokens = stack.enter_context(tokenise(job, network.vocabulary, None))
        settle_grid(job)
        return _write(job, Rivals({}), "text")


def _verify(job: Job, out: Output, network: IntegerNetwork | None) -> None:
    """Decode what was written and compare it with the input byte by byte."""
    began = time.monotonic()
    position = 0

    def compare(block: bytes) -> None:
        nonlocal position
        if job.should_stop():
            raise Interrupted("stopped while the archive was being verified")
        stop = position + len(block)
        if stop > job.corpus.size or job.corpus.read(position, stop).tobytes() != block:
            raise VerifyFailed(
                f"the archive decodes to other bytes near offset {position}; nothing was kept"
            )
        position = stop

    with plain_errors("cannot read the new archive back"):
        out.file.flush()
        total = out.file.seek(0, 2)
        out.file.seek(0)
    options = job.options
    machine = Machine(options.device, options.threads, options.memory, model=options.model)
    try:
        reader = ArchiveReader(out.file, total)
        decode_archive(reader, compare, machine, job.progress, "verify")
    except CorruptArchive as error:
        raise VerifyFailed(f"the archive does not decode: {error}; nothing was kept") from error
    if position != job.corpus.size:
        raise VerifyFailed(f"the archive decodes to {position} bytes only; nothing was kept")
    if network is not None and network.tensors and may_be_on_a_gpu(job.options.device):
        check_on_cpu(job.corpus, out.file, total, machine, reader)
    job.decode_s = time.monotonic() - began


def _report(job: Job, rival: General | None, ledger: Ledger, source: str) -> CompressReport:
    network = None if rival else job.network
    if network is not None:
        label = label_of(network)
    elif rival is not None:
        label = rival.label
    else:
        raise MdlzipError("internal error: no body was chosen")
    return CompressReport(
        source=source,
        path=job.target,
        method=label,
        original_bytes=job.corpus.size,
        archive_bytes=sum(ledger.values()),
        ledger=ledger,
        candidates=job.candidates,
        skipped_training=job.skipped,
        config=network.config if network else None,
        chunk_size=job.layout.chunk_size if network else None,
        group_chunks=job.layout.group_chunks if network else None,
        context=job.context if network else None,
        nnz=network.nnz if network else None,
        n_weights=network.n_weights if network else None,
        model_id=(network.model_id.hex() or None) if network else None,
        model_bytes=job.model_bytes if network and network.model_id else None,
        figures=job.figures,
        encode_s=job.encode_s.get(label),
        decode_s=job.decode_s,
        warnings=tuple(job.warnings),
    )
