"""Readers for MNIST (idx) and CIFAR-10 (binary), and how a training loop takes batches of them.

Every file is checked against its own header before anything is allocated; damage raises UsageError
in one line. Nothing here unpickles: the Python version of CIFAR-10 is refused.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mdlzip.errors import UsageError

MAX_IDX_BYTES = 1 << 30
MAX_CIFAR_RECORDS = 1 << 20
CIFAR_SHAPE = (3, 32, 32)
CIFAR_RECORD = 1 + 3 * 32 * 32  # label, then the red, green and blue planes
CIFAR_FOLDER = "cifar-10-batches-bin"  # what the published archive unpacks to
AUGMENTS = ("none", "shift", "crop-flip")
SHIFT, CROP_PAD = 2, 4  # pixels

_IDX_DTYPE = 0x08  # unsigned bytes, the only type that MNIST uses
_MNIST = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class Split(NamedTuple):
    """Images float32 [n, channels, height, width] and their labels int64 [n]."""

    images: Tensor
    labels: Tensor


class Source(Protocol):
    """Labelled images in batches, wherever they come from."""

    @property
    def n(self) -> int:
        """Number of images."""

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass: (float32 [b, c, h, w], int64 [b]) with b <= size.

        With a generator (CPU) the order and the augmentation are drawn from it; without one the
        images come in order and as they are.
        """


class InMemory:
    """A `Source` that holds all images; augment: one of AUGMENTS, for the shuffled passes.

    "shift": each image moved by up to 2 pixels either way, zeros come in; "crop-flip": the same
    with 4 pixels, and mirrored with probability 1/2.
    """

    def __init__(self, split: Split, augment: str = "none") -> None:
        if augment not in AUGMENTS:
            raise UsageError(f"augment {augment!r} must be one of {', '.join(AUGMENTS)}")
        self.images, self.labels = split
        self.augment = augment

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.labels)

    def to(self, device: str) -> InMemory:
        """The same data on `device`."""
        return InMemory(Split(self.images.to(device), self.labels.to(device)), self.augment)

    def batches(
        self, size: int, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Source`."""
        if generator is None:
            for start in range(0, self.n, size):
                yield self.images[start : start + size], self.labels[start : start + size]
            return
        order = torch.randperm(self.n, generator=generator).to(self.labels.device)
        for start in range(0, self.n, size):
            rows = order[start : start + size]
            yield self._augmented(self.images[rows], generator), self.labels[rows]

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.augment == "none":
            return images
        flips = self.augment == "crop-flip"
        return shifted(images, CROP_PAD if flips else SHIFT, flips, generator)


def shifted(images: Tensor, most: int, flips: bool, generator: torch.Generator) -> Tensor:
    """Each image moved by -most..most pixels in both directions, zeros coming in.

    images: float32 [n, c, h, w]; flips: mirror each with probability 1/2 as well.
    """
    moves = torch.randint(2 * most + 1, (2, len(images)), generator=generator)
    mirrored = torch.rand(len(images), 1, generator=generator) < 0.5 if flips else None
    return moved(images, moves, most, mirrored)


def moved(images: Tensor, moves: Tensor, most: int, mirrored: Tensor | None = None) -> Tensor:
    """Each image moved by moves - most pixels, zeros coming in.

    images: float32 [n, c, h, w]; moves: int64 [2, n] of rows and columns, 0..2 most; mirrored:
    bool [n, 1], which ones are flipped left to right first.
    """
    n, _, height, width = images.shape
    rows = moves[0, :, None] + torch.arange(height)
    columns = moves[1, :, None] + torch.arange(width)
    if mirrored is not None:
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, (most, most, most, most)).permute(0, 2, 3, 1)
    which = torch.arange(n)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def subset(split: Split, rows: Tensor) -> Split:
    """The images at `rows` (int64), as copies."""
    return Split(split.images[rows], split.labels[rows])


def hold_out(split: Split, n: int, seed: int) -> tuple[Split, Split]:
    """The split without `n` images drawn by `seed`, and those images; raises UsageError."""
    if not 0 < n < len(split.labels):
        raise UsageError(f"cannot hold out {n} of {len(split.labels)} training images")
    order = torch.randperm(
        len(split.labels), generator=torch.Generator().manual_seed(seed ^ 0x5EED)
    )
    return subset(split, order[n:].sort().values), subset(split, order[:n].sort().values)


# --- MNIST ----------------------------------------------------------------------------------------


def load_mnist(folder: Path) -> tuple[Split, Split]:
    """Training and test split from the four idx files in `folder`, plain or .gz.

    Pixels are scaled to 0..1 and not centred, so that an empty pixel carries nothing.
    Raises UsageError for a folder or file that is missing or damaged.
    """
    _check_folder(folder)
    train, test = (_mnist_split(folder, *_MNIST[part]) for part in ("train", "test"))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UsageError(f"{folder}: training and test images differ in size")
    return train, test


def _mnist_split(folder: Path, images_name: str, labels_name: str) -> Split:
    images_path, labels_path = (_one_of(folder, n) for n in (images_name, labels_name))
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise UsageError(f"{folder}: {len(images)} images in {images_path.name}, but {len(labels)}"
                         f" labels in {labels_path.name}")  # fmt: skip
    _check_labels(labels, labels_path)
    pixels = torch.from_numpy(images).float().div_(255).unsqueeze(1)
    return Split(pixels, torch.from_numpy(labels.astype(np.int64)))


def _one_of(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UsageError(f"{folder}: neither {name} nor {name}.gz is there")


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array in an idx file of unsigned bytes, uint8 with `dimensions` axes; .gz is unpacked.

    Raises UsageError if it is not such a file, or shorter or longer than its header says.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:3] != bytes([0, 0, _IDX_DTYPE]):
                raise UsageError(f"{path}: is not an idx file of bytes")
            if head[3] != dimensions:
                raise UsageError(f"{path}: has {head[3]} dimensions, not {dimensions}")
            shape = tuple(int(v) for v in np.frombuffer(head, ">u4", offset=4))
            size = 1
            for extent in shape:
                size *= extent  # Python integers: no overflow
            if not 0 < size <= MAX_IDX_BYTES:
                raise UsageError(f"{path}: declares {size} bytes, outside 1..{MAX_IDX_BYTES}")
            body = file.read(size + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"{path}: damaged gzip file: {error}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot read it: {error.strerror or error}") from None
    if len(body) != size:
        found = f"{len(body)}" if len(body) < size else "more"
        raise UsageError(f"{path}: declares {size} bytes of data, but holds {found}")
    return np.frombuffer(body, np.uint8).reshape(shape).copy()  # torch wants it writable


# --- CIFAR-10 -------------------------------------------------------------------------------------


def load_cifar10(folder: Path) -> tuple[Split, Split]:
    """Training (five files) and test split of the binary version of CIFAR-10.

    folder: holds data_batch_1.bin to data_batch_5.bin and test_batch.bin, or the subfolder that
    the published archive unpacks to. Each channel is centred and scaled by the mean and standard
    deviation of the training images. Raises UsageError for what is missing or damaged.
    """
    _check_folder(folder)
    if (folder / CIFAR_FOLDER).is_dir():
        folder = folder / CIFAR_FOLDER
    if (folder / "data_batch_1").exists():
        raise UsageError(f"{folder}: holds the Python version of CIFAR-10; give the binary version")
    files = [read_cifar(folder / f"data_batch_{i}.bin") for i in range(1, 6)]
    train = Split(torch.cat([f.images for f in files]), torch.cat([f.labels for f in files]))
    return standardised(train, read_cifar(folder / "test_batch.bin"))


def standardised(train: Split, test: Split) -> tuple[Split, Split]:
    """Each channel centred and scaled by mean and standard deviation of the training images.

    In place.
    """
    mean = train.images.mean(dim=(0, 2, 3), keepdim=True)
    std = train.images.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)
    for split in (train, test):
        split.images.sub_(mean).div_(std)
    return train, test


def read_cifar(path: Path) -> Split:
    """One file of 3,073-byte records; pixels 0..1. Raises UsageError for a damaged one."""
    try:
        size = path.stat().st_size
        if not 0 < size <= MAX_CIFAR_RECORDS * CIFAR_RECORD or size % CIFAR_RECORD:
            raise UsageError(f"{path}: {size} bytes are not whole records of {CIFAR_RECORD}")
        records = np.fromfile(path, np.uint8).reshape(-1, CIFAR_RECORD)
    except FileNotFoundError:
        raise UsageError(f"{path}: is not there") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot read it: {error.strerror}") from None
    _check_labels(records[:, 0], path)
    pixels = torch.from_numpy(records[:, 1:].reshape(-1, *CIFAR_SHAPE)).float().div_(255)
    return Split(pixels, torch.from_numpy(records[:, 0].astype(np.int64)))


def _check_labels(labels: np.ndarray, path: Path) -> None:
    worst = int(labels.max(initial=0))
    if worst > 9:
        raise UsageError(f"{path}: holds the label {worst}, outside 0..9")


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"{folder}: is not a folder with the data")
