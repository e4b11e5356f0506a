"""A second decoder of the coded weights stream, written from docs/format.md in plain Python.

It shares no code with mdlzip and is slow (some 40,000 decisions a second). Names follow the page.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from functools import cache
from typing import Any

KINDS = ["embedding", "q", "k", "v", "out", "up", "down", "head", "conv", "gain", "bias"]


@cache
def squash_values() -> list[int]:
    upper, e = [], 1 << 62
    for _ in range(12289):
        upper.append(min((1 << 78) // ((1 << 62) + e), 65535))
        e = e * 4607184617107619806 >> 62
    return [65536 - upper[-x] if x < 0 else upper[x] for x in range(-12288, 12288)]


@cache
def stretch(i: int) -> int:
    return bisect_right(squash_values(), 16 * i + 8) - 1 - 12288


def level(s: int, v: int) -> int:
    if v == 0:
        return 0
    o = v.bit_length() - 1
    return 1 + (o << s) + ((v << s >> o) - (1 << s))


def coarse(v: int) -> int:
    return level(1, v)


def size(m: int) -> int:
    return m if m < 3 else 3 if m < 5 else 4 if m < 9 else 5 if m < 17 else 6


def direction(x: int) -> int:
    return 0 if x == 0 else 1 if x > 0 else 2


def share(x: int, y: int) -> int:
    return x * 15 // (y + 1) + 16


def clamp(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


class BinaryDecoder:
    def __init__(self, stream: bytes) -> None:
        self.stream, self.at = stream, 0
        self.range, self.code = 1 << 32, 0
        for _ in range(4):
            self.code = self.code << 8 | self.byte()

    def byte(self) -> int:
        self.at += 1
        return self.stream[self.at - 1] if self.at <= len(self.stream) else 0

    def bit(self, p: int) -> int:
        bound = self.range * p >> 16
        bit = int(self.code < bound)
        if bit:
            self.range = bound
        else:
            self.code -= bound
            self.range -= bound
        while self.range < 1 << 24:
            self.range <<= 8
            self.code = self.code << 8 | self.byte()
        return bit


class Mixer:
    def __init__(self, stream: bytes) -> None:
        self.coder = BinaryDecoder(stream)
        self.slots: dict[Any, list[int]] = defaultdict(lambda: [1 << 21, 0])
        self.sets: dict[Any, list[int]] = {}

    def decide(self, contexts: list[Any], name_a: Any, first: int, name_b: Any) -> int:
        slots = [self.slots[j, context] for j, context in enumerate(contexts)]
        a = self.sets.setdefault(name_a, [first] * 11 + [0])
        b = self.sets.setdefault(name_b, [0] * 12)
        x = [stretch(q >> 10) * (256 * n // (n + 4)) >> 8 for q, n in slots] + [256]
        dot = sum(v * (a[j] + b[j]) for j, v in enumerate(x))
        p = squash_values()[clamp(dot >> 16, -12288, 12287) + 12288]
        bit = self.coder.bit(clamp(p, 4, 65532))
        error = ((bit << 16) - p) * (2 + 320 // (16 + a[11]))
        a[11] = min(a[11] + 1, 4095)
        for j, v in enumerate(x):
            step = v * error + (1 << 21) >> 22
            a[j] += step
            b[j] += step
        for slot in slots:
            q, n = slot
            target = (1 << 22) - 256 if bit else 256
            slot[0] = q + ((target - q) * (131072 // (2 * n + 3)) >> 16)
            slot[1] = min(n + 1, 400)
        return bit


def bands(name: str, rows: int) -> list[tuple[str, int, str, str]]:
    """Kind, height, row axis, column axis of each band."""
    last = name.split(".")[-1]
    i = name.split(".")[1] if "." in name else ""
    if last == "qkv":
        axes = {"q": f"key {i}", "k": f"key {i}", "v": f"value {i}"}
        return [(kind, rows // 3, axis, "channel") for kind, axis in axes.items()]
    table = {
        "embedding": ("byte", "channel"),
        "head": ("byte", "channel"),
        "out": ("channel", f"value {i}"),
        "up": (f"hidden {i}", "channel"),
        "down": ("channel", f"hidden {i}"),
        "conv": ("", "channel"),
        "gain": ("", "channel"),
    }
    if last in table:
        return [(last, rows, *table[last])]
    special = {"qkv_bias": "", "up_bias": f"hidden {i}", "head_bias": "byte", "match": ""}
    return [("bias", rows, "", special.get(last, "channel"))]


class SecondDecoder:
    """Decodes one tensor after the other from a coded stream."""

    def __init__(self, stream: bytes) -> None:
        self.mixer = Mixer(stream)
        self.axes: dict[str, tuple[list[int], int]] = {}
        self.like: dict[tuple[str, int, int], list[list[int]]] = {}

    def tensor(self, name: str, shape: tuple[int, ...]) -> list[list[int]]:
        rows, columns = shape if len(shape) == 2 else (1, shape[0])
        limit = 63 if len(shape) == 2 else 127
        out: list[list[int]] = []
        for kind, height, row_axis, column_axis in bands(name, rows):
            w = self.band(kind, height, columns, row_axis, column_axis, limit)
            out += w
            self.like[kind, height, columns] = w
            sums = [sum(abs(w[r][c]) for r in range(height)) for c in range(columns)]
            self.learn(column_axis, sums)
            self.learn(row_axis, [sum(map(abs, row)) for row in w])
        return out

    def learn(self, axis: str, s: list[int]) -> None:
        if not axis:
            return
        relative = [64 * v * len(s) // max(sum(s), 1) for v in s]
        if axis not in self.axes:
            self.axes[axis] = relative, 1
            return
        sums, count = self.axes[axis]
        for i in range(min(len(sums), len(relative))):
            sums[i] += relative[i]
        self.axes[axis] = sums, count + 1

    def axis_levels(self, axis: str, n: int) -> list[int]:
        sums, count = self.axes.get(axis, ([], 1))
        known = [coarse(min(v // count, 32767)) for v in sums[:n]]
        return known + [0] * (n - len(known))

    def band(
        self, kind: str, height: int, width: int, row_axis: str, column_axis: str, limit: int
    ) -> list[list[int]]:
        number, old = KINDS.index(kind), self.like.get((kind, height, width))
        w = [[0] * width for _ in range(height)]
        far = 32 if kind in ("embedding", "head") else 0

        def at(codes: list[list[int]] | None, r: int, c: int) -> int:
            return codes[r][c] if codes and 0 <= r < height and 0 <= c < width else 0

        row_levels = self.axis_levels(row_axis, height)
        column_levels = self.axis_levels(column_axis, width)
        total = cells = 0
        column, column_signed, column_recent = [0] * width, [0] * width, [0] * width
        for r in range(height):
            row = row_signed = 0
            row_recent = (total << 8) // (cells + 1)
            for c in range(width):
                mean = ((total << 8) + 256) // (cells + 1)
                row_mean = ((row << 8) + 4 * mean) // (c + 4)
                column_mean = ((column[c] << 8) + 4 * mean) // (r + 4)
                left, up = at(w, r, c - 1), at(w, r - 1, c)
                corners = at(w, r - 1, c - 1), at(w, r - 1, c + 1)
                f = at(w, r - far, c) if far else 0
                around = 2 * abs(left) + 2 * abs(up) + abs(corners[0]) + abs(corners[1])
                around += abs(at(w, r, c - 2)) + abs(at(w, r - 2, c))
                near = 2 * abs(at(old, r, c)) + abs(at(old, r, c - 1)) + abs(at(old, r, c + 1))
                near += abs(at(old, r - 1, c)) + abs(at(old, r + 1, c))
                lv = level(2, min(row_mean * column_mean // (mean + 1), 32767))
                fifth = (size(abs(at(old, r, c))) + (old is not None), coarse(near))
                contexts = [
                    number,
                    (size(abs(left)), size(abs(up)), corners[0] != 0, corners[1] != 0),
                    abs(up),
                    (coarse(row_mean), coarse(column_mean)),
                    lv,
                    (size(abs(f)), coarse(around)) if far else fifth,
                    (column_levels[c], row_levels[r]),
                    (coarse(row_recent), coarse(column_recent[c])),
                    (number, lv),
                    min(c, 4095),
                ]
                value = magnitude = self.magnitude(contexts, number, limit)
                if magnitude:
                    around4 = (left, up, *corners)
                    sign = [
                        number,
                        tuple(map(direction, around4)),
                        (direction(up), size(abs(up))),
                        share(column_signed[c], column[c]),
                        share(row_signed, row),
                        (direction(at(old, r, c)), direction(f)),
                        (direction(f), size(abs(f))),
                    ]
                    keyed = [("sign", context) for context in sign]
                    sets = ("sign a", number), 10000, ("sign b", number)
                    value = -magnitude if self.mixer.decide(keyed, *sets) else magnitude
                w[r][c] = value
                row, row_signed = row + magnitude, row_signed + value
                row_recent += (magnitude << 8) - row_recent >> 4
                column[c] += magnitude
                column_signed[c] += value
                column_recent[c] += (magnitude << 8) - column_recent[c] >> 3
                total, cells = total + magnitude, cells + 1
        return w

    def magnitude(self, contexts: list[Any], number: int, limit: int) -> int:
        low, high, is_open = 0, 127, True
        while low < high:
            node = (low, high)
            if low < 2:
                t = low + 1
            elif is_open and 2 * low - 1 <= high:
                t = 2 * low - 1
            else:
                t, is_open = (low + high + 1) // 2, False
            yes = 0
            if t <= limit:
                keyed = [(node, context) for context in contexts]
                yes = self.mixer.decide(keyed, ("node", node), 7000, ("kind", number))
            if yes:
                low = t
            else:
                high, is_open = t - 1, False
        return low
