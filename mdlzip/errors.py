"""Every error a user may meet, each with its exit code and one plain sentence.

Errors about files are the matching OSError as well, and a value of a wrong type is a TypeError, so
that callers of the library need not know our classes to catch them.
"""

from __future__ import annotations


class MdlzipError(Exception):
    """Base of all expected failures; the command line prints it and exits with its code."""

    exit_code: int = 1


class UsageError(MdlzipError):
    """The call itself is wrong: options, presets, paths."""

    exit_code = 2


class WrongType(UsageError, TypeError):
    """An argument is of a type that cannot be meant."""


class FileProblem(MdlzipError, OSError):
    """The system refused something about a file; also the OSError it raised.

    cause: gives `errno`, `strerror` and `filename`; None leaves them None.
    """

    def __init__(self, message: str, cause: OSError | None = None) -> None:
        super().__init__(message)
        if cause is not None:
            self.errno, self.strerror, self.filename = cause.errno, cause.strerror, cause.filename

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class MissingFile(FileProblem, FileNotFoundError):
    """There is no such file."""


class NotPermitted(FileProblem, PermissionError):
    """The system does not permit it."""


class IsFolder(FileProblem, UsageError, IsADirectoryError):
    """A file is needed, and this is a folder."""

    exit_code = 2


class CorruptArchive(MdlzipError):
    """The archive is damaged or was never one; the message names the field and its offset."""

    exit_code = 3


class NotAnArchive(CorruptArchive):
    """The first bytes are not those of an archive."""


class MissingModel(MdlzipError):
    """The model that an archive names, or the user, is nowhere to be found."""

    exit_code = 8


class UnsupportedVersion(MdlzipError):
    """The archive needs a newer mdlzip."""

    exit_code = 4


class LimitExceeded(MdlzipError):
    """The archive asks for more memory or size than the user allows."""

    exit_code = 5


class OutputExists(FileProblem, FileExistsError):
    """The output is already there and `--force` was not given."""

    exit_code = 6


class SourceChanged(MdlzipError):
    """The input is not what it was when the work began."""


class VerifyFailed(MdlzipError):
    """The freshly written archive did not decode to the input; nothing was kept."""

    exit_code = 7


class ExportRefused(MdlzipError):
    """The trained model breaks a bound of the integer predictor."""


class NoGain(MdlzipError):
    """Training was given up: the model will not become smaller than a general method."""


class Interrupted(MdlzipError):
    """Stopped at the user's wish after a checkpoint; `--resume` continues."""

    exit_code = 130


def file_problem(message: str, cause: OSError) -> FileProblem:
    """The error, to be raised, that says `message` and is an OSError of the kind of `cause`."""
    pairs = (
        (FileNotFoundError, MissingFile),
        (PermissionError, NotPermitted),
        (IsADirectoryError, IsFolder),
    )
    ours = (ours for theirs, ours in pairs if isinstance(cause, theirs))
    return next(ours, FileProblem)(message, cause)
