"""The studies are an extra: the compressor does not know them, and they say what they need."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import cli_environment
from tests.unit.test_architecture import FILES, PACKAGE, ROOT, imported_modules, tree_of

STUDIES = PACKAGE / "studies"
COMMANDS = PACKAGE / "cli" / "study"
NAMES = ("transformer f", "teacher-student", "mnist --data .", "cifar --data .",
         "imagenet --data .", "overhead f")  # fmt: skip


def program(*without: str, words: str) -> subprocess.CompletedProcess[str]:
    """mdlzip with `words`, where the modules `without` cannot be imported."""
    code = (
        f"import sys\nfor name in {without!r}: sys.modules[name] = None\n"
        f"from mdlzip.cli.app import main; main({words.split()!r})"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=cli_environment(),
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_compressor_does_not_import_the_studies(path: Path) -> None:
    used = {m for node in ast.walk(tree_of(path)) for m in imported_modules(node)}
    if STUDIES not in path.parents and COMMANDS not in path.parents:
        assert not {m for m in used if re.match(r"mdlzip\.studies\b", m)}
    if COMMANDS not in path.parents and path != PACKAGE / "cli" / "app.py":
        assert not {m for m in used if re.match(r"mdlzip\.cli\.study\b", m)}


def test_packages_of_the_extra_are_named_once() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    names = {name: {re.split(r"[<>=]", text)[0] for text in extras[name]} for name in extras}
    assert names["studies"] == {"matplotlib", "pillow"}
    assert "mdlzip[bench,studies]" in extras["dev"]
    assert not names["studies"] & names["bench"]


@pytest.mark.parametrize("words", NAMES)
def test_a_study_without_the_extra(words: str) -> None:
    done = program("matplotlib", "PIL", words=f"study {words}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "mdlzip: the studies need matplotlib and Pillow: pip install 'mdlzip[studies]'\n"
    )


def test_one_package_is_missing() -> None:
    assert "need Pillow: pip" in program("PIL", words="study overhead f").stderr


def test_help_needs_no_extra() -> None:
    assert program("matplotlib", "PIL", words="study mnist --help").returncode == 0
