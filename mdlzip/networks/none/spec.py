"""No tensors and no sites; the vocabulary is all that is said."""

from __future__ import annotations

from dataclasses import dataclass

from mdlzip.errors import UsageError
from mdlzip.limits import MAX_MERGES
from mdlzip.networks.spec import Family, FieldSpec


@dataclass(frozen=True)
class NoNetwork:
    """The experts predict without a network. n_merges: merges of the vocabulary.

    Raises UsageError for more merges than a vocabulary may have.
    """

    n_merges: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.n_merges <= MAX_MERGES:
            raise UsageError(f"n_merges = {self.n_merges}: must be 0..{MAX_MERGES}")


FAMILY = Family(
    "none", 1, NoNetwork, (FieldSpec("n_merges", 2),), lambda config: (), lambda config: ()
)
