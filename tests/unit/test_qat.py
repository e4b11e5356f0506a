"""Quantisation-aware training where it may go wrong: idle channels, cliffs, growing vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mdlzip.config import ModelConfig
from mdlzip.model.transformer import Transformer
from mdlzip.training import figures, qat
from mdlzip.training.data import Batches
from tests.symbol_tools import tokens_of
from tests.unit.test_training import LAYOUT, OPTIONS, TEXT, run


def test_every_channel_is_seen_when_activations_are_measured() -> None:
    """Three of four channels are busy; a sample of every fourth number would see none of them."""
    model = Transformer(ModelConfig(d_model=64, n_layers=1, d_ff=64, window=32), 512)
    model.initialise(0)
    model.embedding.data[:, ::4] = 0.0
    symbols = torch.randint(256, (8, 512), generator=torch.Generator().manual_seed(1))
    # Projections start at zero, so what the head sees is the embedding: 0 to 5 in magnitude.
    assert qat.calibrate(model, [symbols])["head_in"] in (4, 5)


def test_steps_that_ruin_are_halved_and_others_stay() -> None:
    """loss = sum max(|error of head| - 1/2, 0): flat for little noise, then a cliff."""
    generator = torch.Generator().manual_seed(2)
    params = {
        name: torch.nn.Parameter(4 * torch.randn(60, 60, generator=generator))
        for name in ("head", "embedding")
    }
    before = {name: p.detach().clone() for name, p in params.items()}

    def loss() -> float:
        return float(((params["head"] - before["head"]).abs() - 0.501).relu().sum())

    wanted = {"head": 8.0, "embedding": 8.0}
    steps = qat.halve_unbearable(params, wanted, loss, n_bytes=1000, coarseness=1.0)
    assert steps == {"head": 1.0, "embedding": 8.0}
    assert all(torch.equal(p, before[name]) for name, p in params.items())


def test_halving_ends() -> None:
    params = {"head": torch.nn.Parameter(torch.ones(4, 4))}
    losses = iter(range(1000))
    steps = qat.halve_unbearable(params, {"head": 2.0}, lambda: next(losses), 10**9, 1.0)
    assert 0.05 <= steps["head"] < 0.1


def test_what_is_no_number_ends_the_search() -> None:
    nan = float("nan")
    broken = {"head": torch.nn.Parameter(torch.full((4, 4), nan))}
    assert qat.halve_unbearable(broken, {"head": 1.0}, lambda: nan, 10, 1.0) == {"head": 1.0}
    fine = {"head": torch.nn.Parameter(torch.ones(4, 4))}
    assert qat.halve_unbearable(fine, {"head": 1.0}, lambda: nan, 10, 1.0)["head"] < 0.1
    model = Transformer(ModelConfig(d_model=16, n_layers=1, d_ff=16, window=8), 64)
    model.initialise(0)
    model.embedding.data[:] = float("inf")
    assert qat.choose_stream_shift(model, [torch.zeros(2, 64, dtype=torch.long)]) <= 8


def test_a_stream_that_has_grown_is_not_cut_off() -> None:
    """Beyond the predictor's range it is scaled down, which no reader of the stream notices."""
    model = Transformer(ModelConfig(d_model=16, n_layers=2, d_ff=32, window=8), 64)
    model.initialise(0)
    generator = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator)
        if model.specs[name].adds_to_stream:
            p.data *= 20_000
    batches = Batches(tokens_of(TEXT, LAYOUT), 4 * 64, seed=0)
    sample = [batches.gather(batches.sample(32))]
    symbols = [sample[0][0]]
    plain = figures.float_nats(model, batches, sample)
    steps = qat.choose_steps(dict(model.named_parameters()), model.specs, 0.05)
    exponents, shift = qat.calibrate(model, symbols), qat.choose_stream_shift(model, symbols)
    found = []
    for chosen in (shift, 0):
        model.rounding = qat.QatRounding(model.specs, steps, exponents, 0.0, chosen)
        network = qat.export(model, model.rounding)
        assert figures.integer_nats(network, batches, 32) == pytest.approx(
            figures.float_nats(model, batches, sample), rel=0.005 if chosen else 0.02
        )
        found.append(figures.float_nats(model, batches, sample))
    assert found[0] == pytest.approx(plain, rel=0.003)
    assert found[1] != pytest.approx(plain, rel=0.006)


@pytest.mark.parametrize("factor", [1, 30, 100])
def test_hidden_units_may_grow(factor: float) -> None:
    """What is squared may be large: `down` makes it small again."""
    model = Transformer(ModelConfig(d_model=16, n_layers=2, d_ff=32, window=8), 64)
    model.initialise(0)
    generator = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator)
        p.data *= {"up": factor, "down": factor**-2}.get(name.rsplit(".")[-1], 1)
    batches = Batches(tokens_of(TEXT, LAYOUT), 4 * 64, seed=0)
    sample = [batches.gather(batches.sample(32))]
    symbols = [sample[0][0]]
    steps = qat.choose_steps(dict(model.named_parameters()), model.specs, 0.05)
    model.rounding = qat.QatRounding(model.specs, steps, qat.calibrate(model, symbols), 0.0)
    expected = figures.float_nats(model, batches, sample)
    network = qat.export(model, model.rounding)
    assert figures.integer_nats(network, batches, 32) == pytest.approx(expected, rel=0.005)


def test_vectors_may_grow_while_quantising(tmp_path: Path) -> None:
    """Biases start at zero. With steps fixed there they would be cut off at once and grow unseen;
    what was exported then had little to do with what was trained (8.0 bits a byte, not 4.3).
    """
    settings = ("train.prune_at=0", "train.qat_at=0", "train.step_rms=0.1", "train.adam_lr=0.2")
    options = replace(OPTIONS, steps=150, overrides=(*OPTIONS.overrides, *settings))
    assert run(tmp_path, options).figures["integer_bits_per_byte"] < 5.5
