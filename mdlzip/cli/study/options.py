"""What the commands of the studies share: the check for their extra, options, the end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.console import info, result_json
from mdlzip.cli.failures import guarded
from mdlzip.cli.terminal import check_study_folder
from mdlzip.cli.values import check_exclusive, parse_path
from mdlzip.errors import UsageError

if TYPE_CHECKING:
    from mdlzip.studies.run_log import RunLog

_EXTRA = {"matplotlib": "matplotlib", "PIL": "Pillow"}  # module: package; see pyproject.toml

Folder = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        parser=parse_path,
        metavar="DIR",
        help="Folder for the runs, tables and plots.",
    ),
]
Seeds = Annotated[
    int, typer.Option("--seeds", min=1, metavar="N", help="Runs of each setting, seeds 0..N-1.")
]
Methods = Annotated[
    str,
    typer.Option("--method", metavar="LIST", help="l0 methods, such as rl1,drr,drr-o,pmmp."),
]


def study_command(command: Callable[..., int | None]) -> Callable[..., None]:
    """A command of the command line that needs the extra `studies`; else as `guarded`.

    Only a run needs the packages: the help is there without them.
    """

    @functools.wraps(command)
    def checked(**given: object) -> int | None:
        missing = [name for module, name in _EXTRA.items() if util.find_spec(module) is None]
        if missing:
            raise UsageError(
                f"the studies need {' and '.join(missing)}: pip install 'mdlzip[studies]'"
            )
        return command(**given)

    return guarded(checked)


@dataclass(frozen=True)
class Log:
    """What becomes of runs that are there already. Raises UsageError for a contradiction."""

    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the runs that DIR holds already.")
    ] = False
    force: opt.Force = False

    def __post_init__(self) -> None:
        check_exclusive({"--resume": self.resume or None, "--force": self.force or None})

    def open(self, folder: Path) -> RunLog:
        """The log of runs in `folder`, which is made if it is missing."""
        from mdlzip.studies.run_log import RunLog

        return RunLog(folder, resume=self.resume, force=self.force)

    def check_folder(self, folder: Path, inputs: Sequence[Path] = ()) -> None:
        """Refuse a folder that the study could not use; see `terminal.check_study_folder`."""
        check_study_folder(folder, inputs, again=self.resume or self.force)


def tell(
    found: dict[str, Any],
    display: opt.Display,
    show: Callable[[], None],
    folder: Path | None = None,
) -> None:
    """Print what a study has found: as JSON, or by `show`; then where its files are."""
    if display.as_json:
        result_json(found)
    elif not display.quiet:
        show()
    if folder is not None:
        info(f"written: {folder}", quiet=display.quiet)
