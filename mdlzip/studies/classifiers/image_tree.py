"""CIFAR-10 as a tree of images, `train/CLASS/*` and `test/CLASS/*`, in a folder or a tar file.

Pillow (extra `studies`) opens the files. That takes longer than reading pixels, so they are kept in
a file beside the results of the study, in safetensors, where no code hides.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mdlzip.errors import UsageError
from mdlzip.studies.classifiers.datasets import CIFAR_SHAPE, MAX_CIFAR_RECORDS, Split
from mdlzip.studies.classifiers.image_folder import SUFFIXES

PARTS = ("train", "test")
_WHAT = ("images", "labels")
CACHE_NAME = "images.safetensors"
N_CLASSES = 10
_MOST_BYTES = 1 << 20  # of a packed image of 32 x 32
_SOURCE = "source"


class _Found(NamedTuple):
    part: str
    name: str  # of the class
    file: str
    data: bytes


def is_tree(path: Path) -> bool:
    """Whether a tar file, or a folder with a part of the tree, is there."""
    return path.is_file() or any((path / part).is_dir() for part in PARTS)


def load_tree(path: Path, cache: Path | None = None) -> tuple[Split, Split]:
    """Training and test split, pixels 0..1 of 32 x 32 images in ten classes by name.

    cache: file that the pixels are read from if it was made from the same source, and are written
    to else; a folder is told by the times of those of its classes, which change with every image
    that comes or goes, a tar file by time and size.
    Raises UsageError in one line for what is missing, damaged or of another size.
    """
    source = _identity(path)
    kept = _read(cache, source) if cache else None
    if kept is None:
        kept = _decoded(path)
        if cache:
            _write(cache, kept, source)
    splits = []
    for part in PARTS:
        pixels = kept[f"{part}_images"].float().div_(255)
        splits.append(Split(pixels, kept[f"{part}_labels"].long()))
    return splits[0], splits[1]


def _identity(path: Path) -> str:
    places = [path]
    if not path.is_file():
        places = sorted(place for part in PARTS for place in (path / part).glob("*/"))
    try:
        found = [(p.stat().st_size, p.stat().st_mtime_ns) for p in places]
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot read it: {error.strerror}") from None
    return f"{path.resolve()} {found}"


def _decoded(path: Path) -> dict[str, Tensor]:
    files = _of_tar(path) if path.is_file() else _of_folder(path)
    pixels: dict[tuple[str, str, str], np.ndarray] = {}
    for found in files:
        key = found.part, found.name, found.file
        if key in pixels:
            raise UsageError(f"{path}: holds {'/'.join(key)} twice")
        if len(pixels) == MAX_CIFAR_RECORDS:
            raise UsageError(f"{path}: holds more than {MAX_CIFAR_RECORDS} images")
        pixels[key] = _pixels(path, found)
    names = {part: sorted({name for p, name, _ in pixels if p == part}) for part in PARTS}
    classes = names["train"]
    if len(classes) != N_CLASSES or names["test"] != classes:
        told = ", ".join(f"{part}: {len(found)}" for part, found in names.items())
        raise UsageError(f"{path}: train and test must hold the same ten classes ({told})")
    out: dict[str, Tensor] = {}
    for part in PARTS:  # by class and name, whatever the order in the source
        keys = sorted(key for key in pixels if key[0] == part)
        out[f"{part}_images"] = torch.from_numpy(np.stack([pixels[key] for key in keys]))
        labels = [classes.index(name) for _, name, _ in keys]
        out[f"{part}_labels"] = torch.tensor(labels, dtype=torch.uint8)
    return out


def _of_folder(path: Path) -> Iterator[_Found]:
    for part in PARTS:
        for file in sorted((path / part).glob("*/*")):
            if file.suffix.lower() in SUFFIXES:
                try:
                    with file.open("rb") as stream:
                        data = stream.read(_MOST_BYTES + 1)
                except OSError as error:
                    raise UsageError(f"{file}: cannot read it: {error.strerror}") from None
                yield _Found(part, file.parent.name, file.name, data)


def _of_tar(path: Path) -> Iterator[_Found]:
    """Nothing is unpacked to the disk; folders above the parts do not matter."""
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                inside = PurePosixPath(member.name)
                if not member.isfile() or len(inside.parts) < 3:
                    continue
                part, name, file = inside.parts[-3:]
                if part in PARTS and inside.suffix.lower() in SUFFIXES:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    yield _Found(part, name, file, stream.read(_MOST_BYTES + 1))
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise UsageError(f"{path}: is no folder and no whole tar file: {error}") from None


def _pixels(path: Path, found: _Found) -> np.ndarray:
    """uint8 (3, 32, 32)."""
    from PIL import Image, UnidentifiedImageError

    name = f"{path}: {found.part}/{found.name}/{found.file}"
    if len(found.data) > _MOST_BYTES:
        raise UsageError(f"{name} has more than {_MOST_BYTES:,} bytes")
    try:
        with Image.open(io.BytesIO(found.data)) as image:
            if image.size != CIFAR_SHAPE[1:]:
                width, height = image.size
                raise UsageError(f"{name} has {width} x {height} pixels, not 32 x 32")
            return np.array(image.convert("RGB"), np.uint8).transpose(2, 0, 1)
    except UnidentifiedImageError:
        raise UsageError(f"{name} is not an image") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UsageError(f"{name} is damaged: {error}") from None


def _read(cache: Path, source: str) -> dict[str, Tensor] | None:
    """What an earlier run has kept of the same source; None if there is nothing whole."""
    try:
        with safe_open(cache, "pt") as file:
            if (file.metadata() or {}).get(_SOURCE) != source:
                return None
            return {f"{p}_{what}": file.get_tensor(f"{p}_{what}") for p in PARTS for what in _WHAT}
    except (OSError, SafetensorError):
        return None


def _write(cache: Path, kept: dict[str, Tensor], source: str) -> None:
    part = cache.with_name(f".{cache.name}.part")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in kept.items()}, part, {_SOURCE: source})
        os.replace(part, cache)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise UsageError(f"{cache}: cannot keep the pixels there: {error}") from None
