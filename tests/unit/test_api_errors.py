"""Errors of the library as callers meet them who know Python's classes only."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

import mdlzip
from mdlzip import codec
from mdlzip.errors import (
    FileProblem,
    IsFolder,
    MdlzipError,
    MissingFile,
    NotPermitted,
    OutputExists,
    UsageError,
    WrongType,
    file_problem,
)

READERS: dict[str, Callable[[object], object]] = {
    "open": lambda path: mdlzip.open(path),  # type: ignore[arg-type]
    "inspect": lambda path: mdlzip.inspect(path),  # type: ignore[arg-type]
    "test": lambda path: mdlzip.test(path),  # type: ignore[arg-type]
    "decompress": lambda path: mdlzip.decompress(path, "out"),  # type: ignore[arg-type]
    "read_network": lambda path: codec.read_network(path),  # type: ignore[arg-type]
    "export": lambda path: codec.export_weights(path, "out"),  # type: ignore[arg-type]
    "import": lambda path: codec.import_weights(path, "src", "out"),  # type: ignore[arg-type]
}
ANY_SOURCE = {**READERS, "compress": lambda path: mdlzip.compress(path, "out")}  # type: ignore[arg-type]
OUTPUTS: dict[str, Callable[[object], object]] = {
    "compress": lambda path: mdlzip.compress("src", path),  # type: ignore[arg-type]
    "decompress": lambda path: mdlzip.decompress("src", path),  # type: ignore[arg-type]
    "export": lambda path: codec.export_weights("src", path),  # type: ignore[arg-type]
    "import": lambda path: codec.import_weights("weights", "src", path),  # type: ignore[arg-type]
}


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ANY_SOURCE)
def test_a_missing_file_is_a_file_not_found_error(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="nope") as caught:
        ANY_SOURCE[name]("nope")
    assert isinstance(caught.value, MdlzipError) and caught.value.exit_code == 1
    assert "\n" not in str(caught.value) and "[Errno" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"import"}))
def test_a_folder_is_an_is_a_directory_error(name: str) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder") as caught:
        READERS[name](".")
    assert isinstance(caught.value, UsageError) and caught.value.exit_code == 2


@pytest.mark.parametrize("name", ANY_SOURCE)
@pytest.mark.parametrize(
    "value",
    [io.BytesIO(b"x"), b"bytes", 3, None, ["a"]],
    ids=["stream", "bytes", "number", "None", "list"],
)
def test_what_is_no_path_is_a_type_error(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__) as caught:
        ANY_SOURCE[name](value)
    assert isinstance(caught.value, WrongType) and "path" in str(caught.value)


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize(
    ("value", "kind"), [(io.BytesIO(), TypeError), (b"out", TypeError), ("", UsageError)]
)
def test_outputs_are_checked_alike(name: str, value: object, kind: type[Exception]) -> None:
    Path("src").write_bytes(b"x")
    with pytest.raises(kind, match="dst"):
        OUTPUTS[name](value)
    assert [p.name for p in Path().iterdir()] == ["src"]


@pytest.mark.parametrize("name", ANY_SOURCE)
@pytest.mark.parametrize(("value", "words"), [("", "empty"), ("a\0b", "null byte")])
def test_impossible_names_are_usage_errors(name: str, value: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ANY_SOURCE[name](value)


def test_an_output_that_exists_is_a_file_exists_error() -> None:
    Path("src").write_bytes(b"x")
    Path("out").write_bytes(b"precious")
    with pytest.raises(FileExistsError) as caught:
        mdlzip.compress("src", "out")
    assert isinstance(caught.value, OutputExists) and caught.value.exit_code == 6
    assert Path("out").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (FileNotFoundError(2, "no", "x"), MissingFile),
        (PermissionError(1, "no", "x"), NotPermitted),
        (IsADirectoryError(21, "no", "x"), IsFolder),
        (OSError(28, "full", "x"), FileProblem),
    ],
)
def test_each_error_of_the_system_has_its_class(cause: OSError, kind: type[FileProblem]) -> None:
    problem = file_problem("x: cannot open: no", cause)
    assert type(problem) is kind and isinstance(problem, type(cause))
    assert str(problem) == "x: cannot open: no"
    assert (problem.errno, problem.filename) == (cause.errno, "x")
