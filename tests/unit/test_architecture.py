"""The rules of docs/architecture.md, made executable."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdlzip.process.kernel_cache import kernel_sources

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mdlzip"
FILES = sorted(PACKAGE.rglob("*.py"))
LEVEL = {
    "errors": 0,
    "limits": 0,
    "config": 0,
    "process": 0,
    "callbacks": 0,
    "resources": 1,
    "fileio": 1,
    "corpus": 1,
    "symbols": 1,
    "matches": 1,
    "networks": 1,
    "model": 2,
    "sparsity": 2,
    "coding": 2,
    "training": 3,
    "quantised": 3,
    "experts": 3,
    "archive": 4,
    "codec": 5,
    "report": 5,
    "bench": 6,
    "studies": 6,
    "cli": 7,
    "__init__": 7,
    "__main__": 8,
}
FORBIDDEN = {
    ("archive", "training"),  # a decoder must not contain a trainer
    ("coding", "model"),
    ("model", "coding"),
    ("quantised", "training"),
}
TORCH_ROOMS = {"model", "sparsity", "training", "quantised", "coding", "studies"}
TORCH_FILES = {"mdlzip.symbols.kernels": PACKAGE / "symbols" / "kernels.py"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "joblib", "yaml"}
TOP_FOLDERS = {"mdlzip", "tests", "models", "docs"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(node: ast.AST) -> Iterator[str]:
    """Modules that one statement imports, `from mdlzip import x` counted as mdlzip.x."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        if node.module == "mdlzip":
            yield from (f"mdlzip.{alias.name}" for alias in node.names)
        else:
            yield node.module


def module_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run on import: not those in functions or under TYPE_CHECKING."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.ClassDef)):
            todo += [s for s in ast.iter_child_nodes(node) if isinstance(s, ast.stmt)]
            todo += [s for h in getattr(node, "handlers", []) for s in h.body]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_downwards(path: Path) -> None:
    room = room_of(path)
    used = {m for node in ast.walk(tree_of(path)) for m in imported_modules(node)}
    rooms = {m.split(".")[1] for m in used if m.startswith("mdlzip.")} - {room, "__version__"}
    for other in sorted(rooms):
        assert (room, other) not in FORBIDDEN, f"{room} must not import {other}"
        assert LEVEL[other] <= LEVEL[room], f"{room} must not import {other}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_heavy_imports_are_lazy(path: Path) -> None:
    room = room_of(path)
    loaded = {m for node in module_level(tree_of(path)) for m in imported_modules(node)}
    if room not in TORCH_ROOMS and path not in TORCH_FILES.values():
        assert not loaded & TORCH_FILES.keys()
        assert not {m for m in loaded if m.split(".")[0] in ("torch", "numba")}
    if room == "codec":
        assert not {m for m in loaded if m.startswith("mdlzip.training")}
    if room in ("cli", "__init__", "__main__"):
        heavy = {"numpy", "zstandard", "safetensors", "rich"}
        assert not {m for m in loaded if m.split(".")[0] in heavy}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_each_library_has_its_room(path: Path) -> None:
    room = room_of(path)
    used = {m.split(".")[0] for node in ast.walk(tree_of(path)) for m in imported_modules(node)}
    if room != "coding":
        assert "constriction" not in used
    if room != "process":  # one place decides how kernels are compiled and kept
        assert not used & {"numba", "llvmlite"}
    if room != "cli":
        assert not used & {"typer", "rich"}


def test_what_kernels_are_made_of_is_part_of_their_version() -> None:
    """Machine code of another version is never run, so every file that it depends on must count."""
    counted, seen = set(kernel_sources()), set[Path]()
    todo = [f for f in FILES if "process.kernels" in f.read_text() and room_of(f) != "cli"]
    assert {"coding", "experts", "matches", "quantised", "symbols"} <= set(map(room_of, todo))
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            assert path in counted, f"{path}: add its room to those with kernels"
            used = {m for node in module_level(tree_of(path)) for m in imported_modules(node)}
            files = [PACKAGE.parent / Path(*m.split(".")) for m in used if m.startswith("mdlzip.")]
            todo += [f for base in files for f in (base.with_suffix(".py"), base / "__init__.py")
                     if f.exists()]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=name)
def test_only_the_command_line_prints_and_exits(path: Path) -> None:
    if room_of(path) == "cli":
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"print", "sys.exit", "exit", "quit"}, (
                f"line {node.lineno}"
            )


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_runs_code_from_a_file(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        assert not {m.split(".")[0] for m in imported_modules(node)} & UNSAFE_MODULES
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "torch.load", "__import__"}, f"{node.lineno}"
            for keyword in node.keywords:
                allows = keyword.arg == "allow_pickle" and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                )
                assert not allows, f"line {node.lineno}"


def test_the_rules_catch_a_breach() -> None:
    tree = ast.parse("try:\n    import torch\nexcept ImportError:\n    import pickle\n")
    loaded = {m for node in module_level(tree) for m in imported_modules(node)}
    assert loaded == {"torch", "pickle"}
    hidden = ast.parse("def f():\n    import torch\nif TYPE_CHECKING:\n    import numba\n")
    assert not {m for node in module_level(hidden) for m in imported_modules(node)}


def test_every_room_has_a_level() -> None:
    assert {room_of(path) for path in FILES} <= set(LEVEL)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = next(
        line for line in (ROOT / "README.md").read_text().splitlines() if "-m pytest" in line
    )
    assert command.strip() in (ROOT / ".ci" / "run").read_text().splitlines()


def test_top_level_folders() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folders = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line}
    assert {f for f in folders if not f.startswith(".")} <= TOP_FOLDERS
