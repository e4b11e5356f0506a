"""`mdlzip doctor`: versions, devices, and whether this machine computes the pinned integers."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from mdlzip import __version__
from mdlzip.cli import options as opt
from mdlzip.cli.console import result, result_json, table
from mdlzip.cli.failures import guarded
from mdlzip.process.cores import usable_cores
from mdlzip.process.kernels import kernel_names

_PACKAGES = ("torch", "numpy", "numba", "constriction", "safetensors", "zstandard", "typer", "rich")
_EXTRAS = ("brotli", "pyppmd", "matplotlib", "pillow")


@dataclass(frozen=True)
class Probe:
    """An exactness probe: what computed, whether the digest is the pinned one, and the digest."""

    device: str
    ok: bool
    detail: str


@guarded
def doctor(as_json: opt.Json = False, verbose: opt.Verbose = 0) -> int:
    """Check this machine; exit code 0 only if every device computes the pinned integers."""
    probes = _probes()
    facts = _facts()
    healthy = all(p.ok for p in probes)
    if as_json:
        probed = [asdict(p) for p in probes]
        result_json({"schema": 1, "healthy": healthy, **facts, "probes": probed})
    else:
        rows = [(k, _flat(v)) for k, v in facts.items()]
        rows += [(f"exactness: {p.device}", p.detail) for p in probes]
        result(table(("what", "found"), rows, "<<"))
        result("all is well" if healthy else "this machine must not be trusted with archives")
    return 0 if healthy else 1


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return str(value)


def _facts() -> dict[str, object]:
    """To be called after the probes: which kernels they have run is one of the facts."""
    import torch

    checked = kernel_names(used=True)
    return {
        "mdlzip": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "extras": {name: _version(name) for name in _EXTRAS},
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "cuda": _cuda(),
        "kernel_cache": _kernel_cache(),
        "predicts_with": _predicts_with(),
        "kernels_checked": checked,
        "kernels_not_checked": sorted(set(kernel_names()) - set(checked)),
    }


def _predicts_with() -> str:
    """What computes the predictions of an archive here, if no device is named."""
    from mdlzip.process.devices import pick_device
    from mdlzip.quantised.int8_products import host_kind

    if (device := pick_device("auto")) != "cpu":
        return f"torch on {device}, products of float32 and float64"
    return f"compiled kernels, products of bytes by {host_kind()}"


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


def _kernel_cache() -> str:
    from mdlzip.process.kernel_cache import folders

    found = folders()
    if found.to_write:
        return str(found.to_write)
    if found.to_read:
        return f"{found.to_read[-1]} (read only)"
    return "none: every start compiles; set NUMBA_CACHE_DIR to a folder that is yours alone"


def cuda_devices() -> list[str]:
    """Names of all CUDA devices, as torch takes them."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{i}" for i in range(count)]


def _probes() -> list[Probe]:
    """One for every device that predicts, and one for each coder."""
    from mdlzip.quantised import selftest

    devices = ["cpu", *cuda_devices()]
    found = [_probe(d, partial(selftest.self_test, d), selftest.EXPECTED) for d in devices]
    if selftest.experts_are_compiled():
        experts = _probe("experts", selftest.experts_self_test, selftest.EXPECTED_EXPERTS)
    else:
        experts = Probe("experts", True, "not checked: the first archive with them compiles them")
    coder = _probe("range coder", selftest.coder_self_test, selftest.EXPECTED_CODER)
    weights = _probe("weights", selftest.weights_self_test, selftest.EXPECTED_WEIGHTS)
    return [*found, experts, coder, weights]


def _probe(device: str, run: Callable[[], str], expected: str) -> Probe:
    """Run a self-test and compare its digest with the constant."""
    try:
        found = run()
    except Exception as problem:
        return Probe(device, False, f"failed: {type(problem).__name__}: {problem}")
    if found != expected:
        return Probe(device, False, f"WRONG: {found[:16]}, expected {expected[:16]}")
    return Probe(device, True, f"exact ({found[:16]})")
