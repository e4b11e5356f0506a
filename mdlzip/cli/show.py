"""Reports of the codec as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mdlzip.cli.console import table
from mdlzip.report import Number, ledger_rows, printable

if TYPE_CHECKING:
    from mdlzip.codec.options import CompressReport

_FIGURE_LINES = (
    ("nnz", "weights kept", "{:,.0f}"),
    ("density", "density", "{:.1%}"),
    ("bits_per_nnz", "bits per kept weight", "{:.2f}"),
    ("data_bits_per_byte", "data, bits per byte", "{:.4f}"),
    ("integer_bits_per_byte", "integer predictor, bits per byte", "{:.4f}"),
    ("qat_bits_per_byte", "quantisation-aware float model, bits per byte", "{:.4f}"),
    ("float_bits_per_byte", "float model, bits per byte", "{:.4f}"),
    ("integer_over_qat_percent", "integers against quantisation-aware", "{:+.2f} %"),
    ("integer_over_float_percent", "integers against float", "{:+.2f} %"),
    ("steps", "training steps", "{:,.0f}"),
    ("train_seconds", "training time", "{:,.1f} s"),
    ("online_bytes", "online code length (model learned on the way)", "{:,.0f} bytes"),
    ("encode_kb_per_s", "encoding", "{:,.1f} KB/s"),
    ("decode_kb_per_s", "decoding", "{:,.1f} KB/s"),
    ("paper_rule_bytes", "by the paper's rule (4 B a weight, no index)", "{:,.0f} bytes"),
    ("coo_rule_bytes", "with plain COO weights (12 B a weight)", "{:,.0f} bytes"),
)


def sizes_line(name: str, original: int, archive: int, method: str) -> str:
    """One line: what became of a file."""
    name = printable(name)
    if not original:
        return f"{name}: empty, {archive:,} bytes, {method}"
    share = f"{archive / original:.2%}, {8 * archive / original:.4f} bits per byte"
    return f"{name}: {original:,} -> {archive:,} bytes ({share}), {method}"


def ledger_table(ledger: Mapping[str, int], original_bytes: int) -> str:
    """The ledger: bytes, share of the archive, bits per original byte."""
    rows = ledger_rows(ledger, original_bytes)
    cells = [(r.name, f"{r.bytes:,}", f"{r.share:.1%}", f"{r.bits_per_byte:.4f}") for r in rows]
    return table(("ledger", "bytes", "share", "bits/byte"), cells)


def figures_table(figures: Mapping[str, Number]) -> str:
    """Model and speed figures that are present, one a line; empty text if there are none."""
    rows = [
        (label, form.format(figures[key])) for key, label, form in _FIGURE_LINES if key in figures
    ]
    width = max((len(label) for label, _ in rows), default=0)
    return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)


def choice_lines(report: CompressReport) -> list[str]:
    """Why the file is stored as it is: what the other ways would have cost."""
    lines = []
    if report.skipped_training:
        lines.append(f"no model was kept: {report.skipped_training}")
    others = {n: size for n, size in report.candidates.items() if n != report.method}
    if others:
        listed = ", ".join(f"{n} {s:,}" for n, s in sorted(others.items(), key=lambda kv: kv[1]))
        lines.append(f"kept {report.method}, instead of (bytes): {listed}")
    if report.model_lost_by:
        lines.append(f"the learned archive would have been {report.model_lost_by:,} bytes larger")
    return lines
