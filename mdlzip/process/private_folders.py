"""Folders whose content nobody but this user and root can have written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_WRITE_FOR_OTHERS = 0o022


def private_folder(path: Path, *, check_parents: bool = True, mode: int = 0o700) -> Path | None:
    """The folder, made with `mode` where it is missing; None if it cannot be had or trusted.

    It must be a folder and no link to one, belong to this user or root, and not be writable for
    anybody else; so must every folder above it, unless deletion is restricted there (/tmp): else
    another user could put a folder of his in its place. check_parents: off for places where whoever
    can write could change the program itself. The path returned has no symbolic links in it.
    """
    try:
        parent = path.parent.resolve(strict=True)
        if check_parents and not all(map(_trusted_parent, (parent, *parent.parents))):
            return None
        folder = parent / path.name
        try:
            folder.mkdir(mode)
        except FileExistsError:
            pass
        except OSError:
            return None
        status = folder.lstat()
    except (OSError, RuntimeError, ValueError):  # a loop of links; a NUL in the name
        return None
    trusted = stat.S_ISDIR(status.st_mode) and _ours(status) and not _others_write(status)
    return folder if trusted else None


def can_write(folder: Path) -> bool:
    """Whether files can be made there, as far as permissions tell."""
    return os.access(folder, os.W_OK | os.X_OK)


def read_trusted(path: Path) -> bytes | None:
    """The content of a file in a private folder; None if it is missing or not to be trusted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not _ours(status) or _others_write(status):
            return None
        return file.read()


def _ours(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid())


def _trusted_parent(folder: Path) -> bool:
    status = folder.stat()
    return _ours(status) and (not _others_write(status) or bool(status.st_mode & stat.S_ISVTX))


def _others_write(status: os.stat_result) -> bool:
    """Whether somebody else may write; a group of which this user is the only member is nobody."""
    open_to = status.st_mode & _WRITE_FOR_OTHERS
    return bool(open_to) and not (open_to == stat.S_IWGRP and _only_member(status.st_gid))


def _only_member(group: int) -> bool:
    """Whether the group is the user's own, as systems make it that give every user one."""
    import grp
    import pwd

    try:
        user, members = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    own = user.pw_gid == group and members.gr_name == user.pw_name
    return own and set(members.gr_mem) <= {user.pw_name}
