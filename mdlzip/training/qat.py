"""Quantisation-aware training: the float model sees what the integer predictor will see.

Weights are rounded to codes times a step that is exactly mantissa * 2**-exponent; activations to
int8 codes times a power of two. Gradients pass straight through the rounding (and stop where a
value is clipped), so training learns to live with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdlzip import limits
from mdlzip.model.transformer import Rounding, Transformer
from mdlzip.networks.registry import site_specs
from mdlzip.networks.spec import TensorSpec, code_limit
from mdlzip.quantised.network import IntegerNetwork, QuantTensor
from mdlzip.symbols.vocabulary import Vocabulary

STREAM_LIMIT = 8192.0  # the predictor clamps at 2**25 in units of 2**-12
_MAX_STREAM_SHIFT = 8  # beyond, units of 2**-12 are too coarse for the small values
_SAMPLES_PER_SITE = 1 << 16


def split_step(step: float) -> tuple[int, int]:
    """The nearest (mantissa, exponent) with 2**15 <= mantissa < 2**16 (value m 2**-e)."""
    exponent = 15 - math.floor(math.log2(step))
    mantissa = min(round(step * 2.0**exponent), limits.MAX_STEP_MANTISSA)
    return mantissa, exponent


class _RoundWeight(torch.autograd.Function):
    """sign(w) * floor(|w| / step + 1/2 - deadzone), clipped, times step; straight-through."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, step: float, limit: int, deadzone: float) -> Tensor:
        return round_codes(w, step, limit, deadzone).mul_(step)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return grads[0], None, None, None


class _WeightCodes(torch.autograd.Function):
    """The codes alone; their gradient is that of code times step, straight through."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, step: float, limit: int, deadzone: float) -> Tensor:
        ctx.step = step
        return round_codes(w, step, limit, deadzone)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return grads[0] / ctx.step, None, None, None


class _RoundActivation(torch.autograd.Function):
    """clip(round(x * scale), -127, 127) / scale; straight-through where x is not clipped.

    torch's own fake quantisation takes six times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        codes = (x * scale).round_()
        # To ask a GPU whether anything is clipped, the host would wait for it at every site.
        ctx.clipped = not x.is_cpu or bool(codes.abs().amax() > 127)
        if ctx.clipped:
            ctx.save_for_backward(codes.abs() <= 127)
            codes.clamp_(-127, 127)
        return codes.mul_(1 / scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        if not ctx.clipped:
            return grads[0], None
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None


def round_codes(w: Tensor, step: float, limit: int, deadzone: float) -> Tensor:
    """Codes of the weights as whole floats; a deadzone leans every level towards zero."""
    level = (w.abs() / step).add_(0.5 - deadzone).floor_().clamp_(max=limit)
    return level.copysign_(w)


class QatRounding(Rounding):
    """Rounds weights and activations as the exported network will.

    specs: of the tensors, by name. stream_shift: the exported network's residual stream is
    2**-stream_shift times this one's, see `choose_stream_shift`.
    """

    def __init__(
        self,
        specs: Mapping[str, TensorSpec],
        steps: Mapping[str, tuple[int, int]],
        exponents: Mapping[str, int],
        deadzone: float,
        stream_shift: int = 0,
    ) -> None:
        self.steps, self.exponents = dict(steps), dict(exponents)
        self.deadzone, self.stream_shift = deadzone, stream_shift
        self._specs = specs

    def weight(self, name: str, w: Tensor) -> Tensor:
        """w rounded to its codes times its step."""
        mantissa, exponent = self.steps[name]
        step = mantissa * 2.0**-exponent
        return _RoundWeight.apply(w, step, code_limit(w.shape), self.zone(name))

    def linear(self, name: str, h: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        """The product of rounded operands; on a GPU, where it is of bfloat16, of the codes.

        Codes are exact in bfloat16, and so are activations, whose steps are powers of two; a code
        times its step would be rounded to 8 bits. On a CPU that made no archive smaller
        (docs/experiments/optimisation.md), and they stay what they were.
        """
        if h.is_cpu or not torch.is_autocast_enabled(h.device.type):
            return super().linear(name, h, w, bias)
        mantissa, exponent = self.steps[name]
        step = mantissa * 2.0**-exponent
        codes = _WeightCodes.apply(w, step, code_limit(w.shape), self.zone(name))
        out = F.linear(h, codes).float() * step
        return out if bias is None else out + bias

    def zone(self, name: str) -> float:
        """The deadzone of a tensor: only matrices have one."""
        return self.deadzone if self._specs[name].is_matrix else 0.0

    def activation(self, site: str, x: Tensor) -> Tensor:
        """x rounded to int8 codes times 2**-exponent."""
        return _RoundActivation.apply(x.float(), 2.0 ** self.exponents[site])

    def stream(self, x: Tensor) -> Tensor:
        """x within the range of the predictor's residual stream."""
        limit = STREAM_LIMIT * 2.0**self.stream_shift
        return x.clamp(-limit, limit)


class _Watch(Rounding):
    """Collects a sample of the magnitudes seen at every activation site, and the stream's peak.

    At random: every n-th number would be of the same few channels wherever n and the width have a
    common divisor, and channels differ by far more than positions do.
    """

    def __init__(self) -> None:
        self.seen: dict[str, list[Tensor]] = {}
        self.peak = 0.0
        self._generator = torch.Generator().manual_seed(0)

    def activation(self, site: str, x: Tensor) -> Tensor:
        flat = x.detach().float().flatten()
        if flat.numel() > _SAMPLES_PER_SITE:
            places = torch.randint(flat.numel(), (_SAMPLES_PER_SITE,), generator=self._generator)
            flat = flat[places.to(flat.device)]
        self.seen.setdefault(site, []).append(flat.abs())
        return x

    def stream(self, x: Tensor) -> Tensor:
        self.peak = max(self.peak, float(x.detach().abs().amax()))
        return x


@torch.no_grad()
def calibrate(model: Transformer, batches: list[Tensor]) -> dict[str, int]:
    """Activation site -> the exponent whose rounding and clipping lose the least (mean square)."""
    watch, out = _watched(model, batches), {}
    for site, spec in site_specs(model.config).items():
        x = torch.cat(watch.seen[site])
        errors = {}
        for e in range(spec.least, spec.greatest + 1):
            rounded = (x * 2.0**e).round_().clamp_(max=127) * 2.0**-e
            errors[e] = float((rounded - x).square().mean())
        out[site] = min(errors, key=lambda e: errors[e])
    return out


def _watched(model: Transformer, batches: list[Tensor]) -> _Watch:
    watch, before = _Watch(), model.rounding
    model.rounding = watch
    try:
        for symbols in batches:
            model(symbols)
    finally:
        model.rounding = before
    return watch


@torch.no_grad()
def choose_stream_shift(model: Transformer, batches: list[Tensor]) -> int:
    """The smallest s such that the residual stream, scaled by 2**-s, uses at most half of the
    predictor's range.

    Every reader of the stream divides by its root mean square, so its scale changes nothing, and
    nothing keeps it from growing in a long training. Networks with LayerNorm, or with positions
    that are added as they are, keep 0.
    """
    if model.config.norm != "rms" or model.config.positions != "rotary":
        return 0
    peak = _watched(model, batches).peak
    return math.ceil(min(math.log2(max(2 * peak / STREAM_LIMIT, 1.0)), _MAX_STREAM_SHIFT))


@torch.no_grad()
def measure_curvature(
    matrices: Mapping[str, nn.Parameter], loss: Callable[[], float], seed: int = 0
) -> dict[str, float]:
    """Name -> h: noise of variance v in each of n weights raises the loss by n h v / 2 nats a byte.

    loss: mean nats per byte on a fixed sample. Measured by shaking the non-zero weights of one
    tensor at a time, half a root mean square from end to end, to either side: so the slope cancels.
    """
    generator = torch.Generator().manual_seed(seed)
    before, out = loss(), {}
    for name, p in matrices.items():
        kept, alive = p.detach().clone(), (p != 0)
        n = max(int(alive.sum()), 1)
        width = 0.5 * max(_rms_of_nonzero(p), 1e-12)
        noise = (torch.rand(p.shape, generator=generator) - 0.5).to(p.device) * width * alive
        p.add_(noise)
        both = loss()
        p.copy_(kept - noise)
        both += loss()
        p.copy_(kept)
        out[name] = max(24 * (both / 2 - before) / (n * width**2), 0.0)
    return out


def price_steps(
    params: Mapping[str, nn.Parameter],
    curvature: Mapping[str, float],
    n_bytes: int,
    coarseness: float,
) -> dict[str, float]:
    """Matrix name -> the step where a finer one would cost as many bits as it saves.

    Rounding with step s adds n_bytes h s^2 / 24 nats of data a weight; weights cost one nat less
    for every factor e of s: s = sqrt(12 / (n_bytes h)). Times `coarseness`, for training mends a
    part of the damage. Between a twentieth of the weights' root mean square and twice it.
    """
    steps = {}
    for name, h in curvature.items():
        rms = max(_rms_of_nonzero(params[name]), 1e-12)
        best = coarseness * math.sqrt(12 / max(n_bytes * h, 1e-30))
        steps[name] = min(max(best, 0.05 * rms), 2.0 * rms)
    return steps


@torch.no_grad()
def halve_unbearable(
    params: Mapping[str, nn.Parameter],
    wanted: Mapping[str, float],
    loss: Callable[[], float],
    n_bytes: int,
    coarseness: float,
) -> dict[str, float]:
    """`wanted`, halved where rounding costs the data more than the curvature made believe.

    Curvature is measured with little noise, and on a tensor with few weights by chance even as next
    to none; rounding with a step of two root mean squares may still ruin a network. A step is borne
    if rounding this tensor alone costs at most coarseness^2 nats of data a weight, twice what
    `price_steps` expects. loss: as in `measure_curvature`.
    """
    before, out = loss(), {}
    for name, step in wanted.items():
        p, n = params[name], max(int(torch.count_nonzero(params[name])), 1)
        kept, least = p.detach().clone(), 0.05 * _rms_of_nonzero(params[name])
        while step >= 2 * least:  # false for weights that are no numbers, too
            p.copy_(round_codes(kept, step, code_limit(p.shape), 0.0) * step)
            if n_bytes * (loss() - before) <= coarseness**2 * n:
                break
            step /= 2
        p.copy_(kept)
        out[name] = step
    return out


def _rms_of_nonzero(p: Tensor) -> float:
    p = p.detach()
    return math.sqrt(float(p.double().square().sum()) / max(int(torch.count_nonzero(p)), 1))


@torch.no_grad()
def choose_steps(
    params: Mapping[str, nn.Parameter],
    specs: Mapping[str, TensorSpec],
    wanted: float | Mapping[str, float],
) -> dict[str, tuple[int, int]]:
    """Tensor name -> (mantissa, exponent) of its step.

    wanted: steps of the matrices; one number counts in root mean squares of their non-zero weights.
    Vectors (biases, gains, convolutions), which are few: the finest step that holds their largest
    value.
    """
    steps = {}
    for name, p in params.items():
        top = float(p.abs().max()) / code_limit(p.shape)
        if specs[name].is_matrix:
            step = wanted * _rms_of_nonzero(p) if isinstance(wanted, float) else wanted[name]
            # An outlier may be clipped to half its size, a whole tensor must not be coarser for it.
            step = max(step, top / 2)
        else:
            step = top * 1.02
        steps[name] = split_step(max(step, 2.0**-20))
    return steps


@torch.no_grad()
def export(
    model: Transformer, rounding: QatRounding, vocabulary: Vocabulary | None = None
) -> IntegerNetwork:
    """The integer network that `rounding` has been imitating.

    vocabulary: what it shall predict; None for all bytes.
    """
    tensors = {}
    params = dict(model.named_parameters())
    for name, spec in model.specs.items():
        w = params[name].detach().float().cpu()
        mantissa, exponent = rounding.steps[name]
        step = mantissa * 2.0**-exponent
        codes = round_codes(w, step, spec.limit, rounding.zone(name))
        if spec.adds_to_stream:
            exponent += rounding.stream_shift
        tensors[name] = QuantTensor(codes.numpy().astype(np.int8), mantissa, exponent)
    vocabulary = Vocabulary() if vocabulary is None else vocabulary
    return IntegerNetwork(model.config, tensors, dict(rounding.exponents), vocabulary)
