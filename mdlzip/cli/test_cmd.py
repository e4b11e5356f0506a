"""`mdlzip test`: decode and check everything, write nothing."""

from __future__ import annotations

from mdlzip.cli import options as opt
from mdlzip.cli.console import for_each, guarded, result
from mdlzip.cli.progress import make_progress
from mdlzip.cli.signals import StopSwitch
from mdlzip.cli.terminal import check_input
from mdlzip.cli.values import parse_size


@guarded
def test(
    files: opt.Files,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    memory: opt.Memory = "2GiB",
    allow_slow: opt.AllowSlow = False,
    progress: opt.ProgressMode = "auto",
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
) -> int:
    """Decode the archives, compare every checksum, write nothing."""
    from mdlzip import codec

    limit = parse_size(memory)

    def one(file: str) -> None:
        check_input(file, archive=True)
        with StopSwitch().installed(), make_progress(progress, quiet=quiet) as show:
            codec.test(
                file,
                memory=limit,
                device=device,
                threads=threads,
                on_progress=show,
                allow_slow=allow_slow,
            )
        if not quiet:
            result(f"{file}: OK")

    return for_each(files, one, verbose=verbose)
