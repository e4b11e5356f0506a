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
from mdlzip.studies.classifiers.datasets import InMemory, Source, Split

BATCH = 500


class Lessons:
    """A `Source` of images with the logits (float32 [b, classes]) of `teacher` for labels.

    What the teacher says of images that come as they are is computed once, of others each time.
    The teacher sees the images without the student's dropout, in evaluation mode.
    """

    def __init__(self, source: Source, teacher: nn.Module) -> None:
        self.source, self.teacher = source, teacher.eval().requires_grad_(False)
        if isinstance(source, InMemory) and source.augment == "none":
            parts = [self._logits(images) for images in source.images.split(BATCH)]
            self.source = InMemory(Split(source.images, torch.cat(parts)))
            self.fixed = True
        else:
            self.fixed = False

    @property
    def n(self) -> int:
        """Number of images."""
        return self.source.n

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Source`."""
        for images, labels in self.source.batches(size, generator):
            yield images, labels if self.fixed else self._logits(images)

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
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


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
