"""The results of a study: one JSON line a run, so that a study that was killed goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mdlzip.errors import OutputExists, UsageError

FILE_NAME = "runs.jsonl"
Key = Mapping[str, Any]


class RunLog:
    """Lines {"key": {...}, ...result...} in DIR/runs.jsonl; a key names the settings of a run.

    folder: made if it is missing. resume: keep what is there and go on; force: begin anew; with
    neither, a log that is there already raises OutputExists. A last line that was cut off by a
    kill is dropped; any other line that is not one of ours raises UsageError.
    """

    def __init__(self, folder: Path, *, resume: bool = False, force: bool = False) -> None:
        self.path = folder / FILE_NAME
        if self.path.exists() and not (resume or force):
            raise OutputExists(f"{self.path} exists; --resume goes on with it, --force begins anew")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot make the folder: {error.strerror}") from None
        self._runs: dict[str, dict[str, Any]] = {}
        if resume and self.path.exists():
            self._read()
        else:
            self.path.write_text("", encoding="utf-8")

    def _read(self) -> None:
        whole = 0
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break
            try:
                run = json.loads(line)
                self._runs[_name(run["key"])] = run
            except (ValueError, KeyError, TypeError):
                raise UsageError(f"{self.path}: line {number} is not a run of a study") from None
            whole += len(line)
        os.truncate(self.path, whole)

    def find(self, key: Key) -> dict[str, Any] | None:
        """The run of these settings, None if it has not been made."""
        return self._runs.get(_name(key))

    def add(self, key: Key, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write a finished run; it is on the disk when this returns."""
        run = {"key": dict(key), **result}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._runs[_name(key)] = run
        return run

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All runs, in the order in which they were made."""
        return iter(self._runs.values())

    def __len__(self) -> int:
        return len(self._runs)


def _name(key: Key) -> str:
    return json.dumps(key, sort_keys=True)
