"""`mdlzip doctor`: versions, devices, and whether this machine computes the pinned integers."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass

from mdlzip import __version__
from mdlzip.cli import options as opt
from mdlzip.cli.console import result, result_json, table
from mdlzip.cli.failures import guarded

_PACKAGES = ("torch", "numpy", "numba", "constriction", "safetensors", "zstandard", "typer", "rich")
_EXTRAS = ("brotli", "pyppmd", "matplotlib")


@dataclass(frozen=True)
class Probe:
    """The exactness probe on one device: digest found and whether it is the pinned one."""

    device: str
    ok: bool
    detail: str


@guarded
def doctor(as_json: opt.Json = False, verbose: opt.Verbose = 0) -> int:
    """Check this machine; exit code 0 only if every device computes the pinned integers."""
    probes = [_probe(device) for device in _devices()]
    facts = _facts()
    healthy = all(p.ok for p in probes)
    if as_json:
        probed = [asdict(p) for p in probes]
        result_json({"schema": 1, "healthy": healthy, **facts, "probes": probed})
    else:
        rows = [(k, _flat(v)) for k, v in facts.items()]
        rows += [(f"exactness on {p.device}", p.detail) for p in probes]
        result(table(("what", "found"), rows, "<<"))
        result("all is well" if healthy else "this machine must not be trusted with archives")
    return 0 if healthy else 1


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)


def _facts() -> dict[str, object]:
    import torch

    return {
        "mdlzip": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "extras": {name: _version(name) for name in _EXTRAS},
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "cuda": _cuda(),
    }


def _version(name: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(names)


def _devices() -> list[str]:
    import torch

    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _probe(device: str) -> Probe:
    """Run the integer predictor on a pinned input and compare the digest with the constant."""
    from mdlzip.quantised.selftest import EXPECTED, self_test

    try:
        found = self_test(device)
    except Exception as problem:
        return Probe(device, False, f"failed: {type(problem).__name__}: {problem}")
    if found != EXPECTED:
        return Probe(device, False, f"WRONG: {found[:16]}, expected {EXPECTED[:16]}")
    return Probe(device, True, f"exact ({found[:16]})")
