"""Small data sets in the forms of the published ones, for the tests of the classifier studies."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mdlzip.studies.classifiers.datasets import Split
from mdlzip.studies.classifiers.recipes import Recipe
from mdlzip.studies.classifiers.run import Job, Problem, Result, memory_problem, run_once

IMAGES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
LABELS = {"train": "train-labels-idx1-ubyte", "test": "t10k-labels-idx1-ubyte"}
NET = "lenet-300-100"
QUICK = Recipe(
    batch=50, epochs=20, window=10, rounds=3, round_epochs=3, final_epochs=6, held_out=100,
    most=0.5, least=0.1, drop=2.0, give_up=20.0,
)  # fmt: skip
SHORT = replace(QUICK, epochs=3, rounds=2, round_epochs=1, final_epochs=1, code=False)


def idx_bytes(array: np.ndarray) -> bytes:
    """`array` (uint8) as an idx file."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def blobs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 28, 28], a bright square whose place is the class, and noise; labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 10
    images = rng.integers(0, 60, (n, 28, 28))
    for i, label in enumerate(labels):
        top, left = 4 + 11 * (label // 5), 1 + 5 * (label % 5)
        images[i, top : top + 6, left : left + 5] += 150
    return images.astype(np.uint8), labels.astype(np.uint8)


def blob_split(n: int, seed: int) -> Split:
    """The same as tensors, pixels 0..1."""
    images, labels = blobs(n, seed)
    pixels = torch.from_numpy(images).float().div(255).unsqueeze(1)
    return Split(pixels, torch.from_numpy(labels.astype(np.int64)))


def write_mnist(
    folder: Path, n_train: int = 400, n_test: int = 200, *, packed: bool = True
) -> None:
    """The four files of MNIST with blobs in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, n, seed in (("train", n_train, 1), ("test", n_test, 2)):
        images, labels = blobs(n, seed)
        for name, array in ((IMAGES[part], images), (LABELS[part], labels)):
            data = idx_bytes(array)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (folder / name).write_bytes(data)


def write_cifar(folder: Path, n: int = 4) -> np.ndarray:
    """The six files of CIFAR-10 with `n` random records each; the records of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    first = None
    for name in names:
        records = rng.integers(0, 256, (n, 3073)).astype(np.uint8)
        records[:, 0] = rng.integers(0, 10, n)
        records.tofile(folder / name)
        first = records if first is None else first
    assert first is not None
    return first


def write_tree(root: Path, classes: int = 3, n: int = 4, side: int = 40) -> None:
    """train/ and val/ with `classes` folders of `n` noisy JPEG images of one colour each."""
    from PIL import Image

    rng = np.random.default_rng(4)
    for part in ("train", "val"):
        for c in range(classes):
            folder = root / part / f"n{c:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(n):
                pixels = rng.integers(0, 60, (side, side + 8, 3))
                pixels[..., c % 3] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.jpeg")


def silent(phase: str, done: float, total: float, note: str) -> None:
    """Progress that is only checked."""
    assert 0 < done <= total and "\n" not in phase + note


def blob_problem(recipe: Recipe = QUICK, seed: int = 0) -> Problem:
    """500 blobs to train on, 100 of them held out, and 200 to test with."""
    train, test = blob_split(500, 1), blob_split(200, 2)
    return memory_problem(NET, 10, train, test, recipe, seed, "cpu")


def run(method: str, alpha: float, recipe: Recipe = QUICK, seed: int = 0) -> Result:
    """A whole run of LeNet-300-100 on blobs."""
    return run_once(blob_problem(recipe, seed), recipe, Job(method, alpha, seed), silent)
