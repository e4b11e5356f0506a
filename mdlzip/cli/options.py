"""Options that several commands share, as annotated types; typer builds the parser from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_OUTPUT = "Output"
_EFFORT = "Effort"
_MODEL = "Model"
_MACHINE = "Machine"
_TALK = "Messages"

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help="One or more files; - reads standard input."),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="OUT", rich_help_panel=_OUTPUT, help="Output file (one FILE)."
    ),
]
Stdout = Annotated[
    bool,
    typer.Option("--stdout", "-c", rich_help_panel=_OUTPUT, help="Write to standard output."),
]
Force = Annotated[
    bool,
    typer.Option("--force", "-f", rich_help_panel=_OUTPUT, help="Overwrite; allow a terminal."),
]
Keep = Annotated[
    bool,
    typer.Option("--keep", "-k", rich_help_panel=_OUTPUT, help="Keep the source (the default)."),
]
Remove = Annotated[
    bool,
    typer.Option("--rm", rich_help_panel=_OUTPUT, help="Remove the source after success."),
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=_TALK, help="Print the result as JSON.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel=_TALK, help="Print errors only.")
]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        rich_help_panel=_TALK,
        help="Print more; -vv shows tracebacks.",
    ),
]
ProgressMode = Annotated[
    str,
    typer.Option(
        "--progress",
        metavar="MODE",
        rich_help_panel=_TALK,
        help="auto, always, never or json (lines on stderr).",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        envvar="MDLZIP_DEVICE",
        rich_help_panel=_MACHINE,
        help="auto, cpu or cuda.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-T",
        min=1,
        metavar="N",
        envvar="MDLZIP_THREADS",
        rich_help_panel=_MACHINE,
        help="CPU threads; the decoded bytes never depend on it. [default: all]",
    ),
]
Memory = Annotated[
    str,
    typer.Option(
        "--memory",
        metavar="SIZE",
        rich_help_panel=_MACHINE,
        help="Most memory that decoding may need, such as 512MiB or 8GiB.",
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="TIME",
        rich_help_panel=_EFFORT,
        help="Time for the whole job, such as 90s, 10m or 1h30m.",
    ),
]
Level = Annotated[
    int | None,
    typer.Option(
        "--level",
        min=1,
        max=9,
        metavar="N",
        rich_help_panel=_EFFORT,
        help="Effort from 1 to 9 in place of a budget; also as -1 to -9.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=0,
        metavar="N",
        rich_help_panel=_EFFORT,
        help="Training steps in place of a budget; the same on every machine.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option("--preset", metavar="NAME", rich_help_panel=_MODEL, help="Named model size."),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="TOML", rich_help_panel=_MODEL, help="Settings laid over the preset."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        rich_help_panel=_MODEL,
        help="One setting laid over all others; may be repeated.",
    ),
]
ChunkSize = Annotated[
    str,
    typer.Option(
        "--chunk-size",
        metavar="SIZE",
        rich_help_panel=_MODEL,
        help="Bytes predicted from one another alone.",
    ),
]
GroupChunks = Annotated[
    int | None,
    typer.Option(
        "--group-chunks",
        min=1,
        metavar="N",
        rich_help_panel=_MODEL,
        help="Chunks per group, the unit of random access. [default: about 64 KiB]",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        rich_help_panel=_MODEL,
        help="Sparsity method: rl1, drr or none. [default: the preset's]",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="FORM",
        rich_help_panel=_MODEL,
        help="coded, or coo for the plain form the paper counts.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, metavar="N", rich_help_panel=_MODEL, help="Seed of everything random."
    ),
]
