"""Readers of MNIST, CIFAR-10 and image folders: what they give, and one line for any damage."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mdlzip.errors import UsageError
from mdlzip.studies.classifiers.datasets import (
    CIFAR_RECORD,
    InMemory,
    Split,
    hold_out,
    load_cifar10,
    load_mnist,
    read_cifar,
    read_idx,
    shifted,
)
from mdlzip.studies.classifiers.image_folder import (
    FolderSource,
    ImageFolder,
    augmented,
    class_names,
    jittered,
    random_box,
)
from mdlzip.studies.classifiers.imagenet import folder_problem
from mdlzip.studies.classifiers.recipes import Recipe
from tests.studies.classifier_tools import (
    IMAGES,
    LABELS,
    blob_split,
    blobs,
    idx_bytes,
    write_cifar,
    write_mnist,
    write_tree,
)

LABEL_FILE, IMAGE_FILE = LABELS["train"], IMAGES["train"]


def one_line(error: pytest.ExceptionInfo[UsageError], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read(tmp_path: Path, packed: bool) -> None:
    write_mnist(tmp_path, 30, 20, packed=packed)
    train, test = load_mnist(tmp_path)
    images, labels = blobs(30, 1)
    assert train.images.shape == (30, 1, 28, 28) and len(test.labels) == 20
    assert np.array_equal((train.images[:, 0] * 255).round().numpy(), images)
    assert np.array_equal(train.labels.numpy(), labels)
    assert float(train.images.max()) <= 1


def damage_magic(data: bytes) -> bytes:
    return b"\1" + data[1:]


def damage_axes(data: bytes) -> bytes:
    return data[:3] + b"\2" + data[4:]


def damage_huge(data: bytes) -> bytes:
    return data[:4] + b"\xff" * 12 + data[16:]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (damage_magic, "not an idx file"),
        (damage_axes, "dimensions"),
        (damage_huge, "outside"),
        (lambda data: data[:-1], "holds"),
        (lambda data: data + b"\0", "more"),
        (lambda data: data[:7], "not an idx file"),
        (lambda data: b"", "not an idx file"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_idx(
    tmp_path: Path, change: Callable[[bytes], bytes], word: str, packed: bool
) -> None:
    data = change(idx_bytes(blobs(10, 0)[0]))
    path = tmp_path / ("x.gz" if packed else "x")
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(UsageError) as error:
        read_idx(path, 3)
    one_line(error, str(path), word)


@pytest.mark.parametrize("cut", [12, -4, -40])
def test_truncated_or_false_gzip(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx_bytes(blobs(10, 0)[0]))[:cut])
    with pytest.raises(UsageError) as error:
        read_idx(path, 3)
    one_line(error, "damaged gzip")
    path.write_bytes(idx_bytes(blobs(10, 0)[0]))
    with pytest.raises(UsageError) as error:
        read_idx(path, 3)
    one_line(error, "damaged gzip")


def test_mnist_that_does_not_fit_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        load_mnist(tmp_path / "nowhere")
    one_line(error, "nowhere")
    write_mnist(tmp_path, 30, 20, packed=False)
    (tmp_path / LABEL_FILE).write_bytes(idx_bytes(np.zeros(29)))
    with pytest.raises(UsageError) as error:
        load_mnist(tmp_path)
    one_line(error, "30 images", "29 labels")
    (tmp_path / LABEL_FILE).write_bytes(idx_bytes(np.full(30, 10)))
    with pytest.raises(UsageError) as error:
        load_mnist(tmp_path)
    one_line(error, "label 10")
    (tmp_path / IMAGE_FILE).unlink()
    with pytest.raises(UsageError) as error:
        load_mnist(tmp_path)
    one_line(error, IMAGE_FILE)


def test_cifar_is_read(tmp_path: Path) -> None:
    records = write_cifar(tmp_path / "cifar-10-batches-bin")
    train, test = load_cifar10(tmp_path)
    assert train.images.shape == (20, 3, 32, 32) and test.images.shape == (4, 3, 32, 32)
    assert train.labels[:4].tolist() == records[:, 0].tolist()
    raw = read_cifar(tmp_path / "cifar-10-batches-bin" / "data_batch_1.bin")
    assert float(raw.images[1, 2, 3, 5]) == pytest.approx(
        records[1, 1 + 2 * 1024 + 3 * 32 + 5] / 255
    )
    assert torch.allclose(train.images.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(train.images.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-4)


def test_damaged_cifar(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    path = tmp_path / "data_batch_3.bin"
    good = path.read_bytes()
    for data, word in (
        (good[:-1], "records"),
        (b"", "records"),
        (b"\x0a" + good[1:], "label 10"),
        (good + bytes(CIFAR_RECORD - 1), "records"),
    ):
        path.write_bytes(data)
        with pytest.raises(UsageError) as error:
            load_cifar10(tmp_path)
        one_line(error, str(path), word)
    path.unlink()
    with pytest.raises(UsageError) as error:
        load_cifar10(tmp_path)
    one_line(error, "not there")
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02.")  # how the Python version begins
    with pytest.raises(UsageError) as error:
        load_cifar10(tmp_path)
    one_line(error, "binary version")


def test_batches_cover_the_data_once_and_follow_the_generator() -> None:
    split = blob_split(50, 0)
    source = InMemory(Split(split.images, torch.arange(50)))

    def order(seed: int | None) -> list[int]:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return [int(v) for _, labels in source.batches(16, generator) for v in labels]

    assert order(None) == list(range(50))
    assert sorted(order(1)) == list(range(50))
    assert order(1) == order(1) != order(2)


def test_hold_out_parts_the_data() -> None:
    split = Split(torch.rand(30, 1, 2, 2), torch.arange(30))
    rest, held = hold_out(split, 7, seed=3)
    assert len(held.labels) == 7
    assert sorted(rest.labels.tolist() + held.labels.tolist()) == list(range(30))
    assert torch.equal(held.images, split.images[held.labels])
    with pytest.raises(UsageError):
        hold_out(split, 30, seed=3)


def test_shift_and_flip_move_whole_images() -> None:
    images = torch.zeros(200, 2, 9, 9)
    images[:, 0, 4, 4], images[:, 1, 4, 3] = 1.0, 2.0
    out = shifted(images, 2, True, torch.Generator().manual_seed(0))
    assert out.shape == images.shape and torch.equal(out.sum(dim=(2, 3)), images.sum(dim=(2, 3)))
    rows, columns = (out[:, 0] == 1).nonzero()[:, 1], (out[:, 0] == 1).nonzero()[:, 2]
    assert set(rows.tolist()) == set(columns.tolist()) == {2, 3, 4, 5, 6}
    offsets = (out[:, 1] == 2).nonzero()[:, 2] - columns
    assert set(offsets.tolist()) == {-1, 1}  # the second channel moves along; mirrored or not
    assert torch.equal((out[:, 1] == 2).nonzero()[:, 1], rows)
    with pytest.raises(UsageError):
        InMemory(blob_split(10, 0), augment="twist")


def test_image_folder(tmp_path: Path) -> None:
    write_tree(tmp_path)
    names = class_names(tmp_path / "train")
    data = ImageFolder(tmp_path / "train", names, 32, training=False)
    assert len(data) == 12 and names == ["n000", "n001", "n002"]
    image, label = data[5]
    assert image.shape == (3, 32, 32) and int(label) == 1 == int(image.mean(dim=(1, 2)).argmax())
    moved = ImageFolder(tmp_path / "train", names, 32, training=True, seed=1)
    again = ImageFolder(tmp_path / "train", names, 32, training=True, seed=1)
    assert torch.equal(moved[3][0], again[3][0])
    again.epoch = 1
    assert not torch.equal(moved[3][0], again[3][0])
    batches = list(FolderSource(moved, workers=1).batches(5, torch.Generator().manual_seed(0)))
    assert [len(labels) for _, labels in batches] == [5, 5, 2]


def test_damaged_image_trees(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        class_names(tmp_path / "nowhere")
    one_line(error, "nowhere")
    write_tree(tmp_path, n=2)
    names = class_names(tmp_path / "train")
    bad = tmp_path / "train" / "n001" / "1.jpeg"
    good = bad.read_bytes()
    data = ImageFolder(tmp_path / "train", names, 32, training=True)
    for content in (b"no image", good[: len(good) // 2], b""):
        bad.write_bytes(content)
        with pytest.raises(UsageError) as error:
            list(FolderSource(data).batches(2))
        one_line(error, str(bad))
    with pytest.raises(UsageError) as error:
        folder_problem("resnet-50", tmp_path, Recipe(held_out=6), 0)
    one_line(error, "hold out 6")
    for path in (tmp_path / "val").rglob("*.jpeg"):
        path.unlink()
    with pytest.raises(UsageError) as error:
        folder_problem("resnet-50", tmp_path, Recipe(held_out=2), 0)
    one_line(error, "no images")


def test_folder_problem_holds_out_training_images(tmp_path: Path) -> None:
    write_tree(tmp_path)
    problem = folder_problem("resnet-50", tmp_path, Recipe(held_out=3), 0, size=32)
    assert (problem.train.n, problem.plain.n, problem.valid.n, problem.test.n) == (9, 9, 3, 12)
    assert isinstance(problem.train, FolderSource) and isinstance(problem.valid, FolderSource)
    kept = {path for path, _ in problem.train.dataset.files}
    assert not kept & {path for path, _ in problem.valid.dataset.files}


def test_random_crops_stay_inside() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = []
    for _ in range(300):
        left, top, right, bottom = random_box(50, 30, generator)
        assert 0 <= left < right <= 50 + 1e-9 and 0 <= top < bottom <= 30 + 1e-9
        shares.append((right - left) * (bottom - top) / 1500)
    assert 0.08 <= min(shares) < 0.15 and max(shares) > 0.7
    left, top, right, bottom = random_box(1000, 10, generator)  # no crop of 4:3 is large enough
    assert right - left <= 1000 and bottom - top <= 10


def test_jitter_keeps_the_range_and_changes_the_colour() -> None:
    from PIL import Image

    pixels = torch.rand(3, 8, 8)
    out = jittered(pixels, torch.Generator().manual_seed(1))
    assert 0 <= float(out.min()) and float(out.max()) <= 1 and not torch.equal(out, pixels)
    grey = jittered(torch.full((3, 8, 8), 0.5), torch.Generator().manual_seed(1))
    assert torch.allclose(grey[0], grey[2], atol=1e-6)  # grey stays grey
    image = Image.new("RGB", (20, 10), (10, 20, 30))
    assert augmented(image, 16, torch.Generator().manual_seed(0)).shape == (3, 16, 16)
