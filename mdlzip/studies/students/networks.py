"""Teacher and students of section 4.1: small MLPs, many of them as one batched program.

S students of 751 weights each are far too small for a matrix product to be worth its call, so all
of them are trained at once: every parameter has a leading dimension S, losses are summed over
students, and no student's gradient sees another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from mdlzip.errors import UsageError

TEACHER_WIDTHS = (2, 5, 8, 1)
STUDENT_WIDTHS = (2, 25, 25, 1)
TEACHER_SEED = 0
TEACHER_RMS = 3.0
"""Root mean square of the teacher's output.

The paper does not give the scale of its targets. Its cells for models of which next to nothing is
left (180 bytes at N = 30) are 24 bits a sample, and its unpruned cells at N = 2000 and high noise
are 20.5 bits at sigma = 0.283. With uniform cells as wide as float32 is fine at the largest target
(2^-20 between 8 and 16) both come out for targets of this size.
"""
_TEACHER_SAMPLE = 65536  # inputs that fix the scale of the teacher's output
SIGMA_FLOOR = 1e-4
"""Least learned sigma: an overfitted student (N = 30) would send it to 0 and the loss to minus
infinity. It is 30 times below the lower noise of the study."""


class Students(nn.Module):
    """S independent MLPs with tanh between their layers, float32.

    seeds: one per student. Its initial weights are drawn from its own generator, so they depend
    neither on S nor on its place; equal seeds start from equal weights.
    widths: units from input to output.
    sigma: initial sigma of the Gaussian loss; with it there is a parameter log_sigma [S, 1, 1],
    natural logarithm. None: no such parameter.

    Parameters weights.k [S, out, in] and biases.k [S, 1, out], uniform in +-1 / sqrt(in).
    """

    def __init__(
        self,
        seeds: Sequence[int],
        widths: Sequence[int] = STUDENT_WIDTHS,
        *,
        sigma: float | None = None,
    ) -> None:
        super().__init__()
        if not seeds:
            raise UsageError("no students: the list of seeds is empty")
        drawn = [_draw(seed, widths) for seed in seeds]
        layers = range(len(widths) - 1)
        self.weights = nn.ParameterList(torch.stack([d[0][k] for d in drawn]) for k in layers)
        self.biases = nn.ParameterList(torch.stack([d[1][k] for d in drawn]) for k in layers)
        self.log_sigma: nn.Parameter | None = None
        if sigma is not None:
            self.log_sigma = nn.Parameter(torch.full((len(seeds), 1, 1), math.log(sigma)))

    def __len__(self) -> int:
        return self.weights[0].shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Give [S, N, out] for inputs [S, N, in], student s reading x[s]."""
        # Samples in the last dimension: the products run along it, 30 % faster than the other way.
        h = x.transpose(1, 2)
        last = len(self.weights) - 1
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias.transpose(1, 2), weight, h)
            if k < last:
                h = torch.tanh(h)
        return h.transpose(1, 2)

    @torch.no_grad()
    def hold_sigma_(self) -> None:
        """Put sigma back to `SIGMA_FLOOR` where it has fallen below; after each optimiser step."""
        if self.log_sigma is not None:
            self.log_sigma.clamp_(min=math.log(SIGMA_FLOOR))

    def regularised(self) -> dict[str, nn.Parameter]:
        """Weights and biases by name: all that is regularised, pruned and counted."""
        return {n: p for n, p in self.named_parameters() if n != "log_sigma"}

    @torch.no_grad()
    def nnz(self) -> Tensor:
        """Weights and biases that are not zero, int64 [S]."""
        counts = [torch.count_nonzero(p, dim=(1, 2)) for p in self.regularised().values()]
        return torch.stack(counts).sum(dim=0)


def _draw(seed: int, widths: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Initial weights [out, in] and biases [1, out] of one student."""
    source = torch.Generator().manual_seed(seed)
    weights, biases = [], []
    for i, o in pairwise(widths):
        bound = 1 / math.sqrt(i)
        weights.append(torch.empty(o, i).uniform_(-bound, bound, generator=source))
        biases.append(torch.empty(1, o).uniform_(-bound, bound, generator=source))
    return weights, biases


def gaussian_loss(residuals: Tensor, log_sigma: Tensor) -> Tensor:
    """Bits per sample of the Gaussian code, the data term of eq. 17 (eq. 6 averaged).

    residuals: y - m(x), [..., N, out]; log_sigma: natural logarithm, broadcastable, or [..., 1, 1].
    Result [...]: mean of 1/2 log2(2 pi sigma^2) + r^2 / (2 ln 2 sigma^2) over samples. The model's
    own l(theta, sigma) / n of eq. 17 is the sparsity method's business. Differentiable in both;
    least at sigma = root mean square of the residuals.
    """
    nats = log_sigma + 0.5 * math.log(2 * math.pi) + 0.5 * (residuals * (-log_sigma).exp()).square()
    return nats.mean(dim=(-2, -1)) / math.log(2)


class Teacher:
    """The function to be learned: an MLP [2, 5, 8, 1], weights and biases N(0, 1), tanh.

    Output shifted and scaled to mean 0 and root mean square `TEACHER_RMS` over inputs N(0, 1)^2.
    """

    def __init__(self, seed: int = TEACHER_SEED) -> None:
        source = np.random.default_rng([seed, 0])
        pairs = pairwise(TEACHER_WIDTHS)
        self._layers = [(source.normal(size=(i, o)), source.normal(size=o)) for i, o in pairs]
        sample = self._raw(source.normal(size=(_TEACHER_SAMPLE, TEACHER_WIDTHS[0])))
        self._mean, self._scale = float(sample.mean()), TEACHER_RMS / float(sample.std())

    def _raw(self, x: np.ndarray) -> np.ndarray:
        for k, (weight, bias) in enumerate(self._layers):
            x = x @ weight + bias
            if k < len(self._layers) - 1:
                x = np.tanh(x)
        return x

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Means [N, 1] of the targets at inputs [N, 2], float64."""
        return (self._raw(x) - self._mean) * self._scale


def draw_samples(
    teacher: Teacher, seed: int, n: int, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """2n samples, the first n for training: inputs [2n, 2] and targets [2n, 1], float32.

    noise: variance of the Gaussian added to the teacher's output. Inputs and the noise up to its
    scale depend on `seed` and `n` alone, so the two noise levels see the same inputs.
    """
    source = np.random.default_rng([seed, n, 1])
    x = source.normal(size=(2 * n, TEACHER_WIDTHS[0])).astype(np.float32)
    errors = source.normal(size=(2 * n, 1))
    y = teacher(x.astype(np.float64)) + math.sqrt(noise) * errors
    return x, y.astype(np.float32)
