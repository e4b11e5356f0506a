"""Images in a tree ROOT/CLASS/NAME.jpeg, as ImageNet is kept, with the augmentations of C.2.3.

Pillow (extra `studies`) opens the files; torch does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mdlzip.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpeg", ".jpg", ".png")
MAX_PIXELS = 1 << 27
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # customary for ImageNet, of 0..1
SCALE, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # of the random crop: area, width / height
JITTER = 0.4  # brightness, contrast, saturation: factor 1 - JITTER .. 1 + JITTER
CENTRE_SHARE = 224 / 256  # what the centre crop keeps of the shorter side
_GREY = torch.tensor([0.299, 0.587, 0.114])[:, None, None]


def class_names(root: Path) -> list[str]:
    """The subfolders of `root` in order of their names: the classes 0, 1, ...; UsageError."""
    if not root.is_dir():
        raise UsageError(f"{root}: is not a folder with one subfolder a class")
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if len(names) < 2:
        raise UsageError(f"{root}: holds {len(names)} classes, 2 are the least")
    return names


class ImageFolder(Dataset[tuple[Tensor, Tensor]]):
    """Image i as (float32 [3, size, size], int64 label), normalised per channel.

    training: random crop and resize, colour jitter and mirroring, drawn from (seed, epoch, i) with
    `epoch` set by the caller; else the centre crop. A file that is no image has the label -1, so
    that the reason can be told outside a worker process. Raises UsageError without classes or
    images.
    """

    def __init__(
        self, root: Path, classes: list[str], size: int, *, training: bool, seed: int = 0
    ) -> None:
        self.size, self.training, self.seed, self.epoch = size, training, seed, 0
        self.files: list[tuple[Path, int]] = []
        for label, name in enumerate(classes):
            if not (root / name).is_dir():
                raise UsageError(f"{root}: the class {name} has no folder")
            found = sorted(p for p in (root / name).iterdir() if p.suffix.lower() in SUFFIXES)
            self.files += [(path, label) for path in found]
        if not self.files:
            raise UsageError(f"{root}: holds no images ({', '.join(SUFFIXES)})")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        path, label = self.files[i]
        try:
            image = _open(path)
        except UsageError:
            return torch.zeros(3, self.size, self.size), torch.tensor(-1)
        if self.training:
            words = np.random.SeedSequence([self.seed, self.epoch, i]).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
            pixels = augmented(image, self.size, generator)
        else:
            pixels = centred(image, self.size)
        mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
        return (pixels - mean) / std, torch.tensor(label)


class FolderSource:
    """A `Source` (see `datasets`) over an `ImageFolder`, with `workers` processes that read."""

    def __init__(self, images: ImageFolder, workers: int = 0) -> None:
        if workers < 0:
            raise UsageError(f"workers = {workers} must be at least 0")
        self.dataset, self.workers = images, workers

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.dataset)

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Source`; raises UsageError naming a file that is not an image."""
        order = list(range(self.n))
        if generator is not None:
            order = torch.randperm(self.n, generator=generator).tolist()
            self.dataset.epoch += 1
        loader = DataLoader(self.dataset, size, sampler=order, num_workers=self.workers)
        start = 0
        for images, labels in loader:
            if int(labels.min()) < 0:
                bad = order[start + int(labels.argmin())]
                _open(self.dataset.files[bad][0])  # raises with the reason
            start += len(labels)
            yield images, labels


def _open(path: Path) -> Image:
    """A decoded RGB image; raises UsageError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UsageError(f"{path}: more than {MAX_PIXELS} pixels")
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise UsageError(f"{path}: is not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: damaged image: {error}") from None


def _pixels(image: Image) -> Tensor:
    """float32 [3, h, w] in 0..1."""
    return torch.from_numpy(np.array(image, np.uint8)).permute(2, 0, 1).float().div(255)


def centred(image: Image, size: int) -> Tensor:
    """The middle of the image, 7/8 of its shorter side, as float32 [3, size, size] in 0..1."""
    from PIL.Image import Resampling

    side = min(image.size) * CENTRE_SHARE
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return _pixels(image.resize((size, size), Resampling.BILINEAR, box=box))


def augmented(image: Image, size: int, generator: torch.Generator) -> Tensor:
    """Random crop and resize, colour jitter, mirroring; float32 [3, size, size] in 0..1."""
    from PIL.Image import Resampling

    box = random_box(image.width, image.height, generator)
    pixels = _pixels(image.resize((size, size), Resampling.BILINEAR, box=box))
    pixels = jittered(pixels, generator)
    return pixels.flip(2) if float(torch.rand((), generator=generator)) < 0.5 else pixels


def random_box(
    width: int, height: int, generator: torch.Generator
) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a crop of 8 to 100 % of the area, 3:4 to 4:3; else the middle."""
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for _ in range(TRIES):
        area, ratio, x, y = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        area = (SCALE[0] + area * (SCALE[1] - SCALE[0])) * width * height
        aspect = math.exp(low + ratio * (high - low))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = x * (width - w), y * (height - h)
            return left, top, left + w, top + h
    side = float(min(width, height))
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def jittered(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation each changed by a random factor; clipped to 0..1."""
    factors = 1 + JITTER * (2 * torch.rand(3, generator=generator) - 1)
    pixels = (pixels * factors[0]).clamp(0, 1)
    mean = (pixels * _GREY).sum(0).mean()
    pixels = torch.lerp(mean.expand_as(pixels), pixels, float(factors[1])).clamp(0, 1)
    grey = (pixels * _GREY).sum(0, keepdim=True).expand_as(pixels)
    return torch.lerp(grey, pixels, float(factors[2])).clamp(0, 1)


def check_size(size: int) -> None:
    """Raise UsageError unless ResNet-50 can take images of this side (32 pixels a final cell)."""
    if not 32 <= size <= 1024:
        raise UsageError(f"images of {size} pixels a side are outside 32..1024")
