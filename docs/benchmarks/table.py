"""The table of docs/benchmarks.md from the JSON files beside this one: python table.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ORDER = (
    "dickens", "enwik8-10mb", "wiki-zh", "genome", "flights-json", "python-stdlib", "access-log",
    "weather-csv", "xml", "mr-scan",
)  # fmt: skip
HEAD = "| file | bytes | mdlzip | weights | best whole file | xz -9e | per chunk | decode KB/s |"


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


if __name__ == "__main__":
    here = Path(__file__).parent
    print(HEAD)
    print("|" + " --- |" * (HEAD.count("|") - 1))
    for name in ORDER:
        path = here / f"{name}.json"
        if path.exists():
            for result in json.loads(path.read_text(encoding="utf-8"))["files"]:
                print(row(result))
