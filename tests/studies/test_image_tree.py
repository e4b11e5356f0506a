"""CIFAR-10 as images: a folder and tar files give the same, once decoded it is kept."""

from __future__ import annotations

import io
import os
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mdlzip.errors import UsageError
from mdlzip.studies.classifiers import image_tree
from mdlzip.studies.classifiers.image_tree import is_tree, load_tree

CLASSES = [f"class-{i}" for i in range(10)]


def packed(seed: int, kind: str = "PNG", size: tuple[int, int] = (32, 32)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def files() -> dict[str, bytes]:
    """Two training images and one test image of each class."""
    found = {}
    for i, name in enumerate(CLASSES):
        found[f"train/{name}/0001.png"] = packed(3 * i)
        found[f"train/{name}/0000.jpg"] = packed(3 * i + 1, "JPEG")
        found[f"test/{name}/0000.png"] = packed(3 * i + 2)
    return found


def write_folder(root: Path, found: dict[str, bytes]) -> Path:
    for name, data in found.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_tar(path: Path, found: dict[str, bytes], mode: str = "w:xz", top: str = "") -> Path:
    """In an order of its own, as tar files have."""
    names = random.Random(1).sample(sorted(found), len(found))
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in names:
            member = tarfile.TarInfo(top + name)
            member.size = len(found[name])
            archive.addfile(member, io.BytesIO(found[name]))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_folder_and_tar_file_are_the_same(tmp_path: Path, mode: str) -> None:
    folder = write_folder(tmp_path / "tree", files() | {"train/class-0/README": b"no image"})
    tar = write_tar(tmp_path / "t", files(), mode, top="./cifar/")
    assert is_tree(folder) and is_tree(tar) and not is_tree(tmp_path)
    for one, other in zip(load_tree(folder), load_tree(tar), strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
    train, test = load_tree(tar)
    assert train.images.shape == (20, 3, 32, 32) and test.images.shape == (10, 3, 32, 32)
    assert train.labels.tolist() == [i for i in range(10) for _ in range(2)]
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert torch.equal(train.images[1], torch.from_numpy(pixels).permute(2, 0, 1) / 255)


def test_pixels_are_kept_for_the_same_source_only(tmp_path: Path) -> None:
    tar, cache = write_tar(tmp_path / "t.tar.xz", files()), tmp_path / "out" / "images"
    first, _ = load_tree(tar, cache)
    before = tar.stat()
    tar.write_bytes(b"x" * before.st_size)  # only its place, size and time are looked at
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert torch.equal(load_tree(tar, cache)[0].images, first.images)
    os.utime(tar, ns=(0, 0))
    with pytest.raises(UsageError, match="no whole tar file"):
        load_tree(tar, cache)
    cache.write_bytes(b"damaged")
    write_tar(tar, files())
    assert torch.equal(load_tree(tar, cache)[0].images, first.images)
    assert sorted(p.name for p in cache.parent.iterdir()) == ["images"]


def test_an_image_that_comes_is_noticed(tmp_path: Path) -> None:
    folder, cache = write_folder(tmp_path / "tree", files()), tmp_path / "images"
    assert len(load_tree(folder, cache)[0].labels) == 20
    write_folder(folder, {"train/class-4/0002.png": packed(99)})
    assert len(load_tree(folder, cache)[0].labels) == 21


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train/class-3/0001.png": packed(1, size=(32, 33))}, "33 x 32 pixels"),
        ({"test/class-3/0000.png": b"text"}, "is not an image"),
        ({"test/class-3/0000.png": packed(1)[:200]}, "damaged"),
        ({"train/class-a/0.png": packed(1)}, "the same ten classes .train: 11, test: 10"),
        ({"test/class-3/0000.png": bytes((1 << 20) + 1)}, "more than 1,048,576 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("tar", [False, True])
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, change: dict[str, bytes], message: str, tar: bool
) -> None:
    found = files() | change
    path = write_tar(tmp_path / "t", found) if tar else write_folder(tmp_path / "t", found)
    with pytest.raises(UsageError, match=message) as caught:
        load_tree(path)
    assert "\n" not in str(caught.value)


def test_a_tar_file_with_a_name_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = files()
    tar = write_tar(tmp_path / "t", found, "w")
    with tarfile.open(tar, "a") as archive:
        member = tarfile.TarInfo("again/train/class-0/0001.png")
        member.size = len(found["train/class-0/0001.png"])
        archive.addfile(member, io.BytesIO(found["train/class-0/0001.png"]))
    with pytest.raises(UsageError, match=r"train/class-0/0001\.png twice"):
        load_tree(tar)
    monkeypatch.setattr(image_tree, "MAX_CIFAR_RECORDS", 12)
    with pytest.raises(UsageError, match="more than 12 images"):
        load_tree(tar)
