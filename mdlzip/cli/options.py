"""Options that several commands share, as annotated types; typer builds the parser from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help="One or more files; - reads standard input."),
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="OUT", help="Output file (one FILE)."),
]
Stdout = Annotated[
    bool,
    typer.Option("--stdout", "-c", help="Write to standard output."),
]
Force = Annotated[
    bool,
    typer.Option("--force", "-f", help="Overwrite; allow a terminal."),
]
Keep = Annotated[
    bool,
    typer.Option("--keep", "-k", help="Keep the source (the default)."),
]
Remove = Annotated[
    bool,
    typer.Option("--rm", help="Remove the source after success."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        help="Print more; -vv shows tracebacks.",
    ),
]
ProgressMode = Annotated[
    str,
    typer.Option(
        "--progress",
        metavar="MODE",
        help="auto, always, never or json (lines on stderr).",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        envvar="MDLZIP_DEVICE",
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
        help="CPU threads; the decoded bytes never depend on it. [default: all]",
    ),
]
Memory = Annotated[
    str,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Most memory that decoding may need, such as 512MiB or 8GiB.",
    ),
]
AllowSlow = Annotated[
    bool,
    typer.Option("--allow-slow", help="Decode what costs time out of proportion to its size."),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="TIME",
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
        help="Effort from 1 to 9 in place of a budget; also as -1 to -9.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=0,
        metavar="N",
        help="Training steps in place of a budget; the same on every machine.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option("--preset", metavar="NAME", help="Named model size."),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="TOML", help="Settings laid over the preset."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting laid over all others; may be repeated.",
    ),
]
ChunkSize = Annotated[
    str,
    typer.Option(
        "--chunk-size",
        metavar="SIZE",
        help="Bytes predicted from one another alone.",
    ),
]
GroupChunks = Annotated[
    int | None,
    typer.Option(
        "--group-chunks",
        min=1,
        metavar="N",
        help="Chunks per group, the unit of random access. [default: about 64 KiB]",
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="l0 method: rl1, drr, drr-o, pmmp, fpp, admm or none. [default: the preset's]",
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="FORM",
        help="coded, or coo for the plain form the paper counts.",
    ),
]
Seed = Annotated[
    int,
    typer.Option("--seed", min=0, metavar="N", help="Seed of everything random."),
]
StudyFolder = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="DIR", help="Folder for the runs, tables and plots."),
]
StudyResume = Annotated[
    bool, typer.Option("--resume", help="Go on with the runs that DIR holds already.")
]
Seeds = Annotated[
    int, typer.Option("--seeds", min=1, metavar="N", help="Runs of each setting, seeds 0..N-1.")
]
