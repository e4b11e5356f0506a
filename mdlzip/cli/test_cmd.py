"""`mdlzip test`: decode and check everything, write nothing."""

from __future__ import annotations

from mdlzip.cli import options as opt
from mdlzip.cli.batch import Batch, Outcome
from mdlzip.cli.failures import guarded
from mdlzip.cli.progress import under_way
from mdlzip.cli.terminal import check_input, files_or_stdin
from mdlzip.report import printable


@guarded
def test(files: opt.Files = None, *, machine: opt.Decoding, display: opt.Display) -> int:
    """Decode the archives, compare every checksum, write nothing."""
    from mdlzip import codec

    where = machine.chosen()

    def one(file: str) -> Outcome:
        check_input(file, archive=True)
        with under_way(display.progress, quiet=display.quiet) as show:
            codec.test(file, on_progress=show, **where)
        return Outcome({"file": file, "ok": True}, f"{printable(file)}: OK")

    return Batch(files_or_stdin(files), display).run(one)
