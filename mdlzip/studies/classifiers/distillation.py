"""Training a pruned network on what the unregularised one says (Hinton et al., arXiv 1503.02531).

With labels alone few weights learn the training images by heart, once the penalty lets them; what
the large network says of an image holds more than its label does, which works against that.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdlzip.errors import UsageError
from mdlzip.fileio.atomic import AtomicOutput
from mdlzip.studies.classifiers.datasets import InMemory, Source, moved

BATCH = 500


class Lessons:
    """A `Source` of images with the logits (float32 [b, classes]) of `teacher` for labels.

    shift: pixels; in shuffled passes each image is moved by up to this distance either way, and
    the teacher is asked about the moved image, without dropout. Its logits for images in memory
    that are not augmented otherwise are computed once, for all (2 shift + 1)^2 moves.
    """

    def __init__(self, source: Source, teacher: nn.Module, shift: int = 0) -> None:
        self.source, self.shift = source, shift
        self.teacher = teacher.eval().requires_grad_(False)
        self.taught: Tensor | None = None
        if isinstance(source, InMemory) and source.augment == "none":
            self.taught = torch.stack([self._all_logits(source, m) for m in range(self.places)])

    @property
    def n(self) -> int:
        """Number of images."""
        return self.source.n

    @property
    def places(self) -> int:
        """Where an image may stand: the one in the middle is `places // 2`."""
        return (2 * self.shift + 1) ** 2

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Source`."""
        if self.taught is not None:
            yield from self._known(self.taught, size, generator)
            return
        for images, _ in self.source.batches(size, generator):
            moves = self._places(len(images), generator)
            there = self._moved(images, moves)
            yield there, self._logits(there)

    def _known(
        self, taught: Tensor, size: int, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches where all that the teacher says ([places, n, classes]) is known already."""
        assert isinstance(self.source, InMemory)
        shuffled = generator is not None
        order = torch.randperm(self.n, generator=generator) if shuffled else torch.arange(self.n)
        for chosen in order.split(size):
            moves = self._places(len(chosen), generator)
            rows = chosen.to(taught.device)
            images = self.source.images[rows]
            yield self._moved(images, moves), taught[moves.to(taught.device), rows]

    def _places(self, n: int, generator: torch.Generator | None) -> Tensor:
        if generator is None or not self.shift:
            return torch.full((n,), self.places // 2)
        return torch.randint(self.places, (n,), generator=generator)

    def _moved(self, images: Tensor, places: Tensor) -> Tensor:
        if not self.shift:
            return images
        side = 2 * self.shift + 1
        return moved(images, torch.stack([places // side, places % side]), self.shift)

    def _all_logits(self, source: InMemory, place: int) -> Tensor:
        parts = source.images.split(BATCH)
        there = [self._moved(part, torch.full((len(part),), place)) for part in parts]
        return torch.cat([self._logits(part) for part in there])

    @torch.no_grad()
    def _logits(self, images: Tensor) -> Tensor:
        device = next(self.teacher.parameters()).device
        logits: Tensor = self.teacher(images.to(device)).float()
        return logits


def distillation_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(taught / T) || softmax(logits / T)), nats, mean of the examples.

    logits, taught: float [n, classes]. The factor keeps the gradients of the size of those of the
    cross-entropy (section 2 of the paper above).
    """
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(taught / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict as .npz; the file is there whole or not at all."""
    arrays = {name: value.cpu().numpy() for name, value in weights.items()}
    with AtomicOutput(path, force=True) as output:
        np.savez(output.file, **arrays)  # type: ignore[arg-type]
        output.commit()


def load_weights(model: nn.Module, path: Path) -> None:
    """Read what `save_weights` wrote into `model`; raises UsageError for anything else."""
    state = model.state_dict()
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if set(arrays.files) != set(state):
                raise ValueError("other tensors")
            found = {name: torch.from_numpy(arrays[name]) for name in state}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} does not hold the weights of this network: {error}") from None
    for name, value in found.items():
        if value.shape != state[name].shape or value.dtype != state[name].dtype:
            raise UsageError(f"{path} does not hold the weights of this network: {name} differs")
    model.load_state_dict(found)
