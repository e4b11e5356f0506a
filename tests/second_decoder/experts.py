"""docs/format-experts.md: the experts of a unit, from counts and bits to symbols."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from copy import deepcopy
from itertools import accumulate

from tests.second_decoder.bits import BinaryDecoder
from tests.second_decoder.context import Context
from tests.second_decoder.fields import require

ONE, M64, FACTOR = 1 << 22, (1 << 64) - 1, 0x2F0B4C47D1B54A33
E = accumulate(range(3072), lambda e, _: e * 4593706758521714574 >> 62, initial=1 << 62)
UPPER = [min((1 << 84) // ((1 << 62) + e), ONE - 16) for e in E]
SQUASH = [ONE - p for p in UPPER[:0:-1]] + UPPER[:-1]  # from x = -3072 on
LOW, MIDDLE = (
    [max(bisect_right(SQUASH, (2 * i + 1) << shift), 1) - 3073 for i in range(4096)]
    for shift in (3, 9)
)
PACE = [131072 // (2 * n + 3) for n in range(1001)]
TRUST = [256 * (10 * n + 3) // (10 * n + 18) for n in range(1001)]
LEVEL = [0, 1, 2, 3, 4, 4, 5, 5, 5, *[6] * 7, *[7] * 30]
TYPICAL = (0, 2, 4, 6, 9, 14, 24, 44)
USES = (0, 1, 2, 3, 4, 6, 9, 14, 24, 50, 120, 250)
SEPARATORS = {9, 32, 34, 44, *range(58, 63), 124}
LEAST_BYTES, KEPT_LENGTH = (20, 6), (16, 8)
Slot = list[int]  # probability, count, limit
Entries = list[tuple[int, int]]  # rank, count


def mixed(v: int, s: int) -> int:
    """hash(v, s)."""
    h = (v + s * 0xD6E8FEB86659FD93) * 0x9E3779B97F4A7C15 & M64
    h = (h ^ h >> 29) * 0xBF58476D1CE4E5B9 & M64
    return h ^ h >> 32


def signed(v: int) -> int:
    """The low 32 bits, two's complement."""
    return (v + (1 << 31)) % (1 << 32) - (1 << 31)


def stretch(p: int) -> int:
    if p < 1 << 16:
        return LOW[p >> 4]
    return MIDDLE[p >> 10] if p < ONE - (1 << 16) else -LOW[(ONE - 1 - p) >> 4]


def share(part: int, whole: int) -> int:
    """Log-odds of a share of the counts."""
    return stretch(min(max((part << 22) // whole, 1), ONE - 1))


def opinion(slot: Slot) -> int:
    return stretch(slot[0]) * TRUST[slot[1]] >> 8


def tree_map(tree: int, slot: Slot) -> tuple:
    """The map of what a slot of a bucket says."""
    return "tree", tree, bisect_right(USES, slot[1]) - 1, (stretch(slot[0]) + 3072) // 96


def learn(slot: Slot, bit: int) -> None:
    p, n, limit = slot
    p += ((ONE - 64 if bit else 64) - p) * PACE[n] >> 16
    slot[:] = p, min(n + 1, limit), limit


class Slots(dict):
    """Maps and refinements, each slot made when it is first met."""

    def __missing__(self, key: tuple) -> Slot:
        kind, _, *numbers = key
        if kind == "refinement":
            p = SQUASH[min(192 * numbers[0], 6143)]
            slot = [min(max(p, 64), ONE - 64), 6, 250]
        elif kind == "tree":
            level, step = numbers
            slot = [SQUASH[((96 * step - 3024) * TRUST[USES[level]] >> 8) + 3072], 12, 1000]
        else:
            a, b, low, high = FIRST[kind](*numbers)
            slot = [min(max((a << 22) // b, (low << 22) // 1000), (high << 22) // 1000), 4, 1000]
        self[key] = slot
        return slot


def of_guess(r: int, c: int, o: int) -> tuple[int, ...]:
    t = 10 * TYPICAL[o]
    return (20 * c + 10 * (r == 1), 20 * c + t + 24, 2, 995) if r else (6, t + 20, 2, 995)


def of_node(d: int, c: int, o: int) -> tuple[int, ...]:
    k, v = 81920 * max(c, 1), 53248 >> max(d - 1, 0)
    return k + v, k + 40960 * TYPICAL[o] + 2 * v, 20, 998


def of_match(level: int, misses: int, kind: int) -> tuple[int, ...]:
    s = 500 if misses else min(500 + 40 * level, 980)
    if kind >= 14:
        return (s if kind == 15 else 200), 1000, 2, 998
    return (s << 15) + ((1000 - s << 15) >> kind + 1), 1000 << 15, 2, 998


FIRST = {"guess": of_guess, "node": of_node, "match": of_match}


class Memory:
    """What is learned from the symbols; bits: log2 of the numbers of buckets, records and heads."""

    def __init__(self, bits: Iterable[int]) -> None:
        self.n_buckets, self.n_records, self.n_heads = (1 << n for n in bits)
        self.buckets: dict = defaultdict(lambda: [0])
        self.records: dict = defaultdict(lambda: [0, (0, 0), (0, 0), (0, 0)])
        self.heads: list[dict[int, int]] = [{}, {}]
        self.slots = Slots()
        first = [45875, *[13107] * 18, 0, 0]  # 20 weights and a count
        self.sets = [first[:] if i < 13 else [0] * 21 for i in range(621)]

    def record(self, key: int) -> list:
        i, check = key % self.n_records, key >> 48 | 1
        here, there = self.records[i], self.records[i ^ 1]
        if check not in (here[0], there[0]):
            (there if there[1][1] < here[1][1] else here)[:] = check, *[(0, 0)] * 3
        return here if here[0] == check else there

    def bucket(self, key: int, node: int) -> list:
        g = mixed(key, node)
        bucket, check = self.buckets[g % self.n_buckets], g >> 32 | 1
        if bucket[0] != check:
            bucket[:] = check, *[[1 << 21, 0, 250] for _ in range(7)]
        return bucket


def remember(record: list, s: int) -> None:
    """A record learns that rank s followed."""
    (e1, n1), (e2, n2), third = record[1:]
    if n1 and e1 == s:
        record[1:3] = (e1, min(n1 + 1, 15)), (e2, n2 - (n2 > 2))
        return
    new, rest = (n2, third) if n2 and e2 == s else (third[1] * (third[0] == s), (e2, n2))
    record[1:] = (s, min(new + 1, 15)), (e1, n1 - (n1 >> 1 if n1 > 3 else 0)), rest


class Lane:
    """What is kept of the chunks of a lane. A match is a pointer (or None), a length, misses."""

    def __init__(self, origin: int, grid: tuple[int, int]) -> None:
        self.origin, self.grid = origin, grid
        self.bytes, self.symbol1, self.symbol2 = bytearray(), 0, 0
        self.before8 = self.last8 = self.word = self.lastword = 0
        self.line = self.linebefore = self.column = self.field = self.fieldhash = self.key = 0
        self.matches: list[list] = [[None, 0, 0], [None, 0, 0]]

    def take(self, c: int) -> None:
        self.bytes.append(c)
        self.before8 = (self.before8 << 8 | self.last8 >> 56) & M64
        self.last8 = (self.last8 << 8 | c) & M64
        if chr(c).isascii() and not chr(c).isalpha():
            self.lastword, self.word = self.word or self.lastword, 0
        else:
            self.word = (self.word + (c | 32 if c < 128 else c)) * FACTOR + 1 & M64
        if c == 10:
            self.linebefore, self.line = self.line, len(self.bytes)
            self.column = self.field = self.fieldhash = 0
            return
        self.column += 1
        if c in SEPARATORS:
            self.field, self.key, self.fieldhash = self.field + 1, self.fieldhash, c
        else:
            self.fieldhash = (self.fieldhash + c) * FACTOR + 1 & M64

    def keys(self) -> list[int]:
        """Of the contexts 0 to 14."""
        h, last, a, above = self.last8, self.last8 & 255, self.linebefore + self.column, 0
        if self.line > 0 and a + 1 < self.line:
            above = 65536 + 256 * self.bytes[a] + self.bytes[a + 1]
        values = [
            h % (1 << 16), h % (1 << 24), h % (1 << 32), h % (1 << 40), h, self.word * 256 + last,
            mixed(self.word, self.lastword) + last, (h >> 8) % (1 << 24), above * 65536 + last,
            mixed(self.fieldhash, self.field), self.symbol1, mixed(self.key, self.field),
            self.symbol1 * 4096 + self.symbol2, self.word * 256 + last,
            mixed(above, self.fieldhash),
        ]  # fmt: skip
        if self.grid[0]:
            values[4:] = self.grid_values(*self.grid)
        return [mixed(v, i + 1) for i, v in enumerate(values)]

    def grid_values(self, r: int, e: int) -> list[int]:
        """Of the contexts 4 to 14."""

        def byte(j: int, end: int = len(self.bytes)) -> int:
            return self.bytes[end - j] if 1 <= j <= end else 0

        at, back, low = self.origin + len(self.bytes), 0, 0
        inside, place, last = at % e, at % r, byte(1)
        if e == 2:
            back, low = inside, (last + 1) * inside
        end = len(self.bytes) - back
        w, n, nw, ne, nne = (
            byte(j, end) + (256 * byte(j - 1, end) if e == 2 else 0)
            for j in (e, r, r + e, r - e, 2 * r - e)
        )
        near = (byte(r) * 256 + last) * 8 + inside
        return [
            mixed(w + n - nw, 4 * low + 1), near, (byte(r) * 256 + byte(2 * r)) * 65536 + place,
            mixed(w + n >> 1, 4 * low + 2), (byte(e) * 256 + byte(2 * e)) * 8 + inside,
            mixed(n + ne - nne, 4 * low + 3), near, (last * 256 + byte(2)) * 8 + inside,
            mixed(w + n - nw, low), byte(r) * 65536 + place, mixed(w + n + ne + nw >> 3, low),
        ]  # fmt: skip

    def match_key(self, expected: list[int]) -> int:
        """Of context 15."""
        level = min(self.matches[0][1], 24) >> 3
        return mixed((level << 24) + (expected[0] + 1) * 4096 + expected[1] + 1, 16)


class Experts:
    """Decodes the symbols of a unit; before: of the unit that it builds on, which it uses up."""

    def __init__(
        self,
        strings: list[bytes],
        size: int,
        stream: bytes,
        origins: list[int],
        context: Context,
        before: "Experts | Memory",
    ) -> None:
        """strings: by rank of the model; origins: of each chunk, of at most `size` bytes."""
        n, lane = len(origins), context.lane
        self.order = sorted(range(len(strings)), key=strings.__getitem__)
        self.strings, self.size = [strings[i] for i in self.order], size
        known = before.known if isinstance(before, Experts) else []
        self.memory = before.memory if isinstance(before, Experts) else before
        self.start, self.known = len(known), known + [-1] * (n * size)
        require(len(self.known) < 1 << 31, "known text: too long")
        self.lane, self.n_symbols = lane, [0] * n
        self.lanes = [Lane(origin, context.grid) for origin in origins[::lane]]
        self.stream, self.told = BinaryDecoder(stream, "coded stream"), None
        self.end = self.stream.end

    def copy(self) -> "Experts":
        """For a unit, when others build on the same."""
        twin = object.__new__(Experts)
        twin.memory, twin.known = deepcopy(self.memory), self.known
        return twin

    def symbols(self, chunks: list[int], counts) -> list[int]:
        """The next symbol of each of the chunks, as ranks of the model; counts: (B, V)."""
        rows = counts[:, self.order].tolist()
        return [self.order[self.symbol(c, row)] for c, row in zip(chunks, rows, strict=True)]

    def learn(self, chunk: int, rank: int, counts) -> None:
        """Take a symbol that is known, a rank of the model, in place of one that is decoded."""
        self.told = self.order.index(rank)
        self.symbol(chunk, counts[self.order].tolist())

    def symbol(self, chunk: int, counts: list[int]) -> int:
        """The next symbol of a chunk, as a rank of the experts."""
        lane, memory, sums = self.lanes[chunk // self.lane], self.memory, [0, *accumulate(counts)]
        keys, records, entries = lane.keys(), [], []
        for key in keys[:10]:
            records.append(memory.record(key))
            entries.append(records[-1][1:])
        expected = [-1 if q is None else self.known[q] for q, _, _ in lane.matches]
        levels, state = [], 0
        for m, (q, length, misses) in enumerate(lane.matches):
            level = length if length < 16 else min(16 + (length - 16 >> 3), 31)
            levels.append((m, level, min(misses, 3)))
            if q is not None:
                state = max(state, 1 + (level >> 2 if level < 16 else min(level - 12, 6)))
        state += 8 * (-1 not in expected and expected[0] != expected[1])
        guess = self.guess(counts, sums[-1], entries, expected, levels)
        s, last, tree_keys = -1, lane.last8 & 255, [*keys[10:], lane.match_key(expected)]
        if guess >= 0:
            inputs = [share(counts[guess], sums[-1])]
            if self.is_guess(guess, inputs, entries, expected, levels, state, tree_keys, last):
                s = guess
        if s < 0:
            saying = [[e for e in said if e[1] and e[0] != guess] for said in entries]
            hoped = [-1 if rank == guess else rank for rank in expected]
            s = self.descend(guess, counts, sums, saying, hoped, levels, state, tree_keys, last)
        for record in records:
            remember(record, s)
        self.n_symbols[chunk] += 1
        n = self.n_symbols[chunk]
        self.take(lane, n, self.start + chunk * self.size + n - 1, s, expected)
        return s

    def guess(self, counts, total, entries, expected, levels) -> int:
        slots, s = self.memory.slots, counts.index(max(counts))
        p = (counts[s] << 22) // total
        proposals = [
            (slots["guess", i, 1, e1[1], LEVEL[e2[1] + e3[1]]][0], e1[0])
            for i, (e1, e2, e3) in enumerate(entries)
            if e1[1]
        ]
        for rank, place in zip(expected, levels, strict=True):
            if rank >= 0:
                proposals.append((slots["match", *place, 15][0], rank))
        for q, rank in proposals:
            p, s = (q, rank) if q > p else (p, s)
        return s if p >= 1 << 21 else -1

    def is_guess(self, g, inputs, entries, expected, levels, state, keys, last) -> int:
        slots, used, first, buckets, maps = self.memory.slots, [], 0, [], []
        for i, key in enumerate(keys):
            buckets.append(self.memory.bucket(key, (1 << 20) + g))
            maps.append(slots[tree_map(6 + i, buckets[-1][1])])
            inputs.append(opinion(maps[-1]))
        for i, said in enumerate(entries):
            found = [(r, c) for r, (rank, c) in enumerate(said, 1) if c and rank == g]
            r, c = found[0] if found else (0, 0)
            first += r == 1
            others = LEVEL[sum(n for _, n in said) - c]
            used.append((slots["guess", i, r, c, others], 1) if said[0][1] else None)
        for rank, place in zip(expected, levels, strict=True):
            kind = 15 if rank == g else 14
            used.append((slots["match", *place, kind], 1) if rank >= 0 else None)
        self.asked, sets = range(g, g + 1), (0, 13 + state, 61 + first, 109 + last)
        bit = self.answer(inputs, used, sets, (state, 16 + g % 1024))
        for slot in [*(bucket[1] for bucket in buckets), *maps]:
            learn(slot, bit)
        return bit

    def descend(self, g, counts, sums, entries, expected, levels, state, keys, last) -> int:
        low, high, node, depth, tried = 0, len(counts), 1, 0, g >= 0
        while high - low > 1:
            middle = low + high >> 1
            if depth % 3 == 0:
                inner, buckets = 1, [self.memory.bucket(key, node) for key in keys]
            ranges = (range(low, middle), range(middle, high))
            if any(len(side) == 1 and g in side for side in ranges):
                bit = int(g < middle)
            else:
                below, above = (
                    sums[side.stop] - sums[side.start] - (counts[g] if g in side else 0)
                    for side in ranges
                )
                tree = [bucket[inner] for bucket in buckets]
                maps = [self.memory.slots[tree_map(i, slot)] for i, slot in enumerate(tree)]
                inputs = [share(above, below + above), *map(opinion, maps)]
                used = self.favoured(low, middle, high, depth, entries, expected, levels)
                w, speaking = 16 + 16 * tried, 10 - used[:10].count(None)
                sets = 1 + depth, 13 + w + state, 61 + w + speaking, 365 + last
                pair = 1040 + 256 * depth + node % 256, 4112 + mixed(node, last) % 4096
                self.asked = range(middle, high)
                bit = self.answer(inputs, used, sets, pair)
                for slot in [*tree, *maps]:
                    learn(slot, bit)
            low, high = (middle, high) if bit else (low, middle)
            node, inner, depth = 2 * node + bit, 2 * inner + bit, depth + 1
        return low

    def favoured(self, low, middle, high, depth, entries, expected, levels) -> list:
        """Of each record and match: its slot at a node and the side it favours, or None."""
        slots, used = self.memory.slots, []
        for i, said in enumerate(entries):
            inside = [(rank >= middle, n) for rank, n in said if low <= rank < high]
            if not inside:
                used.append(None)
                continue
            side = inside[0][0]
            more, less = (sum(n for at, n in inside if at == x) for x in (side, not side))
            used.append((slots["node", i, depth, min(more, 15), LEVEL[less]], side))
        for rank, place in zip(expected, levels, strict=True):
            inside = low <= rank < high
            used.append((slots["match", *place, depth], rank >= middle) if inside else None)
        return used

    def answer(self, inputs: list[int], used: list, sets: tuple, pair: tuple) -> int:
        """A decision; the slots that records and matches used learn it."""
        said = [0 if u is None else opinion(u[0]) * (1 if u[1] else -1) for u in used]
        bit = self.decide([*inputs, *said, 256], sets, pair)
        for slot, side in filter(None, used):
            learn(slot, bit == side)
        return bit

    def decide(self, x: list[int], sets: tuple, pair: tuple) -> int:
        memory = self.memory
        a, b, c, d = (memory.sets[i] for i in sets)
        dot = sum([v * signed(a[j] + b[j] + c[j] + d[j]) for j, v in enumerate(x)])
        at = min(max(dot >> 16, -3072), 3071) + 3072
        q, i, f = SQUASH[at], at // 192, at % 192
        (e0, f0), (e1, f1) = (
            [memory.slots["refinement", number, k] for number in pair] for k in (i, i + 1)
        )
        left, right = e0[0] + f0[0], e1[0] + f1[0]
        p = 2 * q + 3 * (left + (right - left) * f // 192) >> 3
        bit = int(self.told in self.asked)
        if self.told is None:
            bit = self.stream.bit(min(max(p, 16), ONE - 16), 22)
        for slot in (e1, f1) if 2 * f >= 192 else (e0, f0):
            learn(slot, bit)
        error = ((bit << 22) - q) * (6 + 768 // (32 + a[20])) >> 10
        a[20] = min(a[20] + 1, 4095)
        for j, v in enumerate(x):
            change = v * error + 32768 >> 16
            for weights in (a, b, c, d):
                weights[j] = signed(weights[j] + change)
        return bit

    def take(self, lane: Lane, symbols: int, q: int, s: int, expected: list[int]) -> None:
        """Rank s, which is at place q, becomes known; symbols: of the chunk, this one included."""
        self.known[q], q = s, q + 1
        lane.symbol2, lane.symbol1 = lane.symbol1, s + 1
        for c in self.strings[s]:
            lane.take(c)
        for m, match in enumerate(lane.matches):
            if match[0] is not None:
                self.follow(match, expected[m] == s)
            if len(lane.bytes) < LEAST_BYTES[m]:
                continue
            h = lane.last8
            key = mixed(h % (1 << 48), 5) if m else mixed(h, lane.before8)
            place = key % self.memory.n_heads
            c = self.memory.heads[m].get(place, 0)
            self.memory.heads[m][place] = q
            held = match[0] is not None and match[1] >= KEPT_LENGTH[m]
            if c == 0 or c == match[0] or held:
                continue
            n, most = 0, min(symbols, c, 32)
            while n < most and self.known[c - 1 - n] == self.known[q - 1 - n]:
                n += 1
            c = self.next_place(c)
            if c is not None and (n > match[1] or (m == 1 and n == match[1] > 0)):
                match[:] = c, n, 0

    def follow(self, match: list, right: bool) -> None:
        q, length, misses = match
        length, misses = (length + 1, misses) if right else (0, misses + 1)
        if right and misses and length % 16 == 15:
            misses -= 1
        q = self.next_place(q + 1)
        match[:] = (q, length, misses) if q is not None and misses <= 8 else (None, 0, 0)

    def next_place(self, q: int) -> int | None:
        if q % self.size == 0 or self.known[q] < 0:
            q = -(-q // self.size) * self.size
            if q >= len(self.known) or self.known[q] < 0:
                return None
        return q
