"""The ImageNet problem (C.2.3) from a tree train/CLASS/*.jpeg and val/CLASS/*.jpeg."""

from __future__ import annotations

from pathlib import Path

import torch

from mdlzip.errors import UsageError
from mdlzip.studies.classifiers.image_folder import (
    FolderSource,
    ImageFolder,
    check_size,
    class_names,
)
from mdlzip.studies.classifiers.recipes import Recipe
from mdlzip.studies.classifiers.run import Problem


def folder_problem(
    net: str, root: Path, recipe: Recipe, seed: int, *, size: int = 224, workers: int = 0
) -> Problem:
    """Training images without `recipe.held_out` of them (drawn by `seed`), those, and val/.

    size: pixels a side after the crop; the classes are the subfolders of train/.
    Raises UsageError for a missing folder, too few images or a size that the net cannot take.
    """
    check_size(size)
    classes = class_names(root / "train")
    train = ImageFolder(root / "train", classes, size, training=True, seed=seed)
    if not recipe.held_out < len(train):
        raise UsageError(f"cannot hold out {recipe.held_out} of {len(train)} training images")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed ^ 0x5EED))
    files = [train.files[i] for i in order.tolist()]
    held, rest = files[: recipe.held_out], sorted(files[recipe.held_out :])

    def plain(part: str, chosen: list[tuple[Path, int]] | None) -> FolderSource:
        images = ImageFolder(root / part, classes, size, training=False)
        images.files = images.files if chosen is None else chosen
        return FolderSource(images, workers)

    train.files = rest
    return Problem(
        net=net,
        classes=len(classes),
        train=FolderSource(train, workers),
        plain=plain("train", rest),
        valid=plain("train", held),
        test=plain("val", None),
    )
