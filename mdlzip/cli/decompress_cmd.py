"""`mdlzip decompress`: bytes back, metadata back."""

from __future__ import annotations

from mdlzip.cli import options as opt
from mdlzip.cli.console import for_each, guarded, result
from mdlzip.cli.progress import make_progress
from mdlzip.cli.signals import StopSwitch
from mdlzip.cli.terminal import STDIO, check_input, check_output, destination, single_destination
from mdlzip.cli.values import check_exclusive, parse_size


@guarded
def decompress(
    files: opt.Files,
    output: opt.Output = None,
    stdout: opt.Stdout = False,
    force: opt.Force = False,
    keep: opt.Keep = False,
    remove: opt.Remove = False,
    device: opt.Device = "auto",
    threads: opt.Threads = None,
    memory: opt.Memory = "2GiB",
    allow_slow: opt.AllowSlow = False,
    progress: opt.ProgressMode = "auto",
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = 0,
) -> int:
    """Give the original back, bit for bit, with its name, mode and time."""
    from mdlzip import codec

    check_exclusive({"--keep": keep or None, "--rm": remove or None})
    target = destination(files, output, stdout=stdout, joined=True)
    limit = parse_size(memory)

    def one(file: str) -> None:
        dst = single_destination(file, target)
        check_input(file, archive=True)
        check_output(dst, force=force)
        with StopSwitch().installed(), make_progress(progress, quiet=quiet) as show:
            report = codec.decompress(
                file,
                dst,
                force=force,
                memory=limit,
                allow_slow=allow_slow,
                device=device,
                threads=threads,
                on_progress=show,
                remove_source=remove,
            )
        if not quiet and dst != STDIO:
            result(f"{file}: {report.original_bytes:,} bytes -> {report.path}")

    return for_each(files, one, verbose=verbose)
