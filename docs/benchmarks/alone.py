"""The experts without a network, context solid: `python alone.py OUT.json FILE...`.

Bytes of the whole archive, with the vocabulary and everything else; seconds of coding alone, on one
thread. zpaq stands beside them where it is installed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import mdlzip
from mdlzip.bench.baselines import make_codec
from mdlzip.bench.run import machine
from mdlzip.codec.contexts import SOLID_CHUNK_BYTES
from mdlzip.codec.options import CompressOptions
from mdlzip.corpus import open_corpus
from mdlzip.networks.none import NoNetwork
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.learn import sample_of
from mdlzip.symbols.survey import take_survey
from mdlzip.training.planner import choose_vocabulary

BASELINES = ("xz-9e", "ppmd", "zpaq-5")


def measure(path: Path) -> dict[str, object]:
    """One file."""
    options = CompressOptions(
        context="solid", chunk_size=SOLID_CHUNK_BYTES, threads=1, verify=False, fallback=False
    )
    with open_corpus(path) as corpus:
        layout = Layout(corpus.size, options.chunk_bytes(), options.chunks_per_group())
        present = take_survey(corpus).present
        vocabulary = choose_vocabulary(present, sample_of(corpus), layout, options)
    alone = IntegerNetwork(NoNetwork(len(vocabulary.merges)), {}, {}, vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        target, back = Path(folder, "a.mdlz"), Path(folder, "back")
        report = mdlzip.compress(path, target, options, network=alone)
        began = time.perf_counter()
        mdlzip.decompress(target, back, threads=1)
        decode_s = time.perf_counter() - began
        assert back.read_bytes() == path.read_bytes()
    found: dict[str, object] = {
        "file": path.name,
        "original_bytes": report.original_bytes,
        "archive_bytes": report.archive_bytes,
        "encode_s": report.encode_s,
        "decode_s": decode_s,
    }
    for name in BASELINES:
        found[name] = make_codec(name).measure(path, 512).bytes
    print(found, flush=True)
    return found


if __name__ == "__main__":
    files = [measure(Path(name)) for name in sys.argv[2:]]
    out = {"machine": machine(), "context": "solid", "files": files}
    Path(sys.argv[1]).write_text(json.dumps(out, indent=1) + "\n")
