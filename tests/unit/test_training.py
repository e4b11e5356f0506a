"""Training on real text of the repository: it learns, prunes, quantises, resumes to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mdlzip.codec.options import CompressOptions
from mdlzip.config import ModelConfig, TrainConfig, load_preset
from mdlzip.errors import ExportRefused, Interrupted, NoGain, UsageError
from mdlzip.model.transformer import Transformer
from mdlzip.networks.registry import n_cells, tensor_specs
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.survey import present_in
from mdlzip.symbols.vocabulary import Vocabulary, alphabet_of
from mdlzip.training import checkpoint, choice, planner, qat, state
from mdlzip.training.data import IGNORE, Batches
from mdlzip.training.loop import TrainResult
from mdlzip.training.optim import make_optimisers, orthogonalise
from mdlzip.training.run import train
from tests.conftest import ROOT
from tests.symbol_tools import tokens_of

TEXT = np.frombuffer((ROOT / "LICENSE").read_bytes(), np.uint8)
LAYOUT = Layout(len(TEXT), 64, 16)
OPTIONS = CompressOptions(
    preset="nano", steps=40, chunk_size=64, device="cpu", threads=1,
    overrides=("model.d_model=16", "model.d_ff=32", "train.alpha=0.02"),
)  # fmt: skip


def run(
    folder: Path,
    options: CompressOptions = OPTIONS,
    stop: Any = lambda: False,
    data: np.ndarray = TEXT,
    note: Any = lambda *a: None,
    **more: Any,
) -> TrainResult:
    layout, present = replace(LAYOUT, total_bytes=len(data)), present_in(data.tobytes())
    vocabulary = planner.choose_vocabulary(present, data, layout, options)
    with tokens_of(data, layout, vocabulary) as tokens:
        return train(
            tokens, data, options, work_dir=folder, on_progress=note, should_stop=stop, **more
        )


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return run(tmp_path_factory.mktemp("run"))


def codes(result: TrainResult) -> bytes:
    return b"".join(t.codes.tobytes() for t in result.network.tensors.values())


def test_it_learns_and_the_integers_keep_it(result: TrainResult) -> None:
    f = result.figures
    assert f["integer_bits_per_byte"] < 6.0
    assert abs(f["integer_bits_per_byte"] / f["qat_bits_per_byte"] - 1) < 0.005
    assert f["steps"] == 40


def test_absent_symbols_cost_nothing(result: TrainResult) -> None:
    absent = ~present_in(TEXT.tobytes())
    assert absent.sum() > 100
    assert not result.network.tensors["embedding"].codes[:256][absent].any()
    assert not result.network.tensors["head"].codes[:256][absent].any()


def test_the_same_seed_gives_the_same_network(result: TrainResult, tmp_path: Path) -> None:
    assert codes(run(tmp_path)) == codes(result)
    assert codes(run(tmp_path / "other", replace(OPTIONS, seed=1))) != codes(result)


@pytest.mark.parametrize("at", [3, 29, 34])  # training, fine-tuning, quantising
def test_resumed_to_the_bit(result: TrainResult, tmp_path: Path, at: int) -> None:
    calls = iter(range(1000))
    with pytest.raises(Interrupted, match="--resume"):
        run(tmp_path, stop=lambda: next(calls) == at)
    assert codes(run(tmp_path, resumed=checkpoint.load(tmp_path))) == codes(result)


def test_a_damaged_checkpoint_falls_back(tmp_path: Path) -> None:
    model = Transformer(ModelConfig(d_model=16, n_layers=1, d_ff=16), 64)
    model.initialise(0)
    tensors = state.collect(model, {})
    settings = checkpoint.Settings(load_preset("mini"), 512, 128, "auto", None, 3, None, 60.0, 1000)
    for step in (1, 2, 3):
        progress = checkpoint.Progress(step=step)
        checkpoint.save(tmp_path, checkpoint.Checkpoint(settings, progress, tensors))
    assert len(list(tmp_path.iterdir())) == 2
    newest = tmp_path / "step-00000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    found = checkpoint.load(tmp_path)
    assert found is not None and found.progress.step == 2
    assert found.settings == settings
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in found.state.items())


def test_budget_is_kept(tmp_path: Path) -> None:
    import time

    options = replace(OPTIONS, steps=None, budget_s=12.0)
    run(tmp_path)  # compiles the kernels
    began = time.monotonic()
    run(tmp_path / "b", options)
    assert 5.0 < time.monotonic() - began < 12.0 * 1.1 + 1.0  # coding comes on top of training


def test_batches_cover_the_corpus_once_an_epoch() -> None:
    batches = Batches(tokens_of(TEXT, LAYOUT), 4 * 64, seed=0)
    seen: list[bytes] = []
    for step in range(batches.n_chunks // 32 * 8):  # whole pools of 8 batches
        symbols, targets, *_ = batches.batch(step)
        assert symbols.shape == (4, 64)
        seen += [bytes(x[y != IGNORE].tolist()) for x, y in zip(symbols, targets, strict=True)]
    assert len(set(seen)) >= len(seen) - 2
    assert sum(map(len, seen)) >= len(TEXT) - 32 * 64


def test_a_corpus_shorter_than_a_chunk(tmp_path: Path) -> None:
    done = run(tmp_path, replace(OPTIONS, steps=2), data=TEXT[:10])
    assert done.network.n_weights > 0


def test_orthogonalise() -> None:
    g = torch.randn(2, 24, 8, generator=torch.Generator().manual_seed(0))
    singular = torch.linalg.svdvals(orthogonalise(g))
    assert singular.min() > 0.5 and singular.max() < 1.4


def test_optimisers_share_the_parameters_out() -> None:
    model = Transformer(ModelConfig(d_model=16, n_layers=1, d_ff=16), 64)
    both = make_optimisers(model, TrainConfig())
    counted = [p for o in both.values() for g in o.param_groups for p in g["params"]]
    assert len(counted) == len(list(model.parameters())) == len({id(p) for p in counted})
    assert set(make_optimisers(model, TrainConfig(optimiser="adamw"))) == {"adam"}


def test_rounding_of_weights() -> None:
    w = torch.tensor([-1.26, -0.31, 0.0, 0.29, 0.31, 0.74, 40.0], requires_grad=True)
    specs = tensor_specs(ModelConfig())
    rounding = qat.QatRounding(specs, {"head": (32768, 16)}, {}, 0.1)  # step 1/2
    rounded = rounding.weight("head", w)
    assert rounded.tolist() == [-1.0, -0.5, 0.0, 0.0, 0.5, 0.5, 40.0]
    rounded.sum().backward()
    assert w.grad is not None and w.grad.tolist() == [1.0] * 7


@pytest.mark.parametrize("step", [1e-5, 0.013, 0.5, 3.7])
def test_split_step(step: float) -> None:
    mantissa, exponent = qat.split_step(step)
    assert 2**15 <= mantissa < 2**16
    assert mantissa * 2.0**-exponent == pytest.approx(step, rel=2**-15)


def test_overrides_are_checked() -> None:
    with pytest.raises(UsageError, match=r"unknown key train\.aplha"):
        load_preset("nano", overrides=("train.aplha=1",))
    with pytest.raises(UsageError, match="unknown preset"):
        load_preset("nope")
    assert load_preset("nano", overrides=("train.alpha=1",)).train.alpha == 1.0


@pytest.mark.parametrize("gain", [1.0, 300.0, 20000.0])
def test_a_stream_of_any_size_is_predicted_as_trained(gain: float) -> None:
    """A long training makes the residual stream grow; the integers must follow, or training see."""
    from mdlzip.training import figures

    model = Transformer(ModelConfig(d_model=16, n_layers=2, d_ff=32, window=8), 64)
    model.initialise(0)
    generator = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        if p.ndim == 2:
            p.data += 0.3 * torch.randn(p.shape, generator=generator)
        if name.endswith("mlp.down"):
            p.data *= gain
    batches = Batches(tokens_of(TEXT, LAYOUT), 4 * 64, seed=0)
    sample = [batches.gather(batches.sample(32))]
    params = dict(model.named_parameters())
    symbols = [sample[0][0]]
    shift = qat.choose_stream_shift(model, symbols)
    assert (shift > 0) == (gain > 100)
    steps = qat.choose_steps(params, model.specs, 0.5)
    rounding = qat.QatRounding(model.specs, steps, qat.calibrate(model, symbols), 0.1, shift)
    model.rounding = rounding
    with torch.no_grad():
        peak = float(_stream_peak(model, sample[0][0]))
    assert (peak > 1000) == (gain > 100)
    expected = figures.float_nats(model, batches, sample)
    found = figures.integer_nats(qat.export(model, rounding), batches, 32)
    assert found == pytest.approx(expected, rel=0.005)


def test_an_export_of_fewer_byte_values_predicts_no_worse() -> None:
    from mdlzip.training import figures

    model = Transformer(ModelConfig(d_model=16, n_layers=1, d_ff=32, window=8), 64)
    model.initialise(0)
    batches = Batches(tokens_of(TEXT, LAYOUT), 4 * 64, seed=0)
    x = batches.gather(batches.sample(8))[0]
    steps = qat.choose_steps(dict(model.named_parameters()), model.specs, 0.5)
    rounding = qat.QatRounding(model.specs, steps, qat.calibrate(model, [x]), 0.0)
    alphabet = alphabet_of(present_in(TEXT.tobytes()))
    whole, part = qat.export(model, rounding), qat.export(model, rounding, Vocabulary(alphabet))
    assert whole.alphabet.size == 256 and np.array_equal(part.alphabet, alphabet)
    nats = [figures.integer_nats(network, batches, 32) for network in (whole, part)]
    assert nats[1] < nats[0]
    lacking = qat.export(model, rounding, Vocabulary(alphabet[1:]))
    with pytest.raises(ExportRefused, match="not in the alphabet"):
        figures.integer_nats(lacking, batches, 1000)


def _stream_peak(model: Transformer, symbols: torch.Tensor) -> torch.Tensor:
    """Largest magnitude that the residual stream reaches."""
    seen = []
    rounding, plain = model.rounding, type(model.rounding).stream
    rounding.stream = lambda x: seen.append(x.abs().max()) or plain(rounding, x)  # type: ignore[method-assign]
    model(symbols)
    del rounding.stream
    return torch.stack(seen).max()


def test_steps_follow_what_a_tensor_bears() -> None:
    """loss = 3 |head|^2 + |up|^2 / 12: curvatures 6 and 1 / 6 a weight, so steps 1 to 6."""
    generator = torch.Generator().manual_seed(3)
    params = {
        name: torch.nn.Parameter(torch.randn(60, 60, generator=generator))
        for name in ("head", "blocks.0.mlp.up")
    }
    before = {name: p.detach().clone() for name, p in params.items()}

    def loss() -> float:
        head, up = params.values()
        return float(3 * head.square().sum() + up.square().sum() / 12)

    curvature = qat.measure_curvature(params, loss)
    assert all(torch.equal(p, before[name]) for name, p in params.items())
    assert curvature["head"] == pytest.approx(6, rel=0.1)
    assert curvature["blocks.0.mlp.up"] == pytest.approx(1 / 6, rel=0.1)
    exact = {"head": 6.0, "blocks.0.mlp.up": 1 / 6}
    steps = qat.price_steps(params, exact, n_bytes=8, coarseness=1.0)
    assert steps["head"] == pytest.approx(0.5)
    assert steps["blocks.0.mlp.up"] == pytest.approx(2.0, rel=0.05)  # 3, cut to two mean squares
    coarse = qat.price_steps(params, exact, n_bytes=8, coarseness=2.0)
    assert coarse["head"] == pytest.approx(1.0)


@pytest.mark.parametrize("exponent", [-2, 0, 5])
def test_rounding_of_activations_is_torchs(exponent: int) -> None:
    x = 60 * torch.randn(400, generator=torch.Generator().manual_seed(4))
    twins = [x.clone().requires_grad_() for _ in range(2)]
    ours = qat.QatRounding({}, {}, {"site": exponent}, 0.0).activation("site", twins[0])
    unit = 2.0**-exponent
    theirs = torch.fake_quantize_per_tensor_affine(twins[1], unit, 0, -127, 127)
    assert torch.equal(ours, theirs)
    for value, twin in zip((ours, theirs), twins, strict=True):
        (value * torch.arange(400)).sum().backward()
        assert twin.grad is not None
    assert torch.equal(twins[0].grad, twins[1].grad)  # type: ignore[arg-type]


def test_training_that_cannot_win_is_given_up(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 20_000, np.uint8)
    with pytest.raises(NoGain, match=r"given up .* will not get below 9,000 bytes"):
        run(tmp_path, replace(OPTIONS, steps=400), data=noise, rival_bytes=9000)


def test_a_run_that_its_own_estimate_gives_up_does_not_begin(tmp_path: Path) -> None:
    steps: list[float] = []

    def note(phase: str, done: float, total: float, text: str) -> None:
        if phase == "train":
            steps.append(done)

    with pytest.raises(NoGain, match=r"the estimate of [\d,]+ bytes is far above the 1,000"):
        run(tmp_path, note=note, rival_bytes=1000)
    assert not steps


def test_little_content_pays_for_few_weights() -> None:
    options = CompressOptions(device="cpu")
    names = [
        choice.choose_preset(options, 10_000_000, lzma_bytes, 1e9, "cpu").name
        for lzma_bytes in (10_000, 300_000, 1_000_000, 3_000_000)
    ]
    assert names == ["nano", "mini", "small", "base"]
    assert choice.choose_preset(options, 10_000_000, 3_000_000, 1.0, "cpu").name == "nano"


@pytest.mark.parametrize(("budget_s", "doubtful"), [(60.0, True), (400.0, False)])
def test_a_budget_without_time_to_train_is_said(budget_s: float, doubtful: bool) -> None:
    """A large file: coding alone takes most of the budget."""
    plan = planner.Plan(
        load_preset("nano"), "cpu", budget_s, 0.1, 50.0, 3.0, 300_000, None, 5.0, pass_s=40.0
    )
    doubt = plan.doubt(1_000_000)
    assert (doubt is not None) == doubtful
    assert not doubtful or "leaves 2 s for training" in str(doubt)
    assert not doubtful or "--budget 3m or more" in str(doubt)


@pytest.mark.parametrize(
    ("passes", "rival", "doubtful"),
    [(0.5, 310_000, True), (0.5, 400_000, False), (2.0, 310_000, False), (0.5, None, False)],
)
def test_a_part_of_the_file_must_promise_more(
    passes: float, rival: int | None, doubtful: bool
) -> None:
    """What is seen less than once is known less well than the estimate says."""
    plan = planner.Plan(
        load_preset("nano"), "cpu", 400.0, 0.1, 50.0, 3.0, 300_000, None, 5.0, 40.0, passes
    )
    doubt = plan.doubt(rival)
    assert (doubt is not None) == doubtful
    assert not doubtful or "training would see 50% of the file" in str(doubt)


def test_the_ladder_has_weights_that_grow() -> None:
    counts = [n_cells(load_preset(name).model) for name in choice._GPU_LADDER]
    assert counts == sorted(counts)
    assert counts[0] > 50_000


def test_the_estimate_of_lzma() -> None:
    text = np.frombuffer(b"a line that comes again and again\n" * 100_000, np.uint8)
    assert choice.estimate_lzma(text[: 1 << 20], len(text)) < 10_000
    noise = np.random.default_rng(0).integers(0, 256, 3 << 20, np.uint8)
    assert choice.estimate_lzma(noise[: 1 << 20], len(noise)) == pytest.approx(len(noise), rel=0.01)


@pytest.mark.parametrize(
    ("rival", "text"),
    [
        (None, "of 9,000 bytes"),
        (4_000, ", 25% below the 4,000 of the best general method"),
        (2_000, "this may not pay, a general method needs 2,000"),
    ],
)
def test_the_estimate_says_whether_it_will_pay(rival: int | None, text: str) -> None:
    preset = load_preset("nano")
    plan = planner.Plan(preset, "cpu", 60.0, 0.1, 1.0, 1.0, 3_000, None)
    sentence = plan.sentence(9_000, rival)
    assert text in sentence
    assert ("general" in sentence) == (rival is not None)
