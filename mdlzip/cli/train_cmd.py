"""`mdlzip train`: many files in, one model file out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.batch import Batch, Outcome
from mdlzip.cli.failures import guarded
from mdlzip.cli.resumable import resumable
from mdlzip.cli.terminal import STDIO, check_output
from mdlzip.cli.values import parse_size
from mdlzip.errors import UsageError
from mdlzip.process.settings import prepare_training
from mdlzip.report import model_json, printable

if TYPE_CHECKING:
    from mdlzip.codec import ModelReport


@guarded
def train(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Files, folders with all in them, patterns in quotes."
        ),
    ],
    *,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="The model file, such as x.mdlm.")
    ],
    lines: opt.Lines = False,
    held_out: Annotated[
        float,
        typer.Option(
            "--held-out",
            min=0.0,
            max=0.5,
            metavar="SHARE",
            help="Share of the data that training does not see, to measure the model on.",
        ),
    ] = 0.05,
    text: Annotated[
        str,
        typer.Option(
            "--text", metavar="SIZE", help="Bytes of the data that go with the model, as they are."
        ),
    ] = "64KiB",
    label: Annotated[
        str | None,
        typer.Option(
            "--label", metavar="NAME", help="What -D may call it. [default: that of the file]"
        ),
    ] = None,
    force: opt.Force = False,
    effort: opt.Effort,
    settings: opt.Settings,
    method: opt.Method = None,
    seed: opt.Seed = 0,
    training: opt.Training,
    machine: opt.Machine,
    display: opt.Display,
) -> int:
    """Train one model on many files that are alike, to compress others and records with.

    Compress with it by -D; `mdlzip models add` keeps it where it is found without.
    """
    prepare_training(fixed_steps=effort.steps is not None)
    if output == STDIO:
        raise UsageError("a model is written to a file: name one with -o")
    check_output(output, force=force, silent=display.is_silent())
    options = opt.compress_options(
        effort,
        settings,
        machine,
        training,
        method=method,
        seed=seed,
        force=force,
        fallback=False,
    )

    def one(target: str) -> Outcome:
        from mdlzip import codec

        with resumable(display) as (on_progress, should_stop):
            report = codec.train_model(
                list(sources),
                target,
                options,
                lines=lines,
                held_out=held_out,
                text_bytes=parse_size(text),
                name=label,
                on_progress=on_progress,
                should_stop=should_stop,
            )
        return Outcome(model_json(report), _text(report), report.path)

    return Batch([output], display, key="models").run(one)


def _text(report: ModelReport) -> str:
    kind = f"{report.n_records:,} records of " if report.n_records else ""
    files = f"{report.n_files:,} file" + "s" * (report.n_files != 1)
    lines = [
        f"{printable(str(report.path))}: model {report.model_id[:16]}, {report.model_bytes:,}"
        f" bytes, {report.preset}; {report.text_bytes:,} bytes of text go with it",
        f"trained on {report.trained_bytes:,} bytes ({kind}{files}):"
        f" {report.trained_bits_per_byte:.4f} bits per byte",
    ]
    if report.held_out_bits_per_byte is not None:
        lines.append(
            f"on {report.held_out_bytes:,} bytes that it has not seen:"
            f" {report.held_out_bits_per_byte:.4f} bits per byte"
        )
    return "\n".join([*lines, report.advice])
