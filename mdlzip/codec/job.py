"""One compression under way: what was asked for, and what has come of it so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mdlzip.archive.bodies.base import Body
from mdlzip.archive.header import NO_METADATA, Header, nearest_time
from mdlzip.archive.sections import storable_name
from mdlzip.callbacks import OnProgress
from mdlzip.codec.options import SUFFIX, WARNING, CompressOptions, ShouldStop
from mdlzip.corpus import Corpus
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.symbols.context import NO_GRID, Grid
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.tokens import Tokens

if TYPE_CHECKING:
    from mdlzip.training.checkpoint import Checkpoint


@dataclass
class Job:
    """One compression.

    network: what was given, or trained; alone: the vocabulary without a network, if experts may be
    alone, and alone_tokens its symbols; grid: the one that experts are told of; context: the mode
    of the learned archive that was written last; model_bytes: of the file that the network is from,
    if it is not the archive that will hold it; card: what the archive says of itself as a model.
    """

    corpus: Corpus
    target: Path | None
    options: CompressOptions
    progress: OnProgress
    should_stop: ShouldStop
    figures: dict[str, float] = field(default_factory=dict)
    candidates: dict[str, int] = field(default_factory=dict)
    skipped: str | None = None
    network: IntegerNetwork | None = None
    resumed: Checkpoint | None = None
    tokens: Tokens | None = None
    alone: IntegerNetwork | None = None
    alone_tokens: Tokens | None = None
    grid: Grid = NO_GRID
    context: str | None = None
    model_bytes: int | None = None
    encode_s: dict[str, float] = field(default_factory=dict)
    decode_s: float | None = None
    card: bytes = b""
    warnings: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def layout(self) -> Layout:
        """The cut of the input."""
        options = self.options
        return Layout(self.corpus.size, options.chunk_bytes(), options.chunks_per_group())

    @property
    def stored_name(self) -> str | None:
        """The name the archive must hold because its own does not tell it."""
        name = self.corpus.name
        if name is None or (self.target is not None and self.target.name == name + SUFFIX):
            return None
        return storable_name(name)

    def warn(self, text: str) -> None:
        """Tell the user, once, of what went wrong beside the archive."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.progress(WARNING, 0, 0, text)

    def check_source(self) -> None:
        """Raise SourceChanged if the input is not what it was; a grown one is a warning."""
        warning = self.corpus.check_unchanged()
        if warning:
            self.warn(warning)

    def header(self, body: Body) -> Header:
        """The fixed header of an archive with that body."""
        corpus = self.corpus
        mode = NO_METADATA if corpus.mode is None else corpus.mode
        return Header(body.number, mode, nearest_time(corpus.mtime_ns), corpus.size)
