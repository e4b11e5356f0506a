"""The tables of docs/benchmarks.md from the JSON files beside this one: python table.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ORDER = (
    "dickens", "enwik8-10mb", "wiki-zh", "genome", "flights-json", "python-stdlib", "access-log",
    "weather-csv", "xml", "mr-scan",
)  # fmt: skip
HEAD = "| file | bytes | mdlzip | weights | best whole file | xz -9e | per chunk | decode KB/s |"

WEIGHTS_HEAD = (
    "| file | weights | kept | bits per non-zero | bits per weight | to order 0 | to DeepCABAC "
    "| integers to trained rounding | data for rounding, bytes | weights for it, bytes |"
)


def row(result: dict[str, Any]) -> str:
    """One file: sizes in bytes, and how much larger or smaller mdlzip is than each rival."""
    ours, figures = result["mdlzip"], result["mdlzip"]["figures"]
    size = figures["archive_bytes"]
    ran = [m for m in result["baselines"] if m["bytes"]]
    best = {s: min((m for m in ran if m["scope"] == s), key=lambda m: m["bytes"]) for s in
            ("file", "chunk")}  # fmt: skip
    xz = next(m for m in ran if m["name"] == "xz-9e")

    def rival(measured: dict[str, Any], name: str) -> str:
        return f"{name}{measured['bytes']:,} ({size / measured['bytes'] - 1:+.1%})"

    cells = (
        result["file"],
        f"{result['original_bytes']:,}",
        f"**{size:,}**" if size < best["file"]["bytes"] else f"{size:,}",
        f"{figures.get('weight_bytes', 0):,}" if ours["method"] == "learned" else "-",
        rival(best["file"], best["file"]["name"] + " "),
        rival(xz, ""),
        rival(best["chunk"], best["chunk"]["name"] + " "),
        f"{figures['decode_kb_per_s']:.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def weights_row(result: dict[str, Any]) -> str:
    """One file's weights: how many, their cost, and what rounding costs the data."""
    figures = result["mdlzip"]["figures"]
    integer_bytes = figures["integer_over_float_percent"] / 100 * figures["float_bits_per_byte"]
    integer_bytes *= result["original_bytes"] / 8

    def percent(name: str) -> str:
        return f"{figures[name]:+.1f} %" if name in figures else "-"

    cells = (
        result["file"],
        f"{figures['n_weights']:,}",
        f"{figures['density']:.1%}",
        f"{figures['bits_per_nnz']:.2f}",
        f"{8 * figures['weight_bytes'] / figures['n_weights']:.2f}",
        percent("weights_over_order0_percent"),
        percent("weights_over_nncodec_percent"),
        f"{figures['integer_over_qat_percent']:+.2f} %",
        f"{integer_bytes:+,.0f}",
        f"{figures['weight_bytes'] - 4 * figures['nnz']:+,}",
    )
    return "| " + " | ".join(cells) + " |"


def print_table(head: str, rows: list[str]) -> None:
    """Markdown, ready to be copied."""
    print(head)
    print("|" + " --- |" * (head.count("|") - 1))
    print("\n".join(rows) + "\n")


if __name__ == "__main__":
    found = [Path(__file__).parent / f"{name}.json" for name in ORDER]
    results = [
        result
        for path in found
        if path.exists()
        for result in json.loads(path.read_text(encoding="utf-8"))["files"]
    ]
    print_table(HEAD, [row(result) for result in results])
    learned = [result for result in results if result["mdlzip"]["method"] == "learned"]
    print_table(WEIGHTS_HEAD, [weights_row(result) for result in learned])
