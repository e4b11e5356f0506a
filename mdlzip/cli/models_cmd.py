"""`mdlzip models`: the folder in which models are found by archives that name them."""

from __future__ import annotations

from typing import Annotated

import typer

from mdlzip.cli import options as opt
from mdlzip.cli.batch import Batch, Outcome
from mdlzip.cli.console import result, result_json, table
from mdlzip.cli.failures import guarded
from mdlzip.report import document, kept_model_json, printable

models = typer.Typer(
    name="models",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Keep models where archives that name them find them.",
)
_HEADERS = ("id", "name", "bytes", "bits/byte", "for")


@models.command("add")
@guarded
def add(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Model files.")],
    *,
    voice: opt.Voice,
) -> int:
    """Copy model files into the model folder."""
    from mdlzip.codec import models as kept

    def one(file: str) -> Outcome:
        model = kept.add_model(kept.named_model(file))
        return Outcome(kept_model_json(model), f"{printable(file)}: kept as {model.path}")

    return Batch(files, voice, key="models").run(one)


@models.command("list")
@guarded
def list_models(*, voice: opt.Voice) -> int:
    """Show the models in the model folder."""
    from mdlzip.codec import models as kept

    found = list(kept.kept_models())
    if voice.as_json:
        result_json(document("models", [kept_model_json(model) for model in found]))
        return 0
    if not found:
        result(f"no models in {kept.model_folder()}")
        return 0
    rows = []
    for model in found:
        bits = model.card.held_out_bits_per_byte if model.card else None
        kind = "records" if model.card and model.card.records else "files"
        row = model.model_id.hex()[:16], printable(model.name), f"{model.size:,}"
        rows.append((*row, "-" if bits is None else f"{bits:.4f}", kind))
    result(table(_HEADERS, rows, "<<>><"))
    return 0


@models.command("remove")
@guarded
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names or ids.")],
    *,
    voice: opt.Voice,
) -> int:
    """Delete models from the model folder; archives that name them need them elsewhere then."""
    from mdlzip.codec import models as kept

    def one(name: str) -> Outcome:
        model = kept.remove_model(name)
        return Outcome(kept_model_json(model), f"{printable(name)}: removed")

    return Batch(names, voice, key="models").run(one)


@models.command("path")
@guarded
def path(*, voice: opt.Voice) -> int:
    """Print the model folder."""
    from mdlzip.codec import models as kept

    folder = str(kept.model_folder())
    if voice.as_json:
        result_json({"schema": 1, "path": folder})
    else:
        result(folder)
    return 0
