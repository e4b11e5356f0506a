"""`mdlzip study NAME`: the studies of the paper, each one command that writes a folder.

These commands belong to the extra `studies`; the compressor neither needs nor imports them.
"""

from __future__ import annotations

import typer

from mdlzip.cli.short_forms import LeveledCommand
from mdlzip.cli.study.classifier import cifar, imagenet, mnist
from mdlzip.cli.study.overhead import overhead
from mdlzip.cli.study.teacher_student import teacher_student
from mdlzip.cli.study.transformer import transformer
from mdlzip.process.settings import prepare_training

study = typer.Typer(
    name="study",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Reproduce the studies of the paper (extra mdlzip[studies]): runs, tables, plots.",
)


@study.callback()
def prepare() -> None:
    """Reproduce the studies of the paper (extra mdlzip[studies]): runs, tables, plots."""
    prepare_training(fixed_steps=True)


study.command("transformer", cls=LeveledCommand)(transformer)
study.command("mnist")(mnist)
study.command("cifar")(cifar)
study.command("imagenet")(imagenet)
study.command("teacher-student")(teacher_student)
study.command("overhead")(overhead)
