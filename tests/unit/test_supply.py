"""What mdlzip is built from and into: bounds, a lock file, packages that come out the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import sbom
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
REQUIREMENTS = [
    Requirement(text)
    for text in (
        *PROJECT["build-system"]["requires"],
        *PROJECT["project"]["dependencies"],
        *(text for extra in EXTRAS.values() for text in extra),
    )
    if not text.startswith("mdlzip[")
]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_every_dependency_has_both_bounds(requirement: Requirement) -> None:
    operators = {bound.operator for bound in requirement.specifier}
    assert {">=", "<"} <= operators


def test_the_lock_file_holds_what_is_asked_for() -> None:
    entries, text = sbom.locked(), sbom.LOCK.read_text()
    assert len(entries) == len(re.findall(r"^[\w.-]+==", text, re.M)), "an entry without hashes"
    for requirement in REQUIREMENTS:
        if requirement.name != "torch":  # its CPU wheel is on an index of its own
            version, _ = entries[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version)


def test_the_bill_of_materials_is_that_of_the_lock_file() -> None:
    """`python -m tests.sbom` writes it anew."""
    components = json.loads(sbom.RESULT.read_text())["components"]
    listed = {
        c["name"]: (c["version"], [h["content"] for h in c.get("hashes", [])]) for c in components
    }
    own = map(Requirement, PROJECT["project"]["dependencies"])
    assert {canonicalize_name(r.name) for r in own} <= set(listed)
    for name, entry in sbom.locked().items():
        assert listed.get(name, entry) == entry


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Path]]:
    """Wheel and sdist of two copies of the source, in other folders, with other times."""
    found = []
    for i in range(2):
        folder = tmp_path_factory.mktemp("copy") / f"source-{i}"
        shutil.copytree(ROOT, folder, ignore=_not_source)
        for path in folder.rglob("*"):
            os.utime(path, (10**9 + i, 10**9 + i))
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-d", "out"],
            cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
        found.append({path.suffix: path for path in (folder / "out").iterdir()})
    return found


def _not_source(folder: str, names: list[str]) -> set[str]:
    ours = {".venv", ".git", "__pycache__", "out"}
    return {n for n in names if n in ours or (n.startswith(".") and n.endswith("_cache"))}


def test_packages_are_the_same_byte_for_byte(built: list[dict[str, Path]]) -> None:
    assert set(built[0]) == {".whl", ".gz"}
    for kind in built[0]:
        assert built[0][kind].read_bytes() == built[1][kind].read_bytes()


@pytest.fixture
def unpacked(built: list[dict[str, Path]], tmp_path: Path) -> Path:
    """The source distribution."""
    with tarfile.open(built[0][".gz"]) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    return folder


def test_the_source_distribution_holds_its_tests(unpacked: Path) -> None:
    """Every file there is; some tests run in it, with `-m slow` all."""
    rooms = [p for p in ROOT.iterdir() if p.name in ("mdlzip", "models", "tests", "docs", ".ci")]
    kept = {p for room in rooms for p in room.rglob("*") if p.is_file()}
    kept = {p for p in kept if "__pycache__" not in p.parts}
    assert len(kept) > 400
    assert not [p for p in kept if not (unpacked / p.relative_to(ROOT)).is_file()]
    run(unpacked, *(f"tests/unit/test_{name}.py" for name in ("documents", "report", "tables")))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_source_distribution_passes_its_tests(unpacked: Path) -> None:
    run(unpacked, "-n", "auto", "--deselect", "tests/unit/test_supply.py")


def run(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
