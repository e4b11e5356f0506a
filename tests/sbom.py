"""The bill of materials: what a user installs with mdlzip, in CycloneDX 1.6.

`python -m tests.sbom` writes docs/sbom.json from the lock file: the versions are those of CI.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

LOCK = ROOT / ".ci" / "lock.txt"
RESULT = ROOT / "docs" / "sbom.json"
_HASH = r"    --hash=sha256:[0-9a-f]{64}[ \\]*\n"
_ENTRY = re.compile(rf"^([\w.-]+)==([^\s;]+).*?\\\n((?:{_HASH})+)", re.M)
_CPU_BUILD = "+cpu"
_CUDA_BUILD = ("nvidia-", "cuda-", "triton")  # what torch for CUDA needs besides


def locked() -> dict[str, tuple[str, list[str]]]:
    """Name -> (version, SHA-256 of its files)."""
    return {
        canonicalize_name(name): (version, re.findall(r"[0-9a-f]{64}", hashes))
        for name, version, hashes in _ENTRY.findall(LOCK.read_text())
    }


def needed() -> list[str]:
    """What mdlzip needs without extras, and what that needs, by name."""
    found: set[str] = set()
    todo = ["mdlzip"]
    while todo:
        name = canonicalize_name(todo.pop())
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or []:
            wanted = Requirement(text)
            if wanted.name.startswith(_CUDA_BUILD):
                continue
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                todo.append(wanted.name)
    return sorted(found - {"mdlzip"})


def bill() -> dict[str, object]:
    """The document."""
    entries, components = locked(), []
    for name in needed():
        version, hashes = entries.get(name, ("", []))
        version = version or metadata.version(name).removesuffix(_CPU_BUILD)
        component: dict[str, object] = {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
        }
        if hashes:
            component["hashes"] = [{"alg": "SHA-256", "content": h} for h in hashes]
        components.append(component)
    about = {"type": "application", "name": "mdlzip", "version": metadata.version("mdlzip")}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": about},
        "components": components,
    }


if __name__ == "__main__":
    RESULT.write_text(json.dumps(bill(), indent=1) + "\n")
    sys.exit(0)
