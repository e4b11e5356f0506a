"""`mdlzip list`: what an archive says of itself, without decoding it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdlzip.cli import options as opt
from mdlzip.cli.batch import Batch, Outcome
from mdlzip.cli.console import result, table
from mdlzip.cli.failures import guarded
from mdlzip.cli.terminal import check_input, files_or_stdin
from mdlzip.cli.values import parse_size
from mdlzip.report import printable

if TYPE_CHECKING:
    from mdlzip.codec import ArchiveInfo

_S_PER_OPERATION = 1.5e-10  # of `decode_operations`, on one core, roughly
_HEADERS = ("archive", "method", "original", "compressed", "ratio", "bits/byte")


@guarded
def list_archives(
    files: opt.Files = None,
    *,
    threads: opt.Threads = None,
    memory: opt.Memory = opt.MEMORY,
    voice: opt.Voice,
) -> int:
    """Show sizes and method; with -v the ledger, the model and the memory needed to decode."""
    from mdlzip import codec
    from mdlzip.report import info_json

    limit = parse_size(memory)
    found: list[tuple[str, ArchiveInfo]] = []

    def one(file: str) -> Outcome:
        check_input(file, archive=True)
        info = codec.inspect(file, memory=limit, threads=threads)
        found.append((file, info))
        return Outcome(info_json(file, info))

    code = Batch(files_or_stdin(files), voice, key="archives").run(one)
    if found and not voice.as_json and not voice.quiet:
        result(table(_HEADERS, [_row(file, info) for file, info in found], "<<>>>>"))
        if voice.verbose:
            for file, info in found:
                result(f"\n{printable(file)}\n{_details(info)}")
    return code


def _reads(info: ArchiveInfo) -> str:
    """What it costs to read a byte anywhere."""
    rate = (info.decode_operations or 0) / max(info.original_bytes, 1) * _S_PER_OPERATION
    first, later = info.first_read_bytes or 0, info.later_read_bytes or 0
    if not later:
        return (
            f"a first read decodes up to {first:,} bytes (about {first * rate:.1g} s), a later one"
            " none that were decoded before"
        )
    return (
        f"a first read decodes {first:,} bytes (about {first * rate:.1g} s), a later one"
        f" {later:,} (about {later * rate:.1g} s)"
    )


def _row(file: str, info: ArchiveInfo) -> tuple[str, ...]:
    original, archive = info.original_bytes, info.archive_bytes
    ratio = f"{archive / original:.2%}" if original else "-"
    bits = f"{8 * archive / original:.4f}" if original else "-"
    return file, info.method, f"{original:,}", f"{archive:,}", ratio, bits


def _details(info: ArchiveInfo) -> str:
    from mdlzip.cli.show import figures_table, ledger_table
    from mdlzip.report import info_figures, settings

    parts = [ledger_table(info.ledger, info.original_bytes)]
    if info.context is not None:
        parts.append(figures_table(info_figures(info)))
        parts.append(f"context: {info.context}; {_reads(info)}")
        parts.append("model: " + ", ".join(f"{k} {v}" for k, v in settings(info).items()))
    if info.card is not None and info.card.held_out_bits_per_byte is not None:
        parts.append(
            f"model {printable(info.card.name)}: trained on {info.card.trained_bytes:,} bytes, on"
            f" others {info.card.held_out_bits_per_byte:.4f} bits per byte"
        )
    if info.model_id is not None:
        size = (
            "which is not kept here" if info.model_bytes is None else f"{info.model_bytes:,} bytes"
        )
        parts.append(f"model {info.model_id} (not in the file): {size}")
    if info.name is not None:
        parts.append(f"name: {printable(info.name)}")
    parts.append(f"sha256 of the original: {info.sha256}")
    need = f"memory to decode: {-(-info.decode_memory_bytes // 2**20):,} MiB"
    if info.decode_threads is not None:
        need += f" with {info.decode_threads} thread" + "s" * (info.decode_threads > 1)
    parts.append(need)
    if info.decode_operations is not None:
        each = info.decode_operations / info.original_bytes
        parts.append(f"work to decode: {info.decode_operations:.2g} operations, {each:.2g} a byte")
    return "\n".join(p for p in parts if p)
