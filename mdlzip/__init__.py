"""mdlzip: a file as a small sparse transformer plus the data coded with it.

    import mdlzip
    mdlzip.compress("notes.txt")                    # writes notes.txt.mdlz
    with mdlzip.open("notes.txt.mdlz") as archive:
        archive.read(1_000_000, 80)                 # decodes one group only
    mdlzip.decompress("notes.txt.mdlz", "copy.txt")

Nothing heavy is imported before the first of these names is used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as checkers read it; `typing` takes a while to load
if TYPE_CHECKING:
    from typing import Any

    from mdlzip.codec import (
        ArchiveFile,
        ArchiveInfo,
        Codec,
        CompressOptions,
        CompressReport,
        DecompressReport,
        compress,
        decompress,
        inspect,
        open,
        test,
        train_model,
    )

__version__ = "0.1.0"
__all__ = [
    "ArchiveFile",
    "ArchiveInfo",
    "Codec",
    "CompressOptions",
    "CompressReport",
    "DecompressReport",
    "__version__",
    "compress",
    "decompress",
    "inspect",
    "open",
    "test",
    "train_model",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module("mdlzip.codec"), name)
    globals()[name] = value
    return value
