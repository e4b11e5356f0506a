"""Paths as callers of the library give them."""

from __future__ import annotations

import os
from pathlib import Path

from mdlzip.errors import UsageError, WrongType


def checked_path(value: object, what: str) -> Path:
    """`value` as a path; `what` names the argument in errors.

    Raises WrongType for anything but str and os.PathLike, UsageError for a name that is empty or
    holds a null byte.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise WrongType(
            f"{what} must be a path as str or os.PathLike, not {type(value).__name__};"
            ' give an open file by its name, standard input or output as "-"'
        )
    if not value:
        raise UsageError(f"{what}: the name is empty")
    if "\0" in value:
        raise UsageError(f"{what}: a name cannot hold a null byte")
    return Path(value)
