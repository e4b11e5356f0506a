"""Model files: archives whose network others use by its id instead of holding one.

Any learned archive of a short original may be one; `mdlzip train` makes them on purpose. The id is
the SHA-256 of the file. The original is what the experts read before anything else.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from mdlzip.archive.bodies import LEARNED
from mdlzip.archive.card import Card, unpack_card
from mdlzip.archive.reader import ArchiveReader
from mdlzip.codec.fitting import Fit, Machine, best_fit, load_own
from mdlzip.codec.units import decoded_blocks
from mdlzip.errors import (
    CorruptArchive,
    IsFolder,
    LimitExceeded,
    MdlzipError,
    MissingFile,
    MissingModel,
    OutputExists,
    UsageError,
)
from mdlzip.fileio import open_output, plain_errors
from mdlzip.limits import MAX_MODEL_TEXT_BYTES, READ_BLOCK_BYTES
from mdlzip.networks.none import NoNetwork
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.quantised.work import check_operations
from mdlzip.resources import check_memory
from mdlzip.symbols.layout import Layout

MODEL_SUFFIX = ".mdlm"
FOLDER_VARIABLE = "MDLZIP_MODELS"
_LEAST_PREFIX = 4  # hexadecimal digits of an id
_KEPT = 4  # models of a process that are not decoded again

_loaded: OrderedDict[bytes, IntegerNetwork] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class ModelFile:
    """A model file as its headers show it; layout: how its text was cut. card: None for none."""

    path: Path
    model_id: bytes
    size: int
    layout: Layout
    card: Card | None

    @property
    def text_bytes(self) -> int:
        """Of its original."""
        return self.layout.total_bytes

    @property
    def name(self) -> str:
        """What `-D` may call it: the name on its card, or that of the file."""
        if self.card is not None and self.card.name:
            return self.card.name
        return self.path.name.removesuffix(MODEL_SUFFIX)


def model_folder() -> Path:
    """Where models are looked for: MDLZIP_MODELS, or mdlzip/models in the user's data folder.

    Raises UsageError if no home folder is known.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME")
    if data and Path(data).is_absolute():
        return Path(data) / "mdlzip" / "models"
    try:
        return Path.home() / ".local" / "share" / "mdlzip" / "models"
    except RuntimeError:
        raise UsageError(f"there is no home folder: set {FOLDER_VARIABLE}") from None


def survey_model(path: Path) -> ModelFile:
    """What a model file says of itself; nothing is decoded. Raises UsageError if it is none."""
    with plain_errors(f"{path}: cannot read"):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsFolder(f"{path}: is a folder, not a model")
        if not stat.S_ISREG(mode):  # to open a pipe could wait for ever
            raise UsageError(f"{path}: is not a regular file")
        with path.open("rb") as file:
            total = file.seek(0, os.SEEK_END)
            file.seek(0)
            digest = sha256()
            while block := file.read(READ_BLOCK_BYTES):
                digest.update(block)
            file.seek(0)
            reader = ArchiveReader(file, total)
            _check_is_model(path, reader)
    return ModelFile(path, digest.digest(), total, reader.layout, unpack_card(reader.card))


def _check_is_model(path: Path, reader: ArchiveReader) -> None:
    if reader.body is not LEARNED or isinstance(reader.config, NoNetwork):
        raise UsageError(f"{path}: is no model, there is no network in it")
    if reader.model_id:
        raise UsageError(f"{path}: is no model, its own network is in another file")
    if reader.header.size > MAX_MODEL_TEXT_BYTES:
        raise UsageError(
            f"{path}: is no model, its original has {reader.header.size:,} bytes;"
            f" {MAX_MODEL_TEXT_BYTES:,} are the most"
        )


def read_model(model: ModelFile, machine: Machine) -> IntegerNetwork:
    """The network of a model file, with its text and its id.

    Raises CorruptArchive, LimitExceeded, MdlzipError.
    """
    with _lock:
        known = _loaded.get(model.model_id)
        if known is not None:
            _loaded.move_to_end(model.model_id)
    if known is not None:
        return known
    machine, path = replace(machine, device="cpu", model=None), model.path
    try:
        check_memory(model.size, machine.memory)
        with plain_errors(f"{path}: cannot read"):
            data = path.read_bytes()
        if sha256(data).digest() != model.model_id:
            raise CorruptArchive("was changed while it was being read")
        network = _decoded(ArchiveReader(io.BytesIO(data), len(data)), machine, model.model_id)
    except CorruptArchive as error:
        raise CorruptArchive(f"{path}: {error}") from error
    except LimitExceeded as error:
        raise LimitExceeded(f"{path}: {error}") from error
    with _lock:
        _loaded[model.model_id] = network
        while len(_loaded) > _KEPT:
            _loaded.popitem(last=False)
    return network


def _decoded(reader: ArchiveReader, machine: Machine, model_id: bytes) -> IntegerNetwork:
    network, fit = load_own(reader, machine)
    digest, text = sha256(), bytearray()
    with closing(decoded_blocks(reader, network, fit)) as blocks:
        for block in blocks:
            digest.update(block)
            text += block
    if digest.digest() != reader.digest:
        raise CorruptArchive("footer: SHA-256 of the decoded bytes differs from the stored one")
    return replace(network, text=bytes(text), model_id=model_id)


def load(reader: ArchiveReader, machine: Machine) -> tuple[IntegerNetwork, Fit]:
    """The network of an archive, its own or the model's that it names, and how to decode with it.

    The reader stands before the weights, or behind the name of the model. Raises MissingModel,
    CorruptArchive, and LimitExceeded before anything that is too large is allocated.
    """
    if not reader.model_id:
        return load_own(reader, machine)
    model = locate(reader.model_id, machine.model)
    network = read_model(model, machine)
    if network.config != reader.config:
        raise CorruptArchive("configuration section: is not that of the model")
    if not machine.allow_slow:
        check_operations(reader.config, reader.layout, model.size, context=reader.context)
    fit = best_fit(reader, machine, 0, network.vocabulary, len(network.text))
    check_memory(fit.memory_bytes, machine.memory)
    return network, fit


def locate(model_id: bytes, given: Path | None = None) -> ModelFile:
    """A model by its id; `given` is the only one that is looked at, if the user named one.

    Raises MissingModel with what to do; CorruptArchive if the file in the model folder is not what
    its name says.
    """
    wanted = model_id.hex()
    if given is not None:
        found = survey_model(given)
        if found.model_id != model_id:
            raise MissingModel(
                f"{given}: is model {found.model_id.hex()[:16]}, the archive was made with model"
                f" {wanted[:16]}; give that one with -D"
            )
        return found
    path = model_folder() / (wanted + MODEL_SUFFIX)
    if not path.is_file():
        raise MissingModel(
            f"the archive was made with model {wanted[:16]}, which is not in {model_folder()};"
            " give its file with -D, or keep it there with mdlzip models add FILE"
        )
    kept = _kept(path)
    if kept is None or kept.model_id != model_id:
        raise CorruptArchive(f"{path}: is damaged, its content is not what its name says")
    return kept


def named_model(name: str) -> Path:
    """The file that `-D name` means: a path, or a name or an id of the model folder.

    Raises MissingModel, and UsageError if several are called so.
    """
    path = Path(name)
    if path.exists():
        return path
    if path.name != name or not name:
        raise MissingFile(f"{name}: there is no such file")
    found = [model.path for model in kept_models() if model.name == name]
    if not found and len(name) >= _LEAST_PREFIX and set(name) <= set("0123456789abcdef"):
        found = [model.path for model in kept_models() if model.model_id.hex().startswith(name)]
    if not found:
        raise MissingModel(
            f"{name}: there is neither a file nor a model of that name; mdlzip models list shows"
            " those that are kept"
        )
    if len(found) > 1:
        raise UsageError(f"{name}: {len(found)} models are called so; give an id")
    return found[0]


def chosen_model(model: str | Path | None) -> Path | None:
    """The file that the option `model` of a call means; raises as `named_model`."""
    return None if model is None else named_model(str(model))


def kept_models() -> Iterator[ModelFile]:
    """The models in the model folder, by name of their files; what is none is left out."""
    folder = model_folder()
    if not folder.is_dir():
        return
    yield from filter(None, map(_kept, sorted(folder.glob(f"*{MODEL_SUFFIX}"))))


def _kept(path: Path) -> ModelFile | None:
    """A file of the model folder; None if it is not there, cannot be read, or is no model."""
    try:
        return survey_model(path)
    except MdlzipError:
        return None


def add_model(path: Path) -> ModelFile:
    """Keep a copy of a model in the model folder, under its id; a damaged one is replaced.

    Raises OutputExists if it is there, and whole.
    """
    found = survey_model(path)
    folder = model_folder()
    with plain_errors(f"{folder}: cannot make the model folder"):
        folder.mkdir(0o700, parents=True, exist_ok=True)
    target = folder / (found.model_id.hex() + MODEL_SUFFIX)
    kept = _kept(target)
    if kept is not None and kept.model_id == found.model_id:
        raise OutputExists(f"{path}: the model is kept already, as {target}")
    with (
        plain_errors(f"{path}: cannot read"),
        path.open("rb") as file,
        open_output(target, force=True, seekable=False) as out,
    ):
        while block := file.read(READ_BLOCK_BYTES):
            out.write(block)
        out.commit()
    return replace(found, path=target)


def remove_model(name: str) -> ModelFile:
    """Delete a model from the model folder, by name, id or the beginning of an id."""
    path = named_model(name)
    if path.parent.resolve() != model_folder().resolve():
        raise UsageError(f"{name}: is not in the model folder; delete it as any other file")
    found = survey_model(path)
    with plain_errors(f"{path}: cannot remove"):
        path.unlink()
    return found
