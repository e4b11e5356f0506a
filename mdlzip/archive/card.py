"""What a model file says of itself: a small JSON object in an optional section."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from mdlzip.archive.sections import storable_name
from mdlzip.errors import CorruptArchive
from mdlzip.limits import MAX_CARD_BYTES

SECTION = "card section"


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


def unpack_card(payload: bytes) -> Card:
    """Inverse of `pack_card`; fields that are not known are left out. Raises CorruptArchive."""
    try:
        found = json.loads(payload) if len(payload) <= MAX_CARD_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CorruptArchive(f"{SECTION}: is no JSON object")
    standard = asdict(Card())
    return Card(**{k: _checked(k, found.get(k, v), v) for k, v in standard.items()})


def _checked(name: str, value: Any, standard: Any) -> Any:
    """`value`, if it is of the type of the field's standard and may be shown."""
    kind = type(standard)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    good = type(value) is kind
    if good and kind is str:
        good = value == "" or storable_name(value) is not None
    elif good and kind in (int, float):
        good = math.isfinite(value) and 0 <= value < 1 << 63
    if not good:
        raise CorruptArchive(f"{SECTION}: {name} is not what it must be")
    return value
