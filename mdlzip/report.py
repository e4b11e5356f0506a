"""Where every byte of an archive went, as rows for tables and JSON. No printing here.

Every command's JSON is one document {"schema": 1, KEY: [entry, ...]} with one entry a FILE, in
order; KEY is "archives" for `list` and "files" elsewhere. The entry of a FILE that failed is
{"file", "error", "exit_code"}, every other one lacks "error".
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdlzip.codec import (
        ArchiveInfo,
        CompressReport,
        DecompressReport,
        ModelReport,
        SalvageReport,
    )
    from mdlzip.codec.models import ModelFile

SCHEMA = 1
LEDGER_ORDER = (
    "header",
    "metadata",
    "configuration",
    "positions",
    "values",
    "scales",
    "data",
    "index",
    "checksums",
)
WEIGHT_LINES = ("positions", "values", "scales")
PAPER_BYTES_PER_NNZ = 4
COO_BYTES_PER_NNZ = 12  # int32 row, int32 column, float32 value
_TRAINING_KEYS = (
    "float_bits_per_byte",
    "qat_bits_per_byte",
    "integer_bits_per_byte",
    "steps",
    "train_seconds",
    "step_seconds",
    "alpha",
    "online_bytes",
)

Number = int | float


@dataclass(frozen=True)
class LedgerRow:
    """One line of the ledger.

    share: fraction of the archive, 0..1; bits_per_byte: bits of this line per original byte
    (0 for an empty original).
    """

    name: str
    bytes: int
    share: float
    bits_per_byte: float


def ledger_rows(ledger: Mapping[str, int], original_bytes: int) -> list[LedgerRow]:
    """The ledger's lines in a fixed order, unknown ones last, and their sum as `total`."""
    known = [name for name in LEDGER_ORDER if name in ledger]
    names = known + sorted(set(ledger) - set(known))
    total = sum(ledger.values())
    counted = [(name, ledger[name]) for name in names] + [("total", total)]
    return [
        LedgerRow(name, size, _ratio(size, total), _ratio(8 * size, original_bytes))
        for name, size in counted
    ]


def weight_bytes(ledger: Mapping[str, int]) -> int:
    """Bytes of the stored model: positions, values and scales."""
    return sum(ledger.get(line, 0) for line in WEIGHT_LINES)


def paper_rule_bytes(ledger: Mapping[str, int], nnz: int) -> int:
    """Size by the paper's rule: 4 bytes per non-zero weight and the data.

    The rule counts no index bytes: a file of this size could not be decoded. Our data bytes are
    those on disk, the first byte of every chunk included; the paper uses a mean test loss.
    """
    return PAPER_BYTES_PER_NNZ * nnz + ledger.get("data", 0)


def coo_rule_bytes(ledger: Mapping[str, int], nnz: int) -> int:
    """Size with plain COO weights: two 4-byte indices and a 4-byte value each, and the data."""
    return COO_BYTES_PER_NNZ * nnz + ledger.get("data", 0)


def figures(
    *,
    original_bytes: int,
    archive_bytes: int,
    ledger: Mapping[str, int],
    nnz: int | None = None,
    n_weights: int | None = None,
    training: Mapping[str, Number] | None = None,
    encode_s: float | None = None,
    decode_s: float | None = None,
) -> dict[str, Number]:
    """All figures that can be told from what is given; units are in the keys.

    training: what the trainer measured (`float_bits_per_byte`, `qat_bits_per_byte`,
    `integer_bits_per_byte`, `steps`, `train_seconds`, `step_seconds`), any of them absent.
    encode_s, decode_s: seconds for the whole file, training excluded.
    """
    out: dict[str, Number] = {
        "original_bytes": original_bytes,
        "archive_bytes": archive_bytes,
        "ratio": _ratio(archive_bytes, original_bytes),
        "bits_per_byte": _ratio(8 * archive_bytes, original_bytes),
        "data_bits_per_byte": _ratio(8 * ledger.get("data", 0), original_bytes),
    }
    if nnz is not None:
        out |= _weight_figures(ledger, nnz, n_weights)
    out |= {k: training[k] for k in _TRAINING_KEYS if k in (training or {})} if training else {}
    out |= _rounding_cost(out)
    for name, seconds in (("encode", encode_s), ("decode", decode_s)):
        if seconds:
            out[f"{name}_seconds"] = seconds
            out[f"{name}_kb_per_s"] = original_bytes / 1000 / seconds
    return out


def _weight_figures(
    ledger: Mapping[str, int], nnz: int, n_weights: int | None
) -> dict[str, Number]:
    size = weight_bytes(ledger)
    out: dict[str, Number] = {"nnz": nnz, "weight_bytes": size}
    if n_weights:
        out |= {"n_weights": n_weights, "density": nnz / n_weights}
    if nnz:
        out |= {"bytes_per_nnz": size / nnz, "bits_per_nnz": 8 * size / nnz}
    out["paper_rule_bytes"] = paper_rule_bytes(ledger, nnz)
    out["coo_rule_bytes"] = coo_rule_bytes(ledger, nnz)
    return out


def _rounding_cost(measured: Mapping[str, Number]) -> dict[str, Number]:
    """How much longer the integer code is than the two float models' codes, in per cent."""
    integer = measured.get("integer_bits_per_byte")
    if not integer:
        return {}
    pairs = {
        "qat_bits_per_byte": "integer_over_qat_percent",
        "float_bits_per_byte": "integer_over_float_percent",
    }
    return {new: 100 * (integer / measured[k] - 1) for k, new in pairs.items() if measured.get(k)}


def rows_as_json(rows: list[LedgerRow]) -> list[dict[str, object]]:
    """Ledger rows as plain dictionaries, ready for `json.dumps`."""
    return [asdict(row) for row in rows]


def settings(info: ArchiveInfo) -> dict[str, object]:
    """The model's shape and the cut into chunks and groups; empty if nothing was learned."""
    if info.config is None:
        return {}
    cut = {
        "chunk_size": info.chunk_size,
        "group_chunks": info.group_chunks,
        "context": info.context,
    }
    if info.row_bytes:
        cut |= {"row_bytes": info.row_bytes, "element_bytes": info.element_bytes}
    return {**asdict(info.config), **cut}


def compress_figures(report: CompressReport) -> dict[str, Number]:
    """Figures of a compression that has just ended; decoding is timed by its verification."""
    return figures(
        original_bytes=report.original_bytes,
        archive_bytes=report.archive_bytes,
        ledger=report.ledger,
        nnz=report.nnz,
        n_weights=report.n_weights,
        training=report.figures,
        encode_s=report.encode_s,
        decode_s=report.decode_s,
    )


def info_figures(
    info: ArchiveInfo,
    *,
    training: Mapping[str, Number] | None = None,
    encode_s: float | None = None,
    decode_s: float | None = None,
) -> dict[str, Number]:
    """Figures of an archive, with what was measured while it was made or decoded, if anything."""
    return figures(
        original_bytes=info.original_bytes,
        archive_bytes=info.archive_bytes,
        ledger=info.ledger,
        nnz=info.nnz,
        n_weights=info.n_weights,
        training=training,
        encode_s=encode_s,
        decode_s=decode_s,
    )


def document(key: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON document of a command that was given any number of FILEs."""
    return {"schema": SCHEMA, key: list(entries)}


def failure_json(file: str, error: str, exit_code: int) -> dict[str, Any]:
    """The entry of a FILE that failed."""
    return {"file": file, "error": error, "exit_code": exit_code}


def to_json(value: object, *, indent: int | None = 2) -> str:
    r"""`value` as JSON in ASCII, whatever the names in it; indent: None for a single line.

    A byte of a name that is not text in the locale becomes an escape from \udc80 to \udcff, as in
    Python's `surrogateescape`: `os.fsencode` turns the string back into the very name.
    """
    return json.dumps(value, indent=indent, ensure_ascii=True)


def compress_json(report: CompressReport) -> dict[str, Any]:
    """The entry of a FILE that was compressed."""
    return {
        "file": report.source,
        "archive": None if report.path is None else str(report.path),
        "method": report.method,
        "ledger": rows_as_json(ledger_rows(report.ledger, report.original_bytes)),
        "context": report.context,
        "figures": compress_figures(report),
        "candidates": dict(report.candidates),
        "skipped_training": report.skipped_training,
        "model_id": report.model_id,
        "model_bytes": report.model_bytes,
        "warnings": list(report.warnings),
    }


def model_json(report: ModelReport) -> dict[str, Any]:
    """The entry of a model that was trained."""
    return {**asdict(report), "path": str(report.path), "warnings": list(report.warnings)}


def kept_model_json(model: ModelFile) -> dict[str, Any]:
    """The entry of a model that is kept."""
    return {
        "path": str(model.path),
        "id": model.model_id.hex(),
        "name": model.name,
        "bytes": model.size,
        "text_bytes": model.text_bytes,
        "card": None if model.card is None else asdict(model.card),
    }


def decompress_json(report: DecompressReport) -> dict[str, Any]:
    """The entry of an archive that was unpacked."""
    return {
        "file": report.source,
        "output": None if report.path is None else str(report.path),
        "method": report.method,
        "original_bytes": report.original_bytes,
        "seconds": report.seconds,
    }


def salvage_json(report: SalvageReport) -> dict[str, Any]:
    """The entry of a damaged archive; ranges are half open, bytes of the original."""
    return {
        **decompress_json(report),
        "salvage": {
            "verified": report.verified,
            "lost_bytes": report.lost_bytes,
            "damage": [asdict(damage) for damage in report.damage],
            "repaired": list(report.repaired),
        },
    }


def info_json(name: str, info: ArchiveInfo) -> dict[str, Any]:
    """The entry of an archive that was listed; `name` is how the user called it."""
    return {
        "file": name,
        "method": info.method,
        "name": info.name,
        "mode": info.mode,
        "mtime_ns": info.mtime_ns,
        "sha256": info.sha256,
        "ledger": rows_as_json(ledger_rows(info.ledger, info.original_bytes)),
        "figures": info_figures(info),
        "model": settings(info),
        "decode_memory_bytes": info.decode_memory_bytes,
        "decode_threads": info.decode_threads,
        "decode_operations": info.decode_operations,
        "context": info.context,
        "first_read_bytes": info.first_read_bytes,
        "later_read_bytes": info.later_read_bytes,
        "model_id": info.model_id,
        "model_bytes": info.model_bytes,
        "card": None if info.card is None else asdict(info.card),
    }


def _ratio(part: Number, whole: Number) -> float:
    return part / whole if whole else 0.0


def printable(text: str) -> str:
    r"""`text` in which whatever does not print as itself is an escape such as \n or \u202e.

    Escaped are control and format characters (escape sequences, changes of direction, invisible
    ones), line ends, and characters that are none; a byte that is not text in the locale becomes
    \x80 to \xff. So a name from outside cannot command a terminal or pose as another.
    """
    if text.isprintable():
        return text
    return "".join(c if _prints(c) else _escape(c) for c in text)


def _prints(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"  # spaces of a script


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries the bytes 0x80..0xff
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
