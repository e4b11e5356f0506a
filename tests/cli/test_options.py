"""Each option is defined in one place of `mdlzip/cli`."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

CLI = Path(__file__).resolve().parents[2] / "mdlzip" / "cli"
# Where the same word has another value: a file, a result as JSON, weights, a folder; the checkpoint
# of a run or the runs of a study; all steps of a training or those under the penalty; one method or
# several.
OTHER_VALUES = {"--output": 5, "--resume": 2, "--steps": 2, "--method": 2}


def definitions(tree: ast.AST) -> list[str]:
    """The first name of every typer.Option."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    options = [c for c in calls if ast.unparse(c.func) == "typer.Option"]
    names = [a.value for c in options for a in c.args[:1] if isinstance(a, ast.Constant)]
    assert len(names) == len(options)
    return names


def test_each_option_is_defined_once() -> None:
    found = Counter(
        name for path in CLI.rglob("*.py") for name in definitions(ast.parse(path.read_text()))
    )
    assert len(found) > 40
    assert {name: n for name, n in found.items() if n > 1} == OTHER_VALUES
