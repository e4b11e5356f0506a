"""The FILEs of a command, one after another, whatever happens to one of them."""

from __future__ import annotations

import pytest

from mdlzip.cli.batch import Batch, Outcome
from mdlzip.cli.options import Voice
from mdlzip.cli.signals import Cancelled
from mdlzip.errors import CorruptArchive, Interrupted


@pytest.mark.parametrize(
    ("problem", "code", "words"),
    [
        (ValueError("a\nb"), 1, "unexpected ValueError: a b; please report this"),
        (UnicodeEncodeError("latin-1", "x", 0, 1, "why"), 1, "unexpected UnicodeEncodeError"),
        (MemoryError(), 1, "not enough memory"),
        (OSError(5, "Input/output error", "disk"), 1, "disk: Input/output error"),
        (CorruptArchive("bad"), 3, "bad"),
        (RecursionError("deep"), 1, "unexpected RecursionError"),
    ],
)
def test_the_others_are_done_after_any_error(
    problem: Exception, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def action(file: str) -> Outcome:
        if file == "2":
            raise problem
        return Outcome({"file": file}, f"{file} done")

    batch = Batch(["1", "2", "3"], Voice())
    assert batch.run(action) == code
    out, error = capsys.readouterr()
    assert out == "1 done\n3 done\n"
    assert error.startswith(f"mdlzip: 2: {words}") and error.count("\n") == 1
    assert [e["file"] for e in batch.entries] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("problem", "code"),
    [(Cancelled(15), 143), (Interrupted("stopped"), 130), (BrokenPipeError(), 141)],
)
def test_a_stop_ends_the_whole_run_with_its_own_code(
    problem: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def action(file: str) -> Outcome:
        raise CorruptArchive("bad") if file == "1" else problem

    batch = Batch(["1", "2", "3"], Voice())
    expected = 3 if code == 141 else code  # a reader who leaves is no news, the damage is
    assert batch.run(action) == expected
    assert [e["file"] for e in batch.entries] == ["1", "2"]
