"""Every error a user may meet, each with its exit code and one plain sentence."""

from __future__ import annotations


class MdlzipError(Exception):
    """Base of all expected failures; the command line prints it and exits with its code."""

    exit_code: int = 1


class UsageError(MdlzipError):
    """The call itself is wrong: options, presets, paths."""

    exit_code = 2


class CorruptArchive(MdlzipError):
    """The archive is damaged or was never one; the message names the field and its offset."""

    exit_code = 3


class UnsupportedVersion(MdlzipError):
    """The archive needs a newer mdlzip."""

    exit_code = 4


class LimitExceeded(MdlzipError):
    """The archive asks for more memory or size than the user allows."""

    exit_code = 5


class OutputExists(MdlzipError):
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
