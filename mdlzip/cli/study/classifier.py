"""`mdlzip study mnist`, `cifar`, `imagenet`: tables 6, 1, 2 of the paper, figures 8 and 1b."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.console import result, table
from mdlzip.cli.progress import under_way
from mdlzip.cli.study.options import Folder, Log, Methods, Seeds, study_command, tell
from mdlzip.cli.values import finite, parse_list, parse_path, parse_settings
from mdlzip.errors import UsageError
from mdlzip.process.cores import usable_cores

if TYPE_CHECKING:
    from mdlzip.studies.classifiers.recipes import Recipe
    from mdlzip.studies.classifiers.run import Problem

# Their steps are so small that threads wait for one another longer than they work.
MNIST_NETS = ("lenet-300-100", "lenet-5-caffe")

Data = Annotated[
    Path,
    typer.Option("--data", parser=parse_path, metavar="DIR", help="Folder or file with the data."),
]


@dataclass(frozen=True)
class Runs:
    """Which runs are made."""

    methods: Methods = "rl1,drr"
    alphas: Annotated[
        str | None,
        typer.Option(
            "--alpha",
            metavar="LIST",
            help="Strengths, such as 1e-5,2e-5. [default: of net and method]",
        ),
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            min=1,
            metavar="N",
            help="Epochs of regularised training; all else in proportion. [default: of the net]",
        ),
    ] = None
    settings: opt.Overrides = None


@dataclass(frozen=True)
class _Call:
    """What the three commands share, as it was given."""

    data: Path
    output: Path
    seeds: int
    runs: Runs
    log: Log
    place: opt.Place
    display: opt.Display


@study_command
def mnist(
    *,
    data: Data,
    output: Folder = Path("study-mnist"),
    net: Annotated[
        str, typer.Option("--net", metavar="NAME", help=f"{' or '.join(MNIST_NETS)}.")
    ] = MNIST_NETS[0],
    runs: Runs,
    seeds: Seeds = 3,
    log: Log,
    place: opt.CpuPlace,
    display: opt.Display,
) -> None:
    """Table 6 and Fig. 8 (a, b): LeNets on MNIST. DIR holds the four idx files, plain or .gz."""
    if net not in MNIST_NETS:
        raise UsageError(f"--net {net}: choose one of {', '.join(MNIST_NETS)}")
    call = _Call(data, output, seeds, runs, log, place, display)

    def read(folder: Path) -> tuple[Any, Any]:
        from mdlzip.studies.classifiers.datasets import load_mnist

        return load_mnist(folder)

    _study(net, call, _in_memory(net, data, read))


@study_command
def cifar(
    *,
    data: Data,
    output: Folder = Path("study-cifar"),
    runs: Runs,
    seeds: Seeds = 3,
    log: Log,
    place: opt.Place,
    display: opt.Display,
) -> None:
    """Table 1 and Fig. 1b: VGG-16-512 on CIFAR-10.

    DIR holds the files of the binary version, or images as train/CLASS/* and test/CLASS/*; a tar
    file of those will do, too. Decoded images are kept in the output folder.
    """
    call = _Call(data, output, seeds, runs, log, place, display)

    def read(folder: Path) -> tuple[Any, Any]:
        from mdlzip.studies.classifiers.datasets import load_cifar10, standardised
        from mdlzip.studies.classifiers.image_tree import CACHE_NAME, is_tree, load_tree

        if is_tree(folder):
            return standardised(*load_tree(folder, output / CACHE_NAME))
        return load_cifar10(folder)

    _study("vgg-16-512", call, _in_memory("vgg-16-512", data, read))


@study_command
def imagenet(
    *,
    data: Data,
    output: Folder = Path("study-imagenet"),
    size: Annotated[
        int, typer.Option("--size", metavar="PIXELS", help="Side of the images after the crop.")
    ] = 224,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=0,
            metavar="N",
            help="Processes that read images; 0: none but this. [default: one a core]",
        ),
    ] = None,
    runs: Runs,
    seeds: Seeds = 1,
    log: Log,
    place: opt.Place,
    display: opt.Display,
) -> None:
    """Table 2: ResNet-50 on ImageNet. DIR holds train/CLASS/*.jpeg and val/CLASS/*.jpeg."""
    call = _Call(data, output, seeds, runs, log, place, display)

    readers = usable_cores() if workers is None else workers

    def make(recipe: Recipe, device: str) -> Callable[[int], Problem]:
        from mdlzip.studies.classifiers.imagenet import folder_problem

        def problem(seed: int) -> Problem:
            return folder_problem("resnet-50", data, recipe, seed, size=size, workers=readers)

        problem(0)  # a wrong folder must be refused before training
        return problem

    _study("resnet-50", call, make)


def _in_memory(
    net: str, data: Path, read: Callable[[Path], tuple[Any, Any]]
) -> Callable[[Recipe, str], Callable[[int], Problem]]:
    """The problems of data that fit in memory, which is read when the recipe is known."""

    def make(recipe: Recipe, device: str) -> Callable[[int], Problem]:
        from mdlzip.studies.classifiers.run import memory_problem

        train, test = read(data)
        return lambda seed: memory_problem(net, 10, train, test, recipe, seed, device)

    return make


def _study(net: str, call: _Call, make: Callable[[Recipe, str], Callable[[int], Problem]]) -> None:
    methods = tuple(parse_list(call.runs.methods, str, "--method"))
    alphas = tuple(parse_list(call.runs.alphas, finite, "--alpha"))
    settings = parse_settings(call.runs.settings, "--set")
    call.log.check_folder(call.output, [call.data])

    from mdlzip.process.devices import pick_device
    from mdlzip.studies.classifiers.recipes import RECIPES
    from mdlzip.studies.classifiers.sweep import Sweep, run_sweep, write_summary
    from mdlzip.training.cpu import settled_cpu

    epochs, display = call.runs.epochs, call.display
    recipe = RECIPES[net] if epochs is None else RECIPES[net].scaled(epochs)
    recipe = recipe.laid_over(settings)
    device = pick_device(call.place.device)
    sweep = Sweep(net, recipe, methods, alphas, call.seeds, device)
    with (
        settled_cpu(call.place.threads or (1 if net in MNIST_NETS else None)),
        under_way(display.progress, quiet=display.quiet) as show,
    ):
        problem_of = make(recipe, device)
        runs = run_sweep(sweep, problem_of, call.log.open(call.output), show)
        found = write_summary(sweep, runs, call.output)
    tell(found, display, lambda: _show(found), call.output)


def _show(found: dict[str, Any]) -> None:
    headers = ("method", "alpha", "accuracy %", "error increase", "rate", "non-zeros", "coded B",
               "labels B", "s/epoch")  # fmt: skip
    rows = []
    for row in found["rows"]:
        if row["diverged"] == row["runs"]:
            rows.append((row["method"], f"{row['alpha']:g}", *["diverged"] * 7))
            continue
        rows.append(
            (
                row["method"],
                f"{row['alpha']:g}",
                f"{row['accuracy_percent']:.2f}",
                f"{row['error_increase_points']:+.2f}",
                f"{row['compression_rate']:.1f}",
                f"{math.floor(row['nnz']):,}",
                *(f"{math.floor(n):,}" if n else "" for n in _bytes(row)),
                f"{row['seconds_per_epoch']:.2f}",
            )
        )
    for name, values in found["paper"]["ours"].items():
        increase, rate = values["error_increase_points"], values["compression_rate"]
        rows.append((f"{name}, paper", "", "", f"{increase:+.2f}", f"{rate:g}", *[""] * 4))
    result(f"{found['net']}: medians over the seeds")
    result(table(headers, rows))


def _bytes(row: dict[str, Any]) -> tuple[float, float]:
    """Bytes of the network and of the training labels given it; 0 where they were not counted."""
    return row.get("coded_bytes", 0), row["coded_label_bytes"].get("train", 0)
