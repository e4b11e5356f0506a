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


CONTEXT_FILES = (
    "dickens", "enwik8-10mb", "wiki_zh.txt", "NC_008253_ecoli536.fna", "flights-200k.json",
    "python311_stdlib_py.tar", "apache_access_10k.log", "nyc_weather.csv", "xml", "mr",
)  # fmt: skip
CONTEXT_HEAD = (
    "| file | mdlzip | zpaq -5 | PPMd | xz -9e | `chunk` | `group` | `reference` | `solid` "
    "| alone: `group` | `reference` | `solid` |"
)
SPEED_HEAD = (
    "| file | decode KB/s | `chunk` | `group` | `reference` | `solid` | alone: `solid` "
    "| first read, ms: `group` | `reference` | `solid` | later: `group` | `reference` | `solid` |"
)


def context_row(result: dict[str, Any]) -> str:
    """One file: bytes of mdlzip's archive, of rivals, and of the same network in each context."""
    size = result["mdlzip"]["figures"]["archive_bytes"]
    rivals = {m["name"]: m["bytes"] for m in result["baselines"]}
    names = [name for name in ("zpaq-5", "ppmd", "xz-9e") if rivals.get(name)]
    best = min(rivals[name] for name in names)
    cells = [result["file"], f"**{size:,}**" if size < best else f"{size:,}"]
    cells += [f"{rivals[name]:,} ({size / rivals[name] - 1:+.1%})" for name in names]
    cells += [_of(result, mode, True, "archive_bytes") for mode in MODES]
    cells += [_of(result, mode, False, "archive_bytes") for mode in MODES[1:]]
    return "| " + " | ".join(cells) + " |"


def speed_row(result: dict[str, Any]) -> str:
    """One file: speed of decoding and what reads cost; those with a network where there is one."""
    size, network = result["original_bytes"], result["mdlzip"]["figures"].get("nnz", 0) > 0
    cells = [result["file"], f"{result['mdlzip']['figures']['decode_kb_per_s']:,.0f}"]
    cells += [_of(result, mode, True, "decode_s", size / 1000, 0) for mode in MODES]
    cells.append(_of(result, MODES[-1], False, "decode_s", size / 1000, 0))
    for field in ("first_read_s", "later_read_s"):
        cells += [_of(result, mode, network, field, 1000, 1) for mode in MODES[1:]]
    return "| " + " | ".join(cells) + " |"


MODES = ("chunk", "group", "reference", "solid")


def _of(
    result: dict[str, Any], mode: str, network: bool, field: str, unit: float = 1, power: int = 1
) -> str:
    """A figure of a context: value * unit, or unit / value for power 0."""
    for run in result["mdlzip"]["contexts"]:
        if (run["context"], run["network"]) == (mode, network):
            return f"{run[field] * unit if power else unit / run[field]:,.0f}"
    return ""


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
    found = [Path(__file__).parent / "contexts" / f"{name}.json" for name in CONTEXT_FILES]
    results = [
        result
        for path in found
        if path.exists()
        for result in json.loads(path.read_text(encoding="utf-8")).get("files", ())
        if result["mdlzip"].get("contexts")
    ]
    print_table(CONTEXT_HEAD, [context_row(result) for result in results])
    print_table(SPEED_HEAD, [speed_row(result) for result in results])
