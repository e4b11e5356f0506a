"""docs/format.md: the context section, and the units of groups that follow from it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

from tests.second_decoder.fields import Fields, require

GROUP, REFERENCE, SOLID = 1, 2, 3


@dataclass
class Context:
    """bits: log2 of buckets, records, heads; lane: chunks of a lane; grid: bytes of a row (0 for
    none) and of an element; numbers: the reference groups, or the waves' edges."""

    mode: int
    bits: list[int]
    lane: int
    grid: tuple[int, int]
    numbers: list[int]


def longest_section(n_groups: int) -> int:
    """Most bytes of the payload."""
    return 11 + (n_groups + 1) * -(-n_groups.bit_length() // 7)


def read_context(fields: Fields, n_groups: int) -> Context:
    context = Context(fields.number(1, GROUP, SOLID), [], 1, (0, 1), [])
    context.bits = [fields.number(1, 8, 24) for _ in range(3)]
    context.lane = fields.varint(65535) + 1
    if row := fields.varint(65535):
        context.grid = row, fields.varint(7) + 1
    if context.mode != GROUP:
        count = fields.varint(n_groups - 1) + 1
        entries = (fields.varint(n_groups - 1) + 1 for _ in range(count))
        # Reference groups rise from -1, edges of waves from 0.
        context.numbers = list(accumulate(entries, initial=-(context.mode == REFERENCE)))
    last = context.numbers[-1] if context.numbers else 0
    require(context.mode != REFERENCE or last < n_groups, "context: no such reference group")
    require(context.mode != SOLID or last == n_groups, "context: the waves are not all groups")
    fields.end()
    return context


def units_of(context: Context | None, n_groups: int) -> Iterator[Iterable[int]]:
    """The groups of each unit."""
    numbers = context.numbers if context else []
    if context and context.mode == SOLID:
        yield from (range(*wave) for wave in pairwise(numbers))
        return
    if references := numbers[1:]:
        yield references
    others = set(references)
    yield from ([group] for group in range(n_groups) if group not in others)
