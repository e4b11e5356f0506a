"""What long work calls back; all rooms mean the same by it."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, float, float, str], None]
"""phase ("compare", "tokenise", "plan", "train", "prune", "quantise", "encode", "verify", "decode",
"warning", or one of a study), done, total, note. In "plan" and "warning" there is only the note."""
