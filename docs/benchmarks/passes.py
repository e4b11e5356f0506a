"""Time and memory of the passes over a file before training: `python passes.py FILE [THREADS]`."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from mdlzip.codec.options import CompressOptions
from mdlzip.corpus import open_corpus
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.learn import sample_of
from mdlzip.symbols.survey import take_survey
from mdlzip.symbols.tokens import prepare
from mdlzip.training.data import Batches
from mdlzip.training.planner import choose_vocabulary

_BATCHES = 200


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(path: Path, threads: int) -> None:
    """One line a pass: seconds on the clock and of the processor, MB/s, peak memory by its end."""
    options = CompressOptions(preset="nano")
    clock = cpu = 0.0

    def report(name: str, n_bytes: int) -> None:
        nonlocal clock, cpu
        wall, used = time.perf_counter() - clock, time.process_time() - cpu
        speed = f"{n_bytes / wall / 1e6:8.1f} MB/s" if n_bytes else 13 * " "
        print(f"{name:10} {wall:8.2f} s {used:8.2f} s CPU {speed} {_peak_mib():8.0f} MiB peak")
        clock, cpu = time.perf_counter(), time.process_time()

    with open_corpus(path) as corpus:
        layout = Layout(corpus.size, 512, 128)
        clock, cpu = time.perf_counter(), time.process_time()
        report("start", 0)
        present = take_survey(corpus).present
        report("survey", corpus.size)
        sample = sample_of(corpus)
        vocabulary = choose_vocabulary(present, sample, layout, options)
        report("merges", 0)
        with prepare(corpus, layout, vocabulary, Path.cwd(), threads=threads) as tokens:
            report("tokenise", corpus.size)
            print(f"{tokens.n_symbols:,} symbols, {tokens.bytes_per_symbol:.3f} bytes each")
            batches = Batches(tokens, 8 * 512, 0, least_match=2)
            for step in range(_BATCHES):
                batches.batch(step)
            report(f"{_BATCHES} batches", 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
