"""Weights out of an archive and into a new one, as safetensors; nothing is trained."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from mdlzip.archive.bodies import LEARNED
from mdlzip.archive.reader import ArchiveReader
from mdlzip.callbacks import OnProgress
from mdlzip.codec.decode import open_source
from mdlzip.codec.encode import compress
from mdlzip.codec.fitting import load_weights
from mdlzip.codec.options import CompressOptions, CompressReport
from mdlzip.corpus import STDIN
from mdlzip.errors import UsageError
from mdlzip.fileio import check_output, checked_path, open_output, plain_errors
from mdlzip.limits import DEFAULT_MEMORY_BYTES, READ_BLOCK_BYTES
from mdlzip.networks.none import NoNetwork
from mdlzip.quantised.memory import weights_memory_bytes
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.resources import check_memory
from mdlzip.symbols.layout import Layout


def read_network(
    src: str | Path, *, memory: int = DEFAULT_MEMORY_BYTES, allow_slow: bool = False
) -> tuple[IntegerNetwork, Layout]:
    """The network and the cut of a learned archive; UsageError if another method was used."""
    with open_source(src) as (file, total):
        reader = ArchiveReader(file, total)
        if reader.body is not LEARNED:
            raise UsageError(f"{src}: has no weights, it was kept as {reader.body.label}")
        if isinstance(reader.config, NoNetwork):
            raise UsageError(f"{src}: has no weights, the experts are alone in it")
        return load_weights(reader, memory, allow_slow=allow_slow), reader.layout


def export_weights(
    src: str | Path,
    dst: str | Path,
    *,
    force: bool = False,
    memory: int = DEFAULT_MEMORY_BYTES,
    allow_slow: bool = False,
) -> None:
    """Write an archive's weights as a safetensors file of COO tensors; appears whole or not.

    dst: path, or "-" for stdout. Raises UsageError if nothing was learned, and as `decompress`.
    """
    from mdlzip.archive.exchange import export_safetensors

    source, path = checked_path(src, "src"), checked_path(dst, "dst")
    target = None if str(dst) == STDIN else path
    if target is not None:
        check_output(target, source=None if str(src) == STDIN else source, force=force)
    network, layout = read_network(src, memory=memory, allow_slow=allow_slow)
    check_memory(weights_memory_bytes(network.config, nnz=network.nnz), memory)
    with tempfile.TemporaryDirectory(prefix="mdlzip-") as folder:
        draft = Path(folder) / "weights.safetensors"
        export_safetensors(
            network, draft, chunk_size=layout.chunk_size, group_chunks=layout.group_chunks
        )
        with (
            open_output(target, force=force, seekable=False) as out,
            draft.open("rb") as file,
        ):
            while block := file.read(READ_BLOCK_BYTES):
                out.write(block)
            out.commit()


def import_weights(
    weights: str | Path,
    src: str | Path,
    dst: str | Path | None = None,
    options: CompressOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> CompressReport:
    """Code `src` with the weights of a safetensors file and the chunk size stated there."""
    from mdlzip.archive.exchange import import_safetensors

    path = checked_path(weights, "weights")
    if dst is not None:
        target = checked_path(dst, "dst")
        if target.exists() and path.exists() and path.samefile(target):
            raise UsageError(f"{dst}: output and weights are the same file; choose another with -o")
    options = options or CompressOptions()
    with plain_errors(f"{weights}: cannot read"):
        network, chunk_size, group_chunks = import_safetensors(path, options.memory)
    options = replace(options, chunk_size=chunk_size, group_chunks=group_chunks)
    return compress(src, dst, options, on_progress=on_progress, network=network)
