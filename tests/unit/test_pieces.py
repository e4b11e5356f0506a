"""Long chunks are trained on in pieces; the network does not notice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mdlzip.config import ModelConfig
from mdlzip.matches import Matcher
from mdlzip.model.transformer import Transformer
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.learn import learn_merges
from mdlzip.symbols.survey import present_in
from mdlzip.symbols.vocabulary import Vocabulary, alphabet_of
from mdlzip.training.data import IGNORE, PIECE_BYTES, Batch, Batches
from tests.symbol_tools import tokens_of

ROOT = Path(__file__).resolve().parents[2]
TEXT = np.frombuffer((ROOT / "LICENSE").read_bytes(), np.uint8)[:6000]
CHUNK, LEAD, LEAST = 2048, 24, 2
LAYOUT = Layout(len(TEXT), CHUNK, 4)


def vocabulary(n_merges: int) -> Vocabulary:
    alphabet = alphabet_of(present_in(TEXT.tobytes()))
    merges = learn_merges(TEXT, n_merges, 8, 1.0, 16)
    assert len(merges) == n_merges
    return Vocabulary(alphabet, merges)


def in_pieces(n_merges: int, lead: int = LEAD) -> Batches:
    return Batches(
        tokens_of(TEXT, LAYOUT, vocabulary(n_merges)), 1024, 0, lead=lead, least_match=LEAST
    )


@pytest.mark.parametrize("n_merges", [0, 40])
def test_pieces_cover_the_corpus_once_with_context_before_them(n_merges: int) -> None:
    batches = in_pieces(n_merges)
    assert batches.n_chunks == 3 and 11 <= batches.n_pieces <= 13
    seen: list[np.ndarray] = []
    for batch in batches.sample_pieces(batches.n_pieces):
        for symbols, targets in zip(batch.symbols.numpy(), batch.targets.numpy(), strict=True):
            used = np.flatnonzero(targets != IGNORE)
            assert used[0] in (0, LEAD) and (np.diff(used) == 1).all()
            if used[0]:
                context = symbols[: used[0]]
                assert np.array_equal(context, np.concatenate(seen)[-LEAD:])
            seen.append(symbols[used])
            places = batches.vocabulary.symbols[targets[used]]
            assert np.array_equal(places, symbols[used])
            assert batches.vocabulary.lengths[symbols[used]].sum() <= 1.5 * PIECE_BYTES
    strings, lengths = batches.vocabulary.strings, batches.vocabulary.lengths
    flat = b"".join(strings[s, : lengths[s]].tobytes() for s in np.concatenate(seen))
    assert flat == TEXT.tobytes()


def test_an_epoch_draws_every_piece_once() -> None:
    batches = in_pieces(40)
    assert 2 <= batches.batch_pieces <= 5
    steps = 8 * batches.n_pieces  # whole epochs and whole pools
    bytes_seen = sum(batches.bytes_of(batches.batch(i).targets) for i in range(steps))
    assert bytes_seen == pytest.approx(steps * batches.passes_per_step * len(TEXT), rel=1e-9)


def test_batches_have_few_lengths() -> None:
    """Kernels are made for every new shape; nothing is longer than the chunks are."""
    batches = in_pieces(40)
    widths = {batches.batch(step).symbols.shape[1] for step in range(4 * batches.n_pieces)}
    assert all(width % 16 == 0 for width in widths) and len(widths) <= 8
    for batch in (batches.batch(0), batches.gather([0])):
        assert batch.matches is not None
        shapes = {z.shape for z in (batch.symbols, batch.targets, *batch.matches)}
        assert shapes == {batch.symbols.shape} and batch.symbols.shape[1] <= CHUNK


def test_matches_of_a_piece_are_those_of_the_whole_chunk() -> None:
    batches = in_pieces(40)
    whole = batches.gather([1])
    assert whole.matches is not None
    previous = np.zeros(whole.symbols.shape, np.int16)
    previous[:, 1:] = whole.symbols.numpy()[:, :-1]
    found, lengths = Matcher(1, CHUNK, LEAST).advance(previous)
    assert np.array_equal(whole.matches[0], found) and np.array_equal(whole.matches[1], lengths)
    assert (found >= 0).sum() > 20, "a chunk without matches proves nothing"
    guesses = [kept(batch, i) for batch in batches.sample_pieces(100) for i in range(len(batch[0]))]
    flat = np.concatenate(guesses)
    expected = np.concatenate([kept(batches.gather([i]), 0) for i in range(3)])
    assert np.array_equal(flat, expected)


def kept(batch: Batch, row: int) -> np.ndarray:
    """Guesses at the places that count."""
    assert batch.matches is not None
    return batch.matches[0][row][batch.targets[row] != IGNORE].numpy()


def test_the_network_says_of_a_piece_what_it_says_of_the_chunk() -> None:
    config = ModelConfig(
        d_model=16, n_layers=2, d_ff=32, window=8, conv_width=4, match_min=LEAST, n_merges=40
    )
    model = Transformer(config, CHUNK)
    model.initialise(0)
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator)
    batches = in_pieces(40, lead=2 * (8 + 3 + 3) + 1)
    model.restrict(torch.from_numpy(batches.vocabulary.symbols).long())
    with torch.no_grad():
        rows, pieces = (
            torch.cat([model(*inputs(batch))[batch.targets != IGNORE] for batch in each])
            for each in ([batches.gather([i]) for i in range(3)], batches.sample_pieces(100))
        )
    assert torch.allclose(pieces, rows, atol=2e-4)


def inputs(batch: Batch) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
    return batch.symbols, batch.matches


def test_short_chunks_and_full_attention_are_not_cut() -> None:
    short = Batches(tokens_of(TEXT, Layout(len(TEXT), 1000, 4)), 1024, 0, lead=LEAD)
    whole = Batches(tokens_of(TEXT, LAYOUT), 1024, 0)
    assert short.n_pieces == short.n_chunks == 6 and whole.n_pieces == whole.n_chunks == 3
    assert whole.batch(0).matches is None
    assert [len(b.symbols) for b in whole.sample_chunks(64)] == [2, 1]
    assert whole.chunks_for(64) == 16 and short.chunks_for(3) == 3
