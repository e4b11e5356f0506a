"""A benchmark result as rows of text, ready for a terminal or a page of Markdown."""

from __future__ import annotations

from mdlzip.bench.records import RecordsResult
from mdlzip.bench.run import BenchResult

HEADERS = ("codec", "bytes", "ratio", "bits/byte", "compress s", "decompress s", "note")
ALIGN = "<>>>>><"
RECORD_HEADERS = ("coder", "records", "ratio", "shared", "together", "encode KB/s", "decode KB/s")
RECORD_ALIGN = "<>>>>>>"
_YARDSTICKS = {"order0": "their order-0 entropy", "nncodec": "nncodec (DeepCABAC)"}
_SCOPES = {"file": "whole file", "chunk": "per chunk"}


def rows(result: BenchResult) -> list[tuple[str, ...]]:
    """One row per baseline, the whole-file ones first, then ours; sorted by size within each."""
    out: list[tuple[str, ...]] = []
    for scope, label in _SCOPES.items():
        group = [m for m in result.baselines if m.scope == scope]
        group.sort(key=lambda m: (m.bytes is None, m.bytes or 0))
        for m in group:
            note = f"{label}; {m.note}" if m.note else label
            sizes = _sizes(m.bytes, result.original_bytes)
            out.append((m.name, *sizes, _seconds(m.compress_s), _seconds(m.decompress_s), note))
    return out + _own_rows(result)


def record_rows(result: RecordsResult) -> list[tuple[str, ...]]:
    """One row for each way of coding the records, by what they take without what is shared."""
    return [
        (
            row.name,
            f"{row.record_bytes:,}",
            f"{row.record_bytes / result.unseen_bytes:.1%}",
            f"{row.shared_bytes:,}",
            f"{row.total_bytes:,}",
            f"{row.encode_kb_per_s:,.0f}",
            f"{row.decode_kb_per_s:,.0f}",
        )
        for row in sorted(result.rows, key=lambda row: row.record_bytes)
    ]


def _own_rows(result: BenchResult) -> list[tuple[str, ...]]:
    run = result.run
    if run is None:
        return []
    figures, original = run.figures, result.original_bytes
    spent = sum(run.phases_s.values()) or None
    archive = int(figures["archive_bytes"])
    out: list[tuple[str, ...]] = [
        (
            "mdlzip",
            *_sizes(archive, original),
            _seconds(spent),
            _seconds(figures.get("decode_seconds")),
            "bytes on disk, any group readable on its own",
        )
    ]
    for key, name, note in (
        ("coo_rule_bytes", "  plain COO", "12 bytes a weight + data"),
        ("paper_rule_bytes", "  paper's rule", "4 bytes a weight, no index bytes, + data"),
        (
            "online_bytes",
            "  online code",
            "area under the loss of the first pass, no weights; no archive",
        ),
    ):
        if key in figures:
            out.append((name, *_sizes(int(figures[key]), original), "", "", note))
    return out


CONTEXT_HEADERS = ("context", "bytes", "encode KB/s", "decode KB/s", "first read ms", "later ms")
CONTEXT_ALIGN = "<>>>>>"


def context_rows(result: BenchResult) -> list[tuple[str, ...]]:
    """The same network in each context, then the experts alone."""
    size = result.original_bytes / 1000
    return [
        (
            run.context if run.network else f"{run.context}, alone",
            f"{run.archive_bytes:,}",
            f"{size / run.encode_s:,.0f}",
            f"{size / run.decode_s:,.0f}",
            f"{1000 * run.first_read_s:,.0f}",
            f"{1000 * run.later_read_s:,.1f}",
        )
        for run in (result.run.contexts if result.run else ())
    ]


SPEED_HEADERS = ("speed", "bytes", "compress KB/s", "decompress KB/s", "of mdlzip's")
SPEED_ALIGN = "<>>>>"


def speed_rows(result: BenchResult) -> list[tuple[str, ...]]:
    """Baselines and ours side by side, then reads and a training step.

    The last column has the baseline's speed of decompression over ours.
    """
    run, size = result.run, result.original_bytes / 1000
    assert run is not None and run.speed is not None
    ours = run.speed

    def rate(seconds: float | None) -> str:
        return f"{size / seconds:,.0f}" if seconds else "-"

    out: list[tuple[str, ...]] = []
    for m in result.baselines:
        if m.bytes is not None and m.decompress_s:
            times = f"{ours.decode_s / m.decompress_s:,.1f}"
            out.append((m.name, f"{m.bytes:,}", rate(m.compress_s), rate(m.decompress_s), times))
    archive = f"{int(run.figures['archive_bytes']):,}"
    name = f"mdlzip, {ours.context}" if ours.context else "mdlzip"
    out.append((name, archive, rate(ours.encode_s), rate(ours.decode_s), "1.0"))
    for label, seconds in (
        ("first read, ms", ours.first_read_s),
        ("later read, ms", ours.later_read_s),
        ("training step, ms", ours.step_s),
    ):
        if seconds is not None:
            out.append((label, "", "", f"{1000 * seconds:,.1f}", ""))
    if ours.macs_per_s is not None:
        out.append(("multiply-adds a symbol", "", "", f"{ours.multiply_adds:,}", ""))
        out.append(("billions of them a second", "", "", f"{ours.macs_per_s / 1e9:,.1f}", ""))
    return out


def gap_lines(result: BenchResult) -> list[str]:
    """How we stand against the hardest competitor of either kind."""
    lines = []
    for scope, label in _SCOPES.items():
        best, gap = result.best(scope), result.gaps().get(scope)
        if best is not None and gap is not None:
            word = "smaller" if gap < 0 else "larger"
            lines.append(f"mdlzip is {abs(gap):.1%} {word} than {best.name}, the best {label}")
    figures = result.run.figures if result.run else {}
    for key, name in _YARDSTICKS.items():
        if f"{key}_weight_bytes" in figures:
            share = figures[f"weights_over_{key}_percent"]
            lines.append(
                f"positions and values of the weights take {abs(share):.1f} % "
                f"{'less' if share < 0 else 'more'} than {name}, "
                f"{figures[f'{key}_weight_bytes']:,} bytes"
            )
    return lines


def _sizes(size: int | None, original: int) -> tuple[str, str, str]:
    if size is None:
        return "-", "-", "-"
    if not original:
        return f"{size:,}", "-", "-"
    return f"{size:,}", f"{size / original:.2%}", f"{8 * size / original:.4f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"
