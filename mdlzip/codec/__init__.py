"""The one place that joins the parts: compress, decompress, test, inspect, open.

Names are loaded when they are first used, so that options and reports cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mdlzip.callbacks import OnProgress

if TYPE_CHECKING:
    from mdlzip.codec.access import ArchiveFile, copy_lines, copy_range, open_archive
    from mdlzip.codec.access import open_archive as open
    from mdlzip.codec.decode import decompress, test
    from mdlzip.codec.encode import compress
    from mdlzip.codec.exchange import export_weights, import_weights, read_network
    from mdlzip.codec.inspection import inspect
    from mdlzip.codec.model_training import ModelReport, train_model
    from mdlzip.codec.options import WARNING as WARNING
    from mdlzip.codec.options import (
        ArchiveInfo,
        CompressOptions,
        CompressReport,
        DecompressReport,
        SalvageReport,
    )
    from mdlzip.codec.records import Codec
    from mdlzip.codec.salvaging import salvage

_HOME = {
    "ArchiveFile": "access",
    "open_archive": "access",
    "copy_range": "access",
    "copy_lines": "access",
    "compress": "encode",
    "decompress": "decode",
    "salvage": "salvaging",
    "test": "decode",
    "inspect": "inspection",
    "export_weights": "exchange",
    "import_weights": "exchange",
    "read_network": "exchange",
    "train_model": "model_training",
    "Codec": "records",
    "ModelReport": "model_training",
    "ArchiveInfo": "options",
    "CompressOptions": "options",
    "CompressReport": "options",
    "DecompressReport": "options",
    "SalvageReport": "options",
    "WARNING": "options",
}

__all__ = [  # noqa: RUF022 (in the order of use)
    "compress",
    "decompress",
    "salvage",
    "test",
    "inspect",
    "open",
    "open_archive",
    "copy_range",
    "copy_lines",
    "export_weights",
    "import_weights",
    "read_network",
    "train_model",
    "Codec",
    "ArchiveFile",
    "ArchiveInfo",
    "CompressOptions",
    "CompressReport",
    "DecompressReport",
    "ModelReport",
    "OnProgress",
    "SalvageReport",
    "WARNING",
]


def __getattr__(name: str) -> Any:
    key = "open_archive" if name == "open" else name
    if key not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[key]}"), key)
    globals()[name] = value
    return value
