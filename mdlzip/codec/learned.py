"""The learned archive of a job: symbols, experts, training, coding."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mdlzip.archive.bodies import LEARNED
from mdlzip.archive.bodies.learned import Model
from mdlzip.archive.ledger import Ledger
from mdlzip.codec.contexts import SOLID_CHUNK_BYTES, choose_context, reads_all
from mdlzip.codec.grids import find_grid
from mdlzip.codec.job import Job
from mdlzip.codec.options import AUTO, EXPERTS, method_label
from mdlzip.errors import Interrupted
from mdlzip.fileio import Output
from mdlzip.networks.none import NoNetwork
from mdlzip.networks.registry import NetworkConfig, n_cells
from mdlzip.quantised.memory import decode_memory_bytes
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.work import check_operations
from mdlzip.resources import check_memory
from mdlzip.symbols.context import CHUNK, SOLID, Context
from mdlzip.symbols.learn import sample_of
from mdlzip.symbols.survey import Survey
from mdlzip.symbols.tokens import Tokens, prepare
from mdlzip.symbols.vocabulary import Vocabulary, alphabet_of, no_merges

if TYPE_CHECKING:
    from mdlzip.training.loop import TrainResult

_EXPERT_S_PER_BYTE = 2.5e-6  # on one thread
CHUNK_SIZES = (2048, 8192, 16384)  # beside the usual one
_PAYS = 0.995  # what may be left by a larger size: reading a part takes longer then
_BYTES_SHARE = 0.15  # of the budget, to see what experts make of bytes
_EXPERT_SHARE, _EXPERT_S = 0.5, 10.0  # of the budget, at most, but so many seconds are granted


def check_fits(job: Job, config: NetworkConfig) -> None:
    """LimitExceeded if the archive would not open under the limit that was given for it."""
    check_memory(decode_memory_bytes(config, job.layout, 1), job.options.memory)
    least = n_cells(config) // 64  # bytes of weights, at the least
    check_operations(config, job.layout, least, "a smaller --preset")


def tokenise(job: Job, vocabulary: Vocabulary, folder: Path | None) -> Tokens:
    """The symbols of the input, kept in `folder`; Interrupted if the user stops."""

    def report(done: int, total: int) -> None:
        if job.should_stop():
            raise Interrupted("stopped while the input was being read")
        job.progress("tokenise", done, total, "")

    threads = job.options.threads
    return prepare(job.corpus, job.layout, vocabulary, folder, threads=threads, on_block=report)


def read_input(
    job: Job, survey: Survey, work_dir: Path, rival_bytes: int | None, stack: ExitStack
) -> int | None:
    """The symbols of the input, and what the experts alone would make of it, in bytes.

    None if they were not asked. Where the size of chunks is left to the file they are made larger
    as long as that pays; where nothing was said, only if a general method would win otherwise.
    """
    asked = job.options.chunk_size
    settle_cut(job)
    settle_grid(job)
    found = _read(job, survey, work_dir, stack)
    if found is None:
        return None
    if asked == AUTO or (asked is None and rival_bytes is not None and rival_bytes < found):
        found = _enlarge_chunks(job, survey, work_dir, stack, found)
    return _try_bytes(job, survey, work_dir, stack, found)


def settle_cut(job: Job) -> None:
    """Context and size of chunks, where they are left to the file and the budget."""
    asked = job.options.chunk_size
    _settle_context(job)
    if not isinstance(asked, int) and reads_all(_mode(job), job.layout):
        job.options = replace(job.options, chunk_size=SOLID_CHUNK_BYTES)


def _enlarge_chunks(job: Job, survey: Survey, work_dir: Path, stack: ExitStack, found: int) -> int:
    """Take larger chunks as long as that pays; the size of the archive by then."""
    for size in CHUNK_SIZES:
        if size <= job.layout.chunk_size:
            continue
        before = job.options, job.tokens, job.alone, job.alone_tokens
        job.options = replace(job.options, chunk_size=size)
        larger = _read(job, survey, work_dir, stack)
        if larger is None or larger > found * _PAYS:
            job.options, job.tokens, job.alone, job.alone_tokens = before
            break
        found = larger
    return found


def _try_bytes(job: Job, survey: Survey, work_dir: Path, stack: ExitStack, found: int) -> int:
    """What the experts alone make of bytes, if there is time to see; if less, they will get those.

    Strings are for the network, which then has fewer symbols to predict. Experts take twice the
    time for bytes, and on tables less space.
    """
    tokens, options = job.tokens, job.options
    assert tokens is not None
    seconds = tokens.expert_s * tokens.bytes_per_symbol
    limit_s = math.inf if options.steps else _BYTES_SHARE * options.seconds(job.corpus.size)
    if not len(tokens.vocabulary.merges) or seconds > limit_s:
        return found
    before = job.alone, job.alone_tokens, job.encode_s[EXPERTS]
    vocabulary = Vocabulary(alphabet_of(survey.present), no_merges())
    size = _try_experts(job, stack.enter_context(tokenise(job, vocabulary, work_dir)))
    if size is None or size > found * _PAYS:
        job.alone, job.alone_tokens, job.encode_s[EXPERTS] = before
        return found
    return size


def _mode(job: Job) -> str:
    """Of the context that the archive will have, if memory allows it."""
    return choose_context(job.options.context, job.layout, access_s=job.options.access_s).mode


def settle_grid(job: Job) -> None:
    """Look for a grid, unless nobody would make use of it."""
    with_strings = job.network is not None and len(job.network.vocabulary.merges)
    if _mode(job) != CHUNK and not with_strings:
        job.grid = find_grid(job)


def _settle_context(job: Job) -> None:
    """Where nothing was said, experts must not take too much of the budget."""
    if job.options.context == AUTO and not _in_time(job):
        job.options = replace(job.options, context=CHUNK)


def _in_time(job: Job) -> bool:
    """Whether the budget has time for the experts to read the input."""
    size, options = job.corpus.size, job.options
    limit_s = max(_EXPERT_SHARE * options.seconds(size), _EXPERT_S)
    return bool(options.steps) or _EXPERT_S_PER_BYTE * size <= limit_s


def _read(job: Job, survey: Survey, work_dir: Path, stack: ExitStack) -> int | None:
    _read_symbols(job, survey, work_dir, stack)
    assert job.tokens is not None
    return _try_experts(job, job.tokens)


def _read_symbols(job: Job, survey: Survey, work_dir: Path, stack: ExitStack) -> None:
    """The symbols of the input, by a vocabulary that follows from it."""
    from mdlzip.training.planner import choose_vocabulary

    sample, options = sample_of(job.corpus), job.options
    preset = job.resumed.settings.preset if job.resumed else None
    if job.grid.row_bytes:  # a string would hide where in its row a byte stands
        vocabulary = Vocabulary(alphabet_of(survey.present), no_merges())
    else:
        vocabulary = choose_vocabulary(survey.present, sample, job.layout, options, preset)
    job.tokens = stack.enter_context(tokenise(job, vocabulary, work_dir))


def _try_experts(job: Job, tokens: Tokens) -> int | None:
    """What the experts make of the input without a network: bytes of that archive.

    None where the context has no experts, or where they would take too much of the budget. What
    each symbol costs them is kept with the tokens: training is for what they do not know.
    """
    from mdlzip.archive.weights import pack_weights
    from mdlzip.quantised.units import expert_costs

    config, vocabulary = NoNetwork(len(tokens.vocabulary.merges)), tokens.vocabulary
    alone = IntegerNetwork(config, {}, {}, vocabulary)
    packed = pack_weights(alone)
    context = _context(job, alone, len(packed.data))
    if context.mode == CHUNK or not _in_time(job):
        return None

    marks: list[tuple[float, int]] = []

    def report(done: int, total: int) -> None:
        if job.should_stop():
            raise Interrupted("stopped while the experts read the input")
        marks.append((time.monotonic(), done))
        job.progress("experts", done, total, "")

    began = time.monotonic()
    tokens.expert_bits, lengths = expert_costs(
        tokens, context, threads=job.options.threads, on_progress=report
    )
    job.encode_s[EXPERTS] = time.monotonic() - began
    (first, done), (last, total) = marks[0], marks[-1]
    if total > done:  # without the first unit, before which kernels are loaded
        tokens.expert_s = (last - first) * total / (total - done)
    tokens.in_turn = context.mode == SOLID
    job.alone, job.alone_tokens = alone, tokens
    model = Model(config, job.layout, packed.data, packed.ledger, context)
    return LEARNED.archive_bytes(job.stored_name, model, lengths)


def train_on(job: Job, tokens: Tokens, work_dir: Path, rival_bytes: int | None) -> None:
    """Train a network for the input; raises what `training.run.train` raises."""
    from mdlzip.training.run import train

    result: TrainResult = train(
        tokens,
        sample_of(job.corpus),
        job.options,
        began=job.began,
        rival_bytes=rival_bytes,
        resumed=job.resumed,
        work_dir=work_dir,
        check_model=lambda config: check_fits(job, config),
        check_source=job.check_source,
        warn=job.warn,
        on_progress=job.progress,
        should_stop=job.should_stop,
    )
    job.network, job.figures = result.network, dict(result.figures)


def write_with(job: Job, out: Output, network: IntegerNetwork, tokens: Tokens) -> Ledger:
    """The archive that holds this network, written; its ledger."""
    from mdlzip.archive.weights import pack_weights
    from mdlzip.archive.weights_head import LINES

    began, model_id = time.monotonic(), network.model_id
    weights, lines = b"", dict.fromkeys(LINES, 0)
    if not model_id:
        packed = pack_weights(network, job.options.weights)
        weights, lines = packed.data, packed.ledger
    weight_bytes = len(weights) or job.model_bytes or 0
    context = _context(job, network, len(weights))
    job.context = context.mode
    remedy = "a smaller --preset or another --context"
    check_operations(network.config, job.layout, weight_bytes, remedy, context)
    model = Model(network.config, job.layout, weights, lines, context, model_id, job.card)
    header, units = job.header(LEARNED), _coded_units(job, network, tokens, context)
    with closing(units):
        ledger = LEARNED.write(out, header, job.stored_name, model, units, job.corpus.digest())
    job.encode_s[label_of(network)] = time.monotonic() - began
    return ledger


def _context(job: Job, network: IntegerNetwork, weight_bytes: int) -> Context:
    """What is asked for, so that it can be decoded within the memory that was given for that."""

    def fits(context: Context) -> bool:
        need = decode_memory_bytes(
            network.config,
            job.layout,
            1,
            vocabulary=network.vocabulary,
            weight_bytes=weight_bytes,
            tile_chunks=job.layout.group_chunks,
            context=context,
            text_bytes=len(network.text),
        )
        return need <= job.options.memory

    alone = not network.tensors
    asked, access_s = job.options.context, job.options.access_s
    return choose_context(
        asked, job.layout, fits, access_s, alone=alone, grid=job.grid, text_bytes=len(network.text)
    )


def _coded_units(
    job: Job, network: IntegerNetwork, tokens: Tokens, context: Context
) -> Generator[tuple[bytes, int]]:
    from mdlzip.quantised.placement import choose_device
    from mdlzip.quantised.units import encode_units

    options = job.options
    device = choose_device(
        options.device, network, job.layout, threads=options.threads, memory=options.memory
    )

    def report(done: int, total: int) -> None:
        job.progress("encode", done, total, "")

    coded = encode_units(
        network,
        tokens,
        context,
        device=device,
        threads=options.threads,
        memory=options.memory,
        on_progress=report,
    )
    with closing(coded):
        for unit in coded:
            if job.should_stop():
                raise Interrupted("stopped while the data were being coded")
            yield unit


def label_of(network: IntegerNetwork) -> str:
    """What reports call the method of an archive with this network."""
    return method_label(LEARNED, network.config)
