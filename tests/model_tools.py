"""Model files for tests: networks from seeds, nothing is trained."""

from __future__ import annotations

import io
from pathlib import Path

from mdlzip.archive.card import Card
from mdlzip.codec.encode import write_model
from mdlzip.codec.job import Job
from mdlzip.codec.options import CompressOptions, no_progress
from mdlzip.corpus import corpus_in
from mdlzip.fileio import spool
from mdlzip.quantised.network import IntegerNetwork
from tests.archive_tools import random_network

TEXT = b" ".join(b"%d green bottles hanging on the wall," % n for n in range(20))


def make_model(
    path: Path,
    network: IntegerNetwork | None = None,
    text: bytes = TEXT,
    *,
    card: Card | None = None,
    **options: object,
) -> Path:
    """Write a model file; options: of `CompressOptions`."""
    chosen = CompressOptions(fallback=False, force=True, threads=1, device="cpu", **options)  # type: ignore[arg-type]
    with corpus_in(spool(io.BytesIO(text), "text"), "text") as corpus:
        job = Job(corpus, path, chosen, no_progress, lambda: False)
        write_model(job, network or random_network(), card or Card(name=path.stem))
    return path
