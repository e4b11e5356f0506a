"""Giving a finished file its name, on file systems that can link and on those that cannot."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
from hashlib import sha256
from pathlib import Path

PART_SUFFIX = ".part"
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
# What file systems and sandboxes without hard links answer: FAT, exFAT, SMB, FUSE, Android.
_NO_LINKS = frozenset(
    (
        errno.EPERM,
        errno.EACCES,
        errno.EOPNOTSUPP,
        errno.ENOSYS,
        errno.EMLINK,
        errno.EXDEV,
        errno.ENOENT,
        errno.EINVAL,
    )
)


def hidden_stem(path: Path) -> str:
    """First part of the names of files kept beside `path`: short, whatever the length of its name.

    A name may fill all the bytes that a file system allows, so nothing can be added to it.
    """
    return f".mdlzip-{sha256(os.fsencode(path.name)).hexdigest()[:16]}"


def hidden_part(path: Path) -> Path:
    """A fresh hidden name beside `path`."""
    return path.parent / f"{hidden_stem(path)}.{secrets.token_hex(4)}{PART_SUFFIX}"


def links_work(folder: int, flags: int) -> bool:
    """Whether a file without a name can be made in an open folder and be given a name later.

    Tried out on an empty file, since a finished file that gets no name would be lost. flags: for
    opening one, O_TMPFILE included.
    """
    name = hidden_part(Path("probe")).name
    try:
        fd = os.open(".", flags, 0o600, dir_fd=folder)
        try:
            # dst_dir_fd makes Python use linkat, which alone can follow the link in /proc.
            os.link(fd_path(fd), name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(fd)
        os.unlink(name, dir_fd=folder)
    except OSError:
        return False  # a hidden part is tried next, and tells what is really wrong
    return True


def fd_path(fd: int) -> str:
    """Name under which the system knows an open file."""
    return f"/proc/self/fd/{fd}"


def move_without_replacing(part: Path, path: Path) -> None:
    """Rename `part` to `path`; FileExistsError if `path` is there.

    By a hard link, by a rename that refuses to replace, or by claiming the name first: the last
    one leaves an empty file if the process is killed between two system calls.
    """
    try:
        os.link(part, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        os.unlink(part)
        return
    if _rename_noreplace(part, path):
        return
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _rename_noreplace(part: Path, path: Path) -> bool:
    """renameat2 with RENAME_NOREPLACE; False where the system or file system lacks it."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    before, after = os.fsencode(part), os.fsencode(path)
    if rename(_AT_FDCWD, before, _AT_FDCWD, after, _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        raise FileExistsError(code, os.strerror(code), str(path))
    if code in _NO_LINKS and code != errno.ENOENT:
        return False
    raise OSError(code, os.strerror(code), str(path))


def try_name(path: Path) -> None:
    """Raise the system's OSError if `path` is a name that its folder cannot hold.

    A hidden file of nearly the same name is made and removed: a name may have too many bytes, or
    characters that the file system does not take.
    """
    os.stat(path.parent)
    with contextlib.suppress(FileNotFoundError):
        os.lstat(path)  # ENAMETOOLONG is known without writing anything
    name = path.name
    longest = len(os.fsencode(name))
    probe = f".{secrets.token_hex(4)}{name}"
    while len(os.fsencode(probe)) > max(longest, 16):
        probe = probe[:9] + probe[10:]
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path.parent / probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(path.parent / probe)
