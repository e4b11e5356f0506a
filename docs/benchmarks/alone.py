"""What the experts make of files without a network: `python alone.py OUT.json FILE...`.

A network of one training step never pays, so `compress` keeps the experts alone. Bytes are those of
the whole archive, seconds those of coding and decoding. Baselines beside them are decoded, too;
zpaq only where it is installed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import mdlzip
from mdlzip.bench.baselines import make_codec
from mdlzip.bench.measure import same_file
from mdlzip.bench.run import machine
from mdlzip.codec.options import EXPERTS, CompressOptions

BASELINES = ("xz-9e", "ppmd", "zpaq-5")
OPTIONS = CompressOptions(preset="nano", steps=1, verify=False)


def measure(path: Path) -> dict[str, object]:
    """One file."""
    with tempfile.TemporaryDirectory() as folder:
        target, back = Path(folder, "a.mdlz"), Path(folder, "back")
        report = mdlzip.compress(path, target, OPTIONS)
        assert report.method == EXPERTS and report.config is not None
        began = time.perf_counter()
        mdlzip.decompress(target, back)
        decode_s = time.perf_counter() - began
        assert same_file(path, back)
    found: dict[str, object] = {
        "file": path.name,
        "original_bytes": report.original_bytes,
        "archive_bytes": report.archive_bytes,
        "context": report.context,
        "n_merges": report.config.n_merges,
        "encode_s": report.encode_s,
        "decode_s": decode_s,
    }
    for name in BASELINES:
        found[name] = make_codec(name).measure(path, 512).bytes
    print(found, flush=True)
    return found


if __name__ == "__main__":
    files = [measure(Path(name)) for name in sys.argv[2:]]
    Path(sys.argv[1]).write_text(
        json.dumps({"machine": machine(), "files": files}, indent=1) + "\n"
    )
