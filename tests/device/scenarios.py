"""What the program does on the device of `pretend`: `python -m tests.device.scenarios`.

Prints a line of JSON for each scenario: its name, what it found and, if it failed, how. The process
ends by `os._exit`, since the thread of the device does not end.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.device import pretend

Found = dict[str, Any]
SMALL = ("model.d_model=16", "model.n_layers=1", "model.d_ff=32", "model.window=32")
TWO_HEADS = ("model.n_heads=2", "train.batch_chunks=2", "train.vocabulary=150")
CHUNK_BYTES, GROUP_CHUNKS, STEPS = 64, 16, 10
TEXT = (Path(__file__).resolve().parents[2] / "LICENSE").read_bytes()[:2000]


def _options(**more: Any) -> Any:
    from mdlzip.codec.options import CompressOptions

    base = {"preset": "nano", "steps": STEPS, "chunk_size": CHUNK_BYTES, "threads": 1,
            "group_chunks": GROUP_CHUNKS, "device": "cuda", "overrides": SMALL}  # fmt: skip
    return CompressOptions(**{**base, **more})


@contextmanager
def _tokens(options: Any) -> Iterator[Any]:
    import numpy as np

    from mdlzip.symbols.layout import Layout
    from mdlzip.symbols.survey import present_in
    from mdlzip.training.planner import choose_vocabulary
    from tests.symbol_tools import tokens_of

    data, layout = np.frombuffer(TEXT, np.uint8), Layout(len(TEXT), CHUNK_BYTES, GROUP_CHUNKS)
    vocabulary = choose_vocabulary(present_in(TEXT), data, layout, options)
    with tokens_of(data, layout, vocabulary) as tokens:
        yield tokens


def _train(options: Any, folder: Path, **more: Any) -> Any:
    import numpy as np

    from mdlzip.training.run import train

    never: Any = {"on_progress": lambda *_: None, "should_stop": lambda: False}
    with _tokens(options) as tokens:
        sample = np.frombuffer(TEXT, np.uint8)
        return train(tokens, sample, options, work_dir=folder, **{**never, **more})


def _codes(result: Any) -> bytes:
    return b"".join(t.codes.tobytes() for t in result.network.tensors.values())


# --- scenarios ----------------------------------------------------------------------------------


def steps(device: str = "cuda", *overrides: str) -> Found:
    """Steps of all phases: loss, waits of the host and products of each."""
    from mdlzip.config import load_preset
    from mdlzip.training.phases import begin_pruned, begin_rounded
    from mdlzip.training.session import Session

    found: Found = {}
    with _tokens(_options(overrides=(*SMALL, *overrides))) as tokens:
        preset = load_preset("nano", overrides=(*SMALL, *overrides))
        session = Session(tokens, preset, device=device, seed=0)
        begin: dict[str, Callable[[], object]] = {
            "dense": lambda: None,
            "pruned": lambda: begin_pruned(session, lambda *_, **__: None),
            "rounded": lambda: begin_rounded(session, lambda *_, **__: None),
        }
        for phase, enter in begin.items():
            enter()
            session.step(0.5)
            pretend.LOG.clear()
            losses = [session.step(0.5).loss for _ in range(2)]
            waits, products = dict(pretend.LOG.waits), dict(pretend.LOG.products)
            found[phase] = {"loss": float(losses[-1]), "waits": waits, "products": products}
    return found


def method(name: str, optimiser: str) -> Found:
    """A whole run of an l0 method."""
    overrides = (*SMALL, f"train.optimiser={optimiser}", "train.alpha=0.002")
    with tempfile.TemporaryDirectory() as folder:
        result = _train(_options(method=name, overrides=overrides), Path(folder))
    return {k: v for k, v in result.figures.items() if "bits" in k}


def move(first: str, second: str) -> Found:
    """A run that stops on one device and goes on with its checkpoint on another."""
    from mdlzip.errors import Interrupted
    from mdlzip.training.checkpoint import load

    with tempfile.TemporaryDirectory() as name:
        folder, calls = Path(name), iter(range(STEPS))
        try:
            _train(_options(device=first), folder, should_stop=lambda: next(calls) == 4)
        except Interrupted:
            stopped = load(folder)
        else:
            raise AssertionError("it did not stop")
        assert stopped is not None and stopped.progress.step == 5
        result = _train(_options(device=second), folder, resumed=stopped)
        whole = _train(_options(device=second), folder / "whole")
    return {"bits": result.figures["integer_bits_per_byte"], "steps": result.figures["steps"],
            "same": _codes(result) == _codes(whole)}  # fmt: skip


def integers() -> Found:
    """The integers of both families on the device are the CPU's; what doctor says of it."""
    from functools import partial

    import numpy as np

    from mdlzip.cli import doctor_cmd
    from mdlzip.quantised import selftest
    from mdlzip.quantised.predictor import Predictor

    same = []
    for config in selftest.CONFIGS:
        network = selftest.random_network(config)
        symbols = np.random.default_rng(0).integers(0, 256, (3, 24), dtype=np.int16)
        whole, steps = (
            selftest.digest(Predictor(network, 64, device=device), symbols, n)
            for device, n in (("cpu", 24), ("cuda", 1))
        )
        same.append(whole == steps)
    selftest.CASES = selftest.CASES[1:2]  # without convolutions: the fewest operations
    here = selftest.self_test("cpu")
    probe = doctor_cmd._probe("cuda:0", partial(selftest.self_test, "cuda:0"), here)
    return {"same": all(same), "doctor": probe.detail, "devices": doctor_cmd.cuda_devices()}


def archive(context: str, text: bytes = TEXT, group_chunks: int = GROUP_CHUNKS) -> Found:
    """Compressed and verified on the device, decompressed there and here; its bytes."""
    import mdlzip
    from mdlzip.codec import cross_check
    from mdlzip.errors import LimitExceeded
    from mdlzip.quantised import device_memory

    sampled, checked = cross_check.sampled_groups, []
    cross_check.sampled_groups = lambda units: checked.append(sampled(units)) or checked[-1]
    with tempfile.TemporaryDirectory() as name:
        source, out = Path(name, "a.txt"), Path(name, "b.txt")
        source.write_bytes(text)
        options = _options(
            context=context,
            fallback=False,
            overrides=(*SMALL, *TWO_HEADS),
            group_chunks=group_chunks,
        )
        mdlzip.compress(source, options=options)
        packed, plain = Path(f"{source}.mdlz"), []
        for device in ("cuda:0", "cpu", "auto"):
            mdlzip.decompress(packed, out, device=device, threads=2, force=True)
            plain.append(out.read_bytes() == text)
        limit, device_memory.device_limit = device_memory.device_limit, lambda *_: 1 << 16
        try:
            mdlzip.decompress(packed, out, device="cuda", force=True)
            refusal = "none"
        except LimitExceeded as problem:
            refusal = str(problem)
        finally:
            device_memory.device_limit = limit
        size = packed.stat().st_size
        return {"same": all(plain), "bytes": size, "refusal": refusal, "checked": checked}


def errs_alike() -> Found:
    """A backend for the device that computes other integers, the same ones both ways."""
    import mdlzip
    from mdlzip.errors import VerifyFailed
    from mdlzip.quantised import kernels_torch

    exact = kernels_torch.logit_gaps
    kernels_torch.logit_gaps = lambda *args: exact(*args) // 2
    with tempfile.TemporaryDirectory() as name:
        source = Path(name, "a.txt")
        source.write_bytes(TEXT)
        try:
            mdlzip.compress(source, options=_options(context="chunk", fallback=False))
        except VerifyFailed as problem:
            return {"refusal": str(problem), "left": os.listdir(name)}
        finally:
            kernels_torch.logit_gaps = exact
    return {"refusal": "none"}


METHODS = {
    **{f"method {m}": lambda m=m: method(m, "muon")  # type: ignore[misc]
       for m in ("none", "drr", "drr-o", "pmmp", "fpp", "admm")},
    "method rl1, adamw": lambda: method("rl1", "adamw"),
}  # fmt: skip
MOVES = {
    f"from {a} to {b}": lambda a=a, b=b: move(a, b)  # type: ignore[misc]
    for a, b in (("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda"))
}
SCENARIOS: dict[str, Callable[[], Found]] = {
    "steps": steps,
    "steps on the CPU": lambda: steps("cpu"),
    "steps without a window": lambda: steps("cuda", "model.window=0"),
    **METHODS,
    **MOVES,
    "integers": integers,
    "archive of chunks": lambda: archive("chunk"),
    "archive with a context": lambda: archive("group", TEXT[:640], 5),  # one lane
    "a device that errs alike": errs_alike,
}


def main(names: list[str]) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        pretend.install()
    except pretend.Unavailable as reason:
        print(json.dumps({"unavailable": str(reason)}), flush=True)
        os._exit(0)
    import torch

    torch.set_num_threads(1)
    for name in names or SCENARIOS:
        line: Found = {"scenario": name}
        began = time.monotonic()
        try:
            line["found"] = SCENARIOS[name]()
        except BaseException:
            line["failed"] = traceback.format_exc()
        line["seconds"] = round(time.monotonic() - began, 1)
        print(json.dumps(line), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
