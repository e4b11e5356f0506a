"""Whether a file still is the one that was read, up to the moment it is removed."""

from __future__ import annotations

import os
from pathlib import Path

from mdlzip.errors import MdlzipError
from mdlzip.fileio.checks import plain_errors


def same_file(now: os.stat_result, before: os.stat_result) -> bool:
    """Whether two looks at a path found one file."""
    return (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino)


def untouched(now: os.stat_result, before: os.stat_result) -> bool:
    """Whether nothing was written between two looks at one file.

    The time of the last change of the inode cannot be set by a user, unlike that of the content.
    """
    return (now.st_size, now.st_mtime_ns, now.st_ctime_ns) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


def remove_if_same(path: Path, before: os.stat_result) -> None:
    """Unlink `path`, unless it is another file by now or was written to since `before`.

    Raises MdlzipError, which leaves the file where it is.
    """
    with plain_errors(f"{path}: cannot remove"):
        now = os.stat(path)
        if not same_file(now, before):
            raise MdlzipError(f"{path}: was replaced meanwhile, so it is not removed")
        if not untouched(now, before):
            raise MdlzipError(f"{path}: was changed meanwhile, so it is not removed")
        os.unlink(path)


def check_removable(path: Path) -> None:
    """Raise MdlzipError if `path` cannot be removed later; to be called before the work."""
    folder = os.stat(path.parent)
    sticky = folder.st_mode & 0o1000 and os.geteuid() not in (
        0,
        folder.st_uid,
        os.lstat(path).st_uid,
    )
    if sticky or not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        raise MdlzipError(f"{path}: --rm may not remove it: no permission to write {path.parent}")
