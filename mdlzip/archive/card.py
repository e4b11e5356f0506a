"""What a model file says of itself: a small JSON object in an optional section."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from mdlzip.archive.sections import storable_name
from mdlzip.limits import MAX_CARD_BYTES


@dataclass(frozen=True)
class Card:
    """For people and for the choice of a model; no decoder needs it.

    name: as `-D` may call it. records: whether it was trained on records, each by itself.
    trained_bytes: that training saw. held_out_bytes: that it did not see, and held_out_bits: what
    the network alone spends on them, for all of them together.
    """

    name: str = ""
    records: bool = False
    trained_bytes: int = 0
    held_out_bytes: int = 0
    held_out_bits: float = 0.0

    @property
    def held_out_bits_per_byte(self) -> float | None:
        """None if nothing was held out."""
        return self.held_out_bits / self.held_out_bytes if self.held_out_bytes else None


def pack_card(card: Card) -> bytes:
    """The payload of the section."""
    return json.dumps(asdict(card), separators=(",", ":")).encode()


def unpack_card(payload: bytes) -> Card | None:
    """Inverse of `pack_card`; fields that are not known are left out. None for what is no card."""
    try:
        found = json.loads(payload) if len(payload) <= MAX_CARD_BYTES else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    standard = asdict(Card())
    values = {name: found.get(name, value) for name, value in standard.items()}
    good = all(_is_like(values[name], value) for name, value in standard.items())
    return Card(**values) if good else None


def _is_like(value: Any, standard: Any) -> bool:
    """Whether a value is of the type of the field's standard and may be shown."""
    if isinstance(standard, str):
        return value == "" or (isinstance(value, str) and storable_name(value) is not None)
    if isinstance(standard, bool) or isinstance(value, bool):
        return type(value) is type(standard)
    kinds = (int, float) if isinstance(standard, float) else (int,)
    return isinstance(value, kinds) and math.isfinite(value) and 0 <= value < 1 << 63
