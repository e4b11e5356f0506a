"""docs/format-model.md, "The weights stream"."""

from bisect import bisect_right
from collections import defaultdict
from itertools import accumulate

import numpy as np

from tests.second_decoder.bits import BinaryDecoder

KINDS = ["embedding", "q", "k", "v", "out", "up", "down", "head", "conv", "gain", "bias"]
ROW_AXES = "byte key key value channel hidden channel byte none none none".split()  # by kind
E = accumulate(range(12288), lambda e, _: e * 4607184617107619806 >> 62, initial=1 << 62)
UPPER = [min((1 << 78) // ((1 << 62) + e), 65535) for e in E]
SQUASH = [65536 - p for p in UPPER[:0:-1]] + UPPER[:-1]  # from x = -12288 on
STRETCH = [bisect_right(SQUASH, 16 * i + 8) - 1 - 12288 for i in range(4096)]
OCTAVES = [(v, v.bit_length() - 1) for v in range(1, 32768)]
COARSE, FINE = (
    [0, *(1 + (o << s) + ((v << s >> o) - (1 << s)) for v, o in OCTAVES)] for s in (1, 2)
)
SIZE = [0, 1, 2, 3, 3, *[4] * 4, *[5] * 8, *[6] * 111]
D = [0, *[1] * 127, *[2] * 127]  # of negative numbers, too: D[-1] is 2
COLUMN_AXES = {
    "out": "value", "down": "hidden", "up_bias": "hidden", "head_bias": "byte",
    "qkv_bias": "none", "match": "none",
}  # fmt: skip


def bands(name: str, rows: int) -> list[tuple[str, int, str, str]]:
    """Kind, height, row axis and column axis of each band of a tensor."""
    last, i = name.split(".")[-1], name.split(".")[1] if "." in name else ""
    kinds = [*last] if last == "qkv" else [last if last in KINDS else "bias"]
    own = {axis: axis + i for axis in ("key", "value", "hidden")}  # of each layer
    names = [(k, ROW_AXES[KINDS.index(k)], COLUMN_AXES.get(last, "channel")) for k in kinds]
    return [(k, rows // len(kinds), own.get(row, row), own.get(col, col)) for k, row, col in names]


class WeightsStream(BinaryDecoder):
    """Decodes one tensor after the other."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream, "weights stream")
        # Slots by context, then node; weight sets by node or kind.
        self.slots: dict = defaultdict(lambda: defaultdict(lambda: [1 << 21, 0]))
        self.node_sets: dict = defaultdict(lambda: [7000] * 11 + [0])
        self.sign_sets: dict = defaultdict(lambda: [10000] * 11 + [0])
        self.kind_sets: dict = defaultdict(lambda: [0] * 11)
        self.axes, self.like = {}, {}

    def decide(self, slots: list[list[int]], a: list[int], b: list[int]) -> int:
        x = [*[STRETCH[q >> 10] * (256 * n // (n + 4)) >> 8 for q, n in slots], 256]
        dot = sum([v * (a[j] + b[j]) for j, v in enumerate(x)])
        p = SQUASH[min(max(dot >> 16, -12288), 12287) + 12288]
        bit = self.bit(min(max(p, 4), 65532), 16)
        error = ((bit << 16) - p) * (2 + 320 // (16 + a[11]))
        a[11] = min(a[11] + 1, 4095)
        for j, v in enumerate(x):
            step = v * error + 2097152 >> 22
            a[j] += step
            b[j] += step
        target = (1 << 22) - 256 if bit else 256
        for slot in slots:
            q, n = slot
            slot[:] = q + ((target - q) * (131072 // (2 * n + 3)) >> 16), min(n + 1, 400)
        return bit

    def magnitude(self, contexts: list, b: list[int], largest: int) -> int:
        low, high, is_open = 0, 127, True
        while low < high:
            t = low + 1 if low < 2 else 2 * low - 1
            if low >= 2 and not (is_open and t <= high):
                t, is_open = (low + high + 1) // 2, False
            # No two nodes have the same t.
            if t <= largest and self.decide([c[t] for c in contexts], self.node_sets[t], b):
                low = t
            else:
                high, is_open = t - 1, False
        return low

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Codes of the next tensor."""
        rows, width = shape if len(shape) == 2 else (1, shape[0])
        out: list[list[int]] = []
        for kind, height, row_axis, column_axis in bands(name, rows):
            axes = self.axis_levels(row_axis, height), self.axis_levels(column_axis, width)
            w = self.band(kind, height, width, (127, 63)[len(shape) - 1], *axes)
            self.like[kind, height, width] = w
            self.learn(column_axis, [sum(map(abs, column)) for column in zip(*w, strict=True)])
            self.learn(row_axis, [sum(map(abs, row)) for row in w])
            out += w
        return np.array(out).reshape(shape)

    def learn(self, axis: str, s: list[int]) -> None:
        new = [64 * v * len(s) // max(sum(s), 1) for v in s]
        sums, count = self.axes.get(axis, ([0] * len(s), 0))
        both = [old + v for old, v in zip(sums, new, strict=False)]
        if axis != "none":
            self.axes[axis] = both + sums[len(both) :], count + 1

    def axis_levels(self, axis: str, n: int) -> list[int]:
        sums, count = self.axes.get(axis, ([], 1))
        known = [COARSE[min(v // count, 32767)] for v in sums[:n]]
        return known + [0] * (n - len(known))

    def band(self, kind, height, width, largest, of_rows, of_columns) -> list[list[int]]:
        """Codes of a band, by rows; of_rows, of_columns: axis levels."""
        number, like = KINDS.index(kind), self.like.get((kind, height, width))
        far, zeros, slots = kind in ("embedding", "head"), [0] * (width + 2), self.slots
        # Two rows below and two columns to the right are zero; indices -1 and -2 mean them.
        w = [[0] * (width + 2) for _ in range(height + 2)]
        old = [[*row, 0, 0] for row in like or []] + [zeros] * (height + 2)
        total = cells = 0
        sums, signed, recent = [0] * width, [0] * width, [0] * width
        for r in range(height):
            row_sum = row_signed = 0
            rr = (total << 8) // (cells + 1)
            here, up, v, v_up, v_down = w[r], w[r - 1], old[r], old[r - 1], old[r + 1]
            far_row = w[r - 32] if far and r >= 32 else zeros
            for c in range(width):
                mean = ((total << 8) + 256) // (cells + 1)
                row = ((row_sum << 8) + 4 * mean) // (c + 4)
                col = ((sums[c] << 8) + 4 * mean) // (r + 4)
                corner = here[c - 1], up[c], up[c - 1], up[c + 1]
                left, above, ul, ur = map(abs, corner)
                f, lv = far_row[c], FINE[min(row * col // (mean + 1), 32767)]
                if far:
                    around = 2 * left + 2 * above + ul + ur + abs(here[c - 2]) + abs(w[r - 2][c])
                    fifth = SIZE[abs(f)], COARSE[around]
                else:
                    near = (
                        2 * abs(v[c])
                        + abs(v[c - 1])
                        + abs(v[c + 1])
                        + abs(v_up[c])
                        + abs(v_down[c])
                    )
                    fifth = SIZE[abs(v[c])] + (like is not None), COARSE[near]
                contexts = [
                    number, (SIZE[left], SIZE[above], ul > 0, ur > 0), above,
                    (COARSE[row], COARSE[col]), lv, fifth, (of_columns[c], of_rows[r]),
                    (COARSE[rr], COARSE[recent[c]]), (number, lv), min(c, 4095),
                ]  # fmt: skip
                by_node = [slots[key] for key in enumerate(contexts)]
                code = m = self.magnitude(by_node, self.kind_sets[number], largest)
                if m:
                    shares = signed[c] * 15 // (sums[c] + 1), row_signed * 15 // (row_sum + 1)
                    corners = D[corner[0]], D[corner[1]], D[corner[2]], D[corner[3]]
                    up_sign, far_sign = (corners[1], SIZE[above]), (D[f], SIZE[abs(f)])
                    contexts = [number, corners, up_sign, *shares, (D[v[c]], D[f]), far_sign]
                    of_signs = [slots["sign"][key] for key in enumerate(contexts)]
                    sets = self.sign_sets[number], self.kind_sets["sign", number]
                    code = here[c] = -m if self.decide(of_signs, *sets) else m
                row_sum, row_signed = row_sum + m, row_signed + code
                sums[c], signed[c] = sums[c] + m, signed[c] + code
                rr += (m << 8) - rr >> 4
                recent[c] += (m << 8) - recent[c] >> 3
                total, cells = total + m, cells + 1
        return [row[:width] for row in w[:height]]
