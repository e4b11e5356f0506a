"""Memory of decoding and of training, preset by preset: what is predicted and what is taken.

`python -m tests.memory_tools RESULT.json [PRESET...]` measures all presets, and some in all
contexts, or the presets named alone, and prints a table; docs/benchmarks/memory.json is such a
result.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mdlzip.codec import CompressOptions, compress
from mdlzip.config import load_preset, presets_dir
from mdlzip.networks.none import NoNetwork
from mdlzip.networks.registry import n_cells
from mdlzip.quantised.network import IntegerNetwork
from mdlzip.symbols.context import MODES
from mdlzip.symbols.layout import Layout
from mdlzip.symbols.vocabulary import Vocabulary
from tests.archive_tools import random_network
from tests.conftest import ROOT, cli_environment
from tests.random_archives import write_random

ORIGINAL_BYTES = 1 << 19  # eight tiles of 128 chunks, two threads
THREADS = 2
LIMIT_S = 60.0  # a large network is stopped then: its weights and caches are there long before
STEPS = 3
MOST_TRAINED = 1_000_000  # weights; planning and encoding with more take many minutes on two cores
_NO_LIMIT = "64G"
_LIMITS = ["--memory", _NO_LIMIT, "--threads", str(THREADS)]
ALONE = "alone"


@dataclass(frozen=True)
class Measured:
    """A preset; sizes in bytes, peaks of the whole process. None: not predicted, or not measured.

    stopped: decoding was ended after LIMIT_S.
    """

    preset: str
    weights: int
    decode_predicted: int
    decode_taken: int
    stopped: bool
    train_taken: int | None

    @property
    def error(self) -> float:
        """How far the prediction lies above what was taken, as a share of the latter."""
        return self.decode_predicted / self.decode_taken - 1


def preset_names() -> list[str]:
    """All presets, the smallest network first."""
    names = [path.stem for path in presets_dir().glob("*.toml")]
    return sorted(names, key=lambda name: n_cells(load_preset(name).model))


def peak_bytes(words: Sequence[str], limit_s: float) -> tuple[int, int, bool]:
    """Peak resident bytes of `mdlzip WORDS`, its exit code, and whether it had to be ended.

    The peak is looked up while the process runs: what `wait4` gives begins with the size of the
    process that has started it.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "mdlzip", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=cli_environment(),
    )
    status = Path(f"/proc/{process.pid}/status")
    deadline, peak = time.monotonic() + limit_s, 0
    while process.poll() is None and time.monotonic() < deadline:
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        peak = max(peak, int(found[1]) << 10) if found else peak
        time.sleep(0.01)
    stopped = process.poll() is None
    process.kill()
    return peak, process.wait(), stopped


def measure(preset: str, folder: Path, *, train: bool = True) -> Measured:
    """Decode a random archive of the preset, and train it for a few steps."""
    config, n_weights = load_preset(preset).model, n_cells(load_preset(preset).model)
    archive = write_random(folder / f"{preset}.mdlz", config, Layout(ORIGINAL_BYTES, 512, 128))
    limits = _LIMITS
    predicted, taken, code, stopped = _decoding(archive)
    assert stopped or code == 3, f"{preset}: a random archive fails where checksums are compared"
    trained = None
    if train and n_weights <= MOST_TRAINED:
        source = folder / f"{preset}.txt"
        source.write_bytes(((ROOT / "LICENSE").read_bytes() * 47)[:ORIGINAL_BYTES])
        words = ["compress", str(source), "--preset", preset, "--steps", str(STEPS), *limits]
        words += ["--no-fallback", "--no-verify", "-q", "-f", "-o", str(folder / "out")]
        trained, code, _ = peak_bytes(words, 600.0)
        assert code == 0, preset
    archive.unlink()
    return Measured(preset, n_weights, predicted, taken, stopped, trained)


def measure_context(preset: str, mode: str, folder: Path) -> Measured:
    """Decode an archive of some text in a context, with random weights or ("alone") without."""
    if preset == ALONE:
        network = IntegerNetwork(NoNetwork(0), {}, {}, Vocabulary())
    else:
        network = random_network(3, load_preset(preset).model, 0.02)
    source, archive = folder / "text", folder / f"{preset}-{mode}.mdlz"
    source.write_bytes(((ROOT / "LICENSE").read_bytes() * 47)[:ORIGINAL_BYTES])
    options = CompressOptions(
        context=mode, chunk_size=512, group_chunks=128, verify=False, fallback=False, force=True
    )
    compress(source, archive, options, network=network)
    predicted, taken, code, stopped = _decoding(archive)
    assert stopped or code == 0
    n_weights = n_cells(network.config)
    return Measured(f"{preset}, {mode}", n_weights, predicted, taken, stopped, None)


def _decoding(archive: Path) -> tuple[int, int, int, bool]:
    """Bytes predicted and taken, exit code of `mdlzip test`, whether it had to be ended."""
    listed = subprocess.run(
        [sys.executable, "-m", "mdlzip", "list", "--json", *_LIMITS, str(archive)],
        capture_output=True,
        env=cli_environment(),
        check=True,
    )
    predicted = json.loads(listed.stdout)["archives"][0]["decode_memory_bytes"]
    return predicted, *peak_bytes(["test", *_LIMITS, "--allow-slow", str(archive)], LIMIT_S)


def _row(m: Measured) -> str:
    """A line of the table in docs/benchmarks.md, sizes in MiB."""
    sizes = [m.decode_predicted, m.decode_taken, m.train_taken]
    cells = ["" if size is None else f"{size / (1 << 20):,.0f}" for size in sizes]
    cells.insert(2, f"{m.error:+.0%}")
    return f"| {m.preset} | {m.weights:,} | " + " | ".join(cells) + " |"


def main(result: Path, names: Sequence[str]) -> None:
    import torch

    found = []
    contexts = [(p, mode) for p in ("nano", "base", ALONE) for mode in MODES[1:]]
    jobs: list[tuple[str, str | None]] = [(name, None) for name in names or preset_names()]
    for name, mode in jobs if names else [*jobs, *contexts]:
        with tempfile.TemporaryDirectory(prefix="mdlzip-memory-") as folder:
            here = Path(folder)
            found.append(measure_context(name, mode, here) if mode else measure(name, here))
        print(_row(found[-1]), flush=True)
        facts = {
            "schema": 1,
            "original_bytes": ORIGINAL_BYTES,
            "threads": THREADS,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "presets": [asdict(m) for m in found],
        }
        result.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
