"""Owner, permissions and time of an output: those of its source, never readable by more people."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_READ_WRITE = 0o666


@dataclass(frozen=True)
class Metadata:
    """What an output takes over.

    mode: permission bits 0..0o777, None for those of a new file; mtime_ns: None for now;
    uid, gid: None where the source has no owner (a pipe).
    """

    mode: int | None = None
    mtime_ns: int | None = None
    uid: int | None = None
    gid: int | None = None

    def apply(self, fd: int) -> None:
        """Set all on an open file of mode 0600; a file system may refuse each.

        Owner and group come first, as gzip and xz do it. If the group cannot be kept, group and
        others both get what both had: the new group may hold people who might not read the source.
        """
        mode = new_file_mode() if self.mode is None else self.mode & 0o777
        if not _give(fd, self.gid):
            both = (mode >> 3) & mode & 0o007
            mode = (mode & 0o700) | both << 3 | both
        if self.uid is not None and self.uid != os.fstat(fd).st_uid:
            with contextlib.suppress(OSError):
                os.fchown(fd, self.uid, -1)
        with contextlib.suppress(OSError):
            os.fchmod(fd, mode)
        if self.mtime_ns is not None:
            with contextlib.suppress(OSError, OverflowError):
                os.utime(fd, ns=(self.mtime_ns, self.mtime_ns))


def _give(fd: int, gid: int | None) -> bool:
    """Whether the file now belongs to group `gid`; None asks for nothing."""
    if gid is None or os.fstat(fd).st_gid == gid:
        return True
    with contextlib.suppress(OSError):
        os.fchown(fd, -1, gid)
    return os.fstat(fd).st_gid == gid


def restored_mode(stored: int, archive: int | None) -> int:
    """Permissions of a decompressed file.

    stored: what the archive says, any bits. archive: permission bits of the archive's own file,
    None if it came through a pipe. A stranger's archive must not make a file that the umask
    forbids, and a private archive must not make a public file.
    """
    mode = stored & new_file_mode(0o777)
    if archive is None:
        return mode
    readable = archive & _READ_WRITE
    runnable = (readable & 0o444) >> 2
    return mode & (readable | runnable | 0o700)


def new_file_mode(asked: int = _READ_WRITE) -> int:
    """`asked` less the umask, which is read without changing it where the system allows that."""
    try:
        status = Path("/proc/self/status").read_text()
        umask = int(status.split("\nUmask:")[1].split()[0], 8)
    except (OSError, IndexError, ValueError):
        umask = os.umask(0o077)
        os.umask(umask)
    return asked & ~umask
