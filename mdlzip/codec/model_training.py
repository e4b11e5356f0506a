"""From many files to a model file: one network for all that are like them."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mdlzip.archive.card import Card
from mdlzip.callbacks import OnProgress
from mdlzip.codec.encode import enter_work_folder, write_model
from mdlzip.codec.gathering import TrainingSet, gather
from mdlzip.codec.job import Job
from mdlzip.codec.learned import check_fits
from mdlzip.codec.models import MODEL_SUFFIX, survey_model
from mdlzip.codec.options import CompressOptions, ShouldStop, no_progress
from mdlzip.codec.resume import take_up
from mdlzip.codec.work import WorkFolder, work_folder
from mdlzip.corpus import STDIN, Corpus, corpus_in
from mdlzip.errors import Interrupted, UsageError
from mdlzip.fileio import check_apart, check_output, check_writable, checked_path, spool
from mdlzip.limits import MAX_MODEL_TEXT_BYTES
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.learn import sample_of
from mdlzip.symbols.survey import take_survey
from mdlzip.symbols.tokens import Tokens, prepare
from mdlzip.symbols.vocabulary import N_BYTES, Vocabulary

DEFAULT_HELD_OUT = 0.05
DEFAULT_TEXT_BYTES = 1 << 16
RECORD_CHUNK_BYTES = 4096  # a longer record is cut
_TEXT_PIECES = 16
_LOOKED_AT = 1 << 19  # bytes of what is held out
_GAP = 0.05  # of held-out loss over that of training: above, the network knows its data by heart
_TEXT = (*range(32, 127), 9, 10, 13)  # bytes of any text
_HIGH = 128  # and from here on those of other scripts


@dataclass(frozen=True)
class ModelReport:
    """What training a model came to.

    path: of the model file, of `model_bytes`; model_id: hexadecimal. trained_bytes: that training
    saw; held_out_bytes: that it did not. Losses are bits per byte of the integer network alone, on
    samples, each chunk or record by itself; None where nothing was held out. advice: on size and
    time, for people. figures: what training found.
    """

    path: Path
    model_id: str
    model_bytes: int
    text_bytes: int
    n_files: int
    n_records: int
    trained_bytes: int
    held_out_bytes: int
    trained_bits_per_byte: float
    held_out_bits_per_byte: float | None
    preset: str
    advice: str
    figures: dict[str, float]
    warnings: tuple[str, ...] = ()


def train_model(
    sources: list[str | Path],
    dst: str | Path,
    options: CompressOptions | None = None,
    *,
    lines: bool = False,
    held_out: float = DEFAULT_HELD_OUT,
    text_bytes: int = DEFAULT_TEXT_BYTES,
    name: str | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    check_target: Callable[[Path], None] | None = None,
) -> ModelReport:
    """Train a network on files, folders and patterns, and write it as a model file.

    lines: on lines, each by itself, for `Codec` and records. held_out: share that training does not
    see, 0 to 0.5. text_bytes: of the sources that go with the model, for the experts to know. name:
    as `-D` may call the model, by default that of the file. options: as for `compress`, as far as
    they tell how to train. Raises UsageError, OutputExists, Interrupted, ExportRefused,
    MdlzipError.
    """
    options, target = options or CompressOptions(), checked_path(dst, "dst")
    if not 0 <= held_out <= 0.5:
        raise UsageError(f"held_out = {held_out}: a share from 0 to 0.5")
    if not 1 <= text_bytes <= MAX_MODEL_TEXT_BYTES:
        raise UsageError(f"text_bytes = {text_bytes}: from 1 to {MAX_MODEL_TEXT_BYTES:,}")
    if options.model is not None:
        raise UsageError("a model is trained afresh; leave the option model out")
    outputs = [p for p in (target, options.metrics) if p is not None and str(p) != STDIN]
    for path in outputs:
        append = path == options.metrics and options.resume
        check_output(path, source=None, force=options.force, append=append)
    check_apart(outputs, [])
    check_writable(target, force=options.force)
    if check_target is not None:
        check_target(target)
    if lines and options.chunk_size is None:
        options = replace(options, chunk_size=RECORD_CHUNK_BYTES)
    show, stop = on_progress or no_progress, should_stop or (lambda: False)
    with ExitStack() as stack:
        made = [*outputs, work_folder(target, b"", options.work_dir, resume=False)]
        found = stack.enter_context(gather(sources, lines=lines, held_out=held_out, without=made))
        job = Job(found.seen, target, options, show, stop)
        network, preset = _trained(job, found, stack)
        loss = job.figures["integer_bits_per_byte"]
        bits = _held_out_bits(found, network, job.layout.chunk_size)
        card = Card(
            name=name if name is not None else target.name.removesuffix(MODEL_SUFFIX),
            records=lines,
            trained_bytes=found.seen.size,
            held_out_bytes=found.held_out.size,
            held_out_bits=(bits or 0.0) * found.held_out.size,
        )
        with _text_of(found, text_bytes) as text:
            writing = replace(options, chunk_size=_chunk_of_text(options, lines), resume=False)
            part = Job(text, target, writing, show, stop)
            write_model(part, network, card)
            written = text.size
    model = survey_model(target)
    return ModelReport(
        path=target,
        model_id=model.model_id.hex(),
        model_bytes=model.size,
        text_bytes=written,
        n_files=found.n_files,
        n_records=found.n_records,
        trained_bytes=found.seen.size,
        held_out_bytes=found.held_out.size,
        trained_bits_per_byte=loss,
        held_out_bits_per_byte=bits,
        preset=preset,
        advice=_advice(loss, bits, model.size, found.seen.size),
        figures=job.figures,
        warnings=tuple(job.warnings),
    )


def _chunk_of_text(options: CompressOptions, lines: bool) -> int | str | None:
    """Records are coded with the size of chunks that the model file has."""
    return options.chunk_size if lines else None


def _trained(job: Job, found: TrainingSet, stack: ExitStack) -> tuple[IntegerNetwork, str]:
    """The network and the name of its preset."""
    from mdlzip.training.planner import choose_vocabulary
    from mdlzip.training.run import train

    corpus, options = found.seen, job.options
    survey = take_survey(corpus)
    corpus.remember(survey.digest)
    present = survey.present | take_survey(found.held_out).present
    work = enter_work_folder(job, stack)
    if options.resume:
        job.options, job.resumed = take_up(options, work.files, work.path)
    sample, layout = sample_of(corpus), job.layout
    chosen = job.resumed.settings.preset if job.resumed else None
    alphabet = _all_of_a_kind(present)
    vocabulary = choose_vocabulary(alphabet, sample, layout, job.options, chosen)
    tokens = stack.enter_context(_tokens(job, corpus, layout, vocabulary, found.seen_ends, work))
    result = train(
        tokens,
        sample,
        job.options,
        began=job.began,
        resumed=job.resumed,
        work_dir=work.files,
        check_model=lambda config: check_fits(job, config),
        coded=False,
        warn=job.warn,
        on_progress=job.progress,
        should_stop=job.should_stop,
    )
    job.figures = dict(result.figures)
    return result.network, result.preset


def _tokens(
    job: Job,
    corpus: Corpus,
    layout: Layout,
    vocabulary: Vocabulary,
    ends: np.ndarray | None,
    work: WorkFolder,
) -> Tokens:
    def report(done: int, total: int) -> None:
        if job.should_stop():
            raise Interrupted("stopped while the sources were being read")
        job.progress("tokenise", done, total, "")

    threads = job.options.threads
    return prepare(
        corpus, layout, vocabulary, work.files, threads=threads, on_block=report, ends=ends
    )


def _all_of_a_kind(present: np.ndarray) -> np.ndarray:
    """Boolean (256,): the byte values that are there, and those that may come with them."""
    text, high = np.zeros(N_BYTES, bool), np.zeros(N_BYTES, bool)
    text[list(_TEXT)], high[_HIGH:] = True, True
    if (present & ~text & ~high).any():  # control characters: no text
        return np.ones(N_BYTES, bool)
    return text | high if (present & high).any() else text


def _held_out_bits(found: TrainingSet, network: IntegerNetwork, chunk_size: int) -> float | None:
    """Bits per byte of the network on a part of what training has not seen."""
    from mdlzip.training.data import Batches
    from mdlzip.training.figures import integer_nats

    corpus = found.held_out
    if not corpus.size:
        return None
    layout = Layout(corpus.size, chunk_size, 1)
    with prepare(corpus, layout, network.vocabulary, None, ends=found.held_out_ends) as tokens:
        batches = Batches(tokens, chunk_size, 0)
        share = min(1.0, _LOOKED_AT / corpus.size)
        nats = integer_nats(network, batches, max(1, round(share * tokens.n_chunks)))
    return nats / float(np.log(2))


def _text_of(found: TrainingSet, n_bytes: int) -> Corpus:
    """At most so many bytes of what training saw, from all over it."""
    corpus, ends = found.seen, found.seen_ends
    if ends is not None:
        text = _some_records(corpus, ends, n_bytes)
    elif corpus.size <= n_bytes:
        text = corpus.read(0, corpus.size).tobytes()
    else:
        size = max(n_bytes // _TEXT_PIECES, 1)
        starts = [i * (corpus.size - size) // (_TEXT_PIECES - 1) for i in range(_TEXT_PIECES)]
        text = b"".join(corpus.read(start, start + size).tobytes() for start in starts)[:n_bytes]
    return corpus_in(spool(io.BytesIO(text), "text"), "text")


def _some_records(corpus: Corpus, ends: np.ndarray, n_bytes: int) -> bytes:
    """Whole lines, as many as fit, evenly from all; a part of the first if that is too long."""
    starts = np.concatenate([[0], ends[:-1]])
    mean = float(np.mean(ends - starts))
    wanted = max(1, min(len(ends), int(n_bytes / mean)))
    out = b""
    for i in range(wanted):
        place = i * len(ends) // wanted
        line = corpus.read(int(starts[place]), int(ends[place])).tobytes()
        if len(out) + len(line) <= n_bytes:
            out += line
    return out or corpus.read(0, min(n_bytes, int(ends[0]))).tobytes()


def _advice(loss: float, held_out: float | None, model_bytes: int, trained: int) -> str:
    """What to change, if anything."""
    if held_out is None:
        return "nothing was held out, so nothing can be said of how it does on other data"
    if held_out > loss * (1 + _GAP):
        return (
            f"it needs {held_out / loss - 1:.0%} more on data that it has not seen: more data, or a"
            " smaller --preset, would do better"
        )
    if model_bytes > trained * loss / 8:
        return "the model is larger than what it makes of its data: more data would pay for it"
    return "it does as well on data that it has not seen: a larger --preset or --budget may pay"
