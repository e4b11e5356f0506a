"""Options that the studies share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.terminal import check_study_folder
from mdlzip.cli.values import check_exclusive, parse_path

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


@dataclass(frozen=True)
class Log:
    """What becomes of runs that are there already. Raises UsageError for a contradiction."""

    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the runs that DIR holds already.")
    ] = False
    force: opt.Force = False

    def __post_init__(self) -> None:
        check_exclusive({"--resume": self.resume or None, "--force": self.force or None})

    def check_folder(self, folder: Path, inputs: Sequence[Path] = ()) -> None:
        """Refuse a folder that the study could not use; see `terminal.check_study_folder`."""
        check_study_folder(folder, inputs, again=self.resume or self.force)
