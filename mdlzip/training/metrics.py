"""metrics.jsonl: one JSON object a line, units in the keys."""

from __future__ import annotations

import json
from pathlib import Path


class Metrics:
    """Appends lines to a file; a resumed run goes on in the same one."""

    def __init__(self, path: Path | None, *, resume: bool = False) -> None:
        self._file = path.open("a" if resume else "w", encoding="utf-8") if path else None

    def write(self, event: str, **values: float | str) -> None:
        """One line {"event": ..., ...}, flushed at once."""
        if self._file:
            clean = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
            self._file.write(json.dumps({"event": event, **clean}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
