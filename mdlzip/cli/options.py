"""Options that several commands share; typer builds the parser and the help from them.

Single options are annotated types. Those that belong together are dataclasses, which a command
takes as one parameter (`cli.bundles`); the ones that say how to compress also know their part of
`CompressOptions`, so that each option is named, checked and translated in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdlzip.cli.progress import check_mode
from mdlzip.cli.values import (
    check_device,
    check_exclusive,
    parse_duration,
    parse_path,
    parse_size,
)

if TYPE_CHECKING:
    from mdlzip.codec import CompressOptions

Files = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE]...",
        show_default=False,
        help="One or more files; - or none reads standard input.",
    ),
]
RegularFiles = Annotated[list[str], typer.Argument(metavar="FILE...", help="Regular files.")]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="OUT", help="Output file (one FILE)."),
]
Stdout = Annotated[bool, typer.Option("--stdout", "-c", help="Write to standard output.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite; allow a terminal.")]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify",
        help="Decode the archive and compare before it gets its name.",
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
        help="Most memory that decoding may need, such as 512MiB, 2G or 1.5GiB.",
    ),
]
MEMORY = "2GiB"  # the default of every command
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="NAME", envvar="MDLZIP_DEVICE", help="auto, cpu, cuda or cuda:N."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting laid over all others; may be repeated.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-D",
        metavar="MODEL",
        help="Code with this model file, or the one called so in the model folder.",
    ),
]
Lines = Annotated[
    bool,
    typer.Option("--lines", help="Each line is a record, to be coded by itself."),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="l0 method: rl1, drr, drr-o, pmmp, fpp, admm or none. [default: the preset's]",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of everything random.")]
AllowSlow = Annotated[
    bool,
    typer.Option("--allow-slow", help="Decode what costs time out of proportion to its size."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[
    int,
    typer.Option("--verbose", "-v", count=True, help="Print more; -vv shows tracebacks."),
]
ProgressMode = Annotated[
    str,
    typer.Option(
        "--progress",
        metavar="MODE",
        help="auto, always, never or json (lines on stderr).",
    ),
]


@dataclass(frozen=True)
class Voice:
    """What is printed."""

    as_json: Json = False
    quiet: Quiet = False
    verbose: Verbose = 0


@dataclass(frozen=True)
class Display(Voice):
    """What is printed, also meanwhile. Raises UsageError for an unknown mode of progress."""

    progress: ProgressMode = "auto"

    def __post_init__(self) -> None:
        check_mode(self.progress)

    def is_silent(self) -> bool:
        """Whether nothing but errors is printed to standard error."""
        return self.quiet and self.progress in ("auto", "never")


@dataclass(frozen=True)
class Source:
    """What becomes of the source. Raises UsageError for a contradiction."""

    keep: Annotated[bool, typer.Option("--keep", "-k", help="Keep the source (the default).")] = (
        False
    )
    remove: Annotated[bool, typer.Option("--rm", help="Remove the source after success.")] = False

    def __post_init__(self) -> None:
        check_exclusive({"--keep": self.keep or None, "--rm": self.remove or None})


@dataclass(frozen=True)
class Place:
    """Where to compute. Raises UsageError for a device that is unknown or not there."""

    device: Device = "auto"
    threads: Threads = None

    def __post_init__(self) -> None:
        check_device(self.device)

    def chosen(self) -> Mapping[str, Any]:
        """Fields of `CompressOptions`; also keywords of the functions that decode."""
        return {"device": self.device, "threads": self.threads}


@dataclass(frozen=True)
class Machine(Place):
    """Where to compute and how much memory decoding may take."""

    memory: Memory = MEMORY

    def chosen(self) -> Mapping[str, Any]:
        """As `Place.chosen`, with memory in bytes."""
        return {**super().chosen(), "memory": parse_size(self.memory)}


@dataclass(frozen=True)
class Decoding(Machine):
    """As `Machine`, for reading archives that may come from anyone."""

    allow_slow: AllowSlow = False
    model: Model = None

    def chosen(self) -> Mapping[str, Any]:
        """As `Machine.chosen`."""
        return {**super().chosen(), "allow_slow": self.allow_slow, "model": self.model}


@dataclass(frozen=True)
class CpuPlace(Place):
    """As `Place`, for work that a GPU does not make faster."""

    device: Device = "cpu"


@dataclass(frozen=True)
class Effort:
    """How long to train. Raises UsageError for more than one answer."""

    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="Time for the whole job, such as 90s, 10m, 1h30m or 1d.",
        ),
    ] = None
    level: Annotated[
        int | None,
        typer.Option(
            "--level",
            min=1,
            max=9,
            metavar="N",
            help="Effort from 1 to 9 in place of a budget; also as -1 to -9.",
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            min=1,
            metavar="N",
            help="Training steps in place of a budget; the same on every machine.",
        ),
    ] = None

    def __post_init__(self) -> None:
        check_exclusive({"--budget": self.budget, "--level": self.level, "--steps": self.steps})

    def chosen(self) -> Mapping[str, Any]:
        """Fields of `CompressOptions`."""
        budget_s = None if self.budget is None else parse_duration(self.budget)
        return {"budget_s": budget_s, "level": self.level, "steps": self.steps}


@dataclass(frozen=True)
class Settings:
    """What to train."""

    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="Named model size.")
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", parser=parse_path, metavar="TOML", help="Settings laid over the preset."
        ),
    ] = None
    overrides: Overrides = None
    chunk_size: Annotated[
        str | None,
        typer.Option(
            "--chunk-size",
            metavar="SIZE",
            help="Bytes that follow one another in a chunk, or auto for what suits the file."
            " [default: 512; 4096 in the context solid]",
        ),
    ] = None

    def chosen(self) -> Mapping[str, Any]:
        """Fields of `CompressOptions`."""
        return {
            "preset": self.preset,
            "config_file": self.config,
            "overrides": tuple(self.overrides or ()),
            "chunk_size": _chunk_size(self.chunk_size),
        }


def _chunk_size(text: str | None) -> int | str | None:
    return text if text in (None, "auto") else parse_size(text)


@dataclass(frozen=True)
class Recipe(Settings):
    """What to train, and how to cut and to draw."""

    method: Method = None
    group_chunks: Annotated[
        int | None,
        typer.Option(
            "--group-chunks",
            min=1,
            metavar="N",
            help="Chunks per group, the unit of random access. [default: about 64 KiB]",
        ),
    ] = None
    context: Annotated[
        str,
        typer.Option(
            "--context",
            metavar="NAME",
            help="What is known beside a chunk's own past: chunk (nothing), group, reference,"
            " solid or auto.",
        ),
    ] = "auto"
    access: Annotated[
        str | None,
        typer.Option(
            "--access",
            metavar="TIME",
            help="What a first read of a part may take, such as 5s. [default: all is decoded up to"
            " 16 MiB, 2 MiB beyond]",
        ),
    ] = None
    seed: Seed = 0

    def chosen(self) -> Mapping[str, Any]:
        """Fields of `CompressOptions`."""
        more = {name: getattr(self, name) for name in ("method", "group_chunks", "context", "seed")}
        more["access_s"] = None if self.access is None else parse_duration(self.access)
        return {**super().chosen(), **more}


@dataclass(frozen=True)
class Training:
    """Checkpoints and records of the training."""

    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False
    work_dir: Annotated[
        Path | None,
        typer.Option(
            "--work-dir",
            parser=parse_path,
            metavar="DIR",
            help="Folder for checkpoints. [default: hidden, beside the output]",
        ),
    ] = None
    metrics: Annotated[
        Path | None,
        typer.Option(
            "--metrics",
            parser=parse_path,
            metavar="FILE",
            help="Write metrics as JSON lines, those of all FILEs.",
        ),
    ] = None

    def chosen(self) -> Mapping[str, Any]:
        """Fields of `CompressOptions`."""
        return {"resume": self.resume, "work_dir": self.work_dir, "metrics": self.metrics}


def compress_options(
    *bundles: Effort | Settings | Place | Training,
    **more: Any,
) -> CompressOptions:
    """The codec's options from the bundles of a command and its own fields."""
    from mdlzip.codec import CompressOptions

    fields = {name: value for bundle in bundles for name, value in bundle.chosen().items()}
    return CompressOptions(**fields, **more)
