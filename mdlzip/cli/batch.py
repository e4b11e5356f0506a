"""The FILEs of one command, one after another: go on after errors, report each, one document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mdlzip.cli.console import (
    ReportLost,
    event,
    result,
    result_json,
    speaks_events,
)
from mdlzip.cli.failures import READER_LEFT, describe, report_failure
from mdlzip.cli.options import Voice
from mdlzip.errors import Interrupted
from mdlzip.report import document, failure_json


@dataclass(frozen=True)
class Outcome:
    """What became of a FILE.

    entry: for --json; text: for people, "" for nothing; made: the file that is complete now, None
    where the command writes none; code: exit code, if it is not as good as it should be.
    """

    entry: Mapping[str, Any]
    text: str = ""
    made: object = None
    code: int = 0


@dataclass
class Batch:
    """Runs a command's action on each FILE.

    to_stderr: stdout carries the data, so reports go to stderr. key: of the list in the document.
    code: exit code so far, that of the first failure.
    """

    files: Sequence[str]
    voice: Voice
    to_stderr: bool = False
    key: str = "files"
    entries: list[Mapping[str, Any]] = field(default_factory=list)
    code: int = 0
    _made: list[object] = field(default_factory=list)
    _unheard: bool = False  # the reader of the reports has left

    def run(self, action: Callable[[str], Outcome]) -> int:
        """The exit code: 0, or that of the first FILE that failed; the others are still done.

        A signal, a stop after a checkpoint, or a reader of the data who leaves ends the whole run
        with its own code; the JSON document comes even then, if there is somebody to read it.
        """
        for file in self.files:
            try:
                outcome = action(file)
            except BaseException as problem:
                if not self._goes_on(file, problem):
                    break
            else:
                self.entries.append(outcome.entry)
                self._failed(outcome.code)
                if outcome.made is not None:
                    self._made.append(outcome.made)
                if not self._report(outcome):
                    break
        if self.voice.as_json and self.code != READER_LEFT:
            self._document()
        return self.code

    def _goes_on(self, file: str, problem: BaseException) -> bool:
        """Tell of a failure; whether the next FILE is to be tried."""
        text, code = describe(problem)
        self.entries.append(failure_json(file, text, code))
        self._failed(code := report_failure(problem, verbose=self.voice.verbose, file=file))
        if isinstance(problem, Exception) and not isinstance(problem, Interrupted):
            return code != READER_LEFT
        self.code = code
        return False

    def _report(self, outcome: Outcome) -> bool:
        """Print a report; a finished file stays finished, even if its report cannot be printed.

        False if standard output is closed and the command makes nothing but reports.
        """
        if self.voice.as_json or self.voice.quiet or self._unheard:
            return True
        try:
            if self.to_stderr and speaks_events():
                event("result", **outcome.entry)
            elif outcome.text:
                result(outcome.text, to_stderr=self.to_stderr)
        except BrokenPipeError as problem:
            self._unheard = True
            self._failed(report_failure(problem, verbose=0))
            return outcome.made is not None
        except ReportLost as problem:
            self._lost(problem, *([] if outcome.made is None else [outcome.made]))
        return True

    def _document(self) -> None:
        try:
            result_json(document(self.key, self.entries), to_stderr=self.to_stderr)
        except ReportLost as problem:
            self._lost(problem, *self._made)

    def _lost(self, problem: ReportLost, *made: object) -> None:
        """Tell that a report is missing, and that no more than the report is."""
        whole = f"{', '.join(map(str, made))}: complete, but not reported: " if made else ""
        self._failed(report_failure(ReportLost(f"{whole}{problem}"), verbose=self.voice.verbose))

    def _failed(self, code: int) -> None:
        self.code = self.code or code
