"""A second decoder of the experts, slow and plain, written from docs/experts-draft.md."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import pytest

from mdlzip.experts.state import Symbols
from tests.unit import test_experts as first

M64 = (1 << 64) - 1


def u(x):
    return x & M64


def s32(x):
    x &= 0xFFFFFFFF
    return x - (1 << 32) if x >> 31 else x


e = [1 << 62]
for _ in range(3073):
    e.append(e[-1] * 4593706758521714574 >> 62)


def squash(x):
    return (
        min((1 << 84) // ((1 << 62) + e[x]), (1 << 22) - 16) if x >= 0 else (1 << 22) - squash(-x)
    )


SQ = [squash(x) for x in range(-3072, 3072)]


def inv(p):
    return max(bisect_right(SQ, p) - 1 - 3072, -3072)


def stretch(p):
    if p < 65536:
        return inv(16 * (p >> 4) + 8)
    if p >= (1 << 22) - 65536:
        return -inv(16 * (((1 << 22) - 1 - p) >> 4) + 8)
    return inv(1024 * (p >> 10) + 512)


def level(n):
    return n if n < 4 else 4 if n < 6 else 5 if n < 9 else 6 if n < 16 else 7


def hash_(v, s):
    h = u(u(v + s * 0xD6E8FEB86659FD93) * 0x9E3779B97F4A7C15)
    h ^= h >> 29
    h = u(h * 0xBF58476D1CE4E5B9)
    return h ^ (h >> 32)


class Slot:
    __slots__ = ("lim", "n", "p")

    def __init__(self, p, n, lim):
        self.p, self.n, self.lim = p, n, lim

    def op(self):
        return stretch(self.p) * (256 * (10 * self.n + 3) // (10 * self.n + 18)) >> 8

    def learn(self, b):
        t = (1 << 22) - 64 if b else 64
        self.p += (t - self.p) * (131072 // (2 * self.n + 3)) >> 16
        self.n = min(self.n + 1, self.lim)


T = (0, 2, 4, 6, 9, 14, 24, 44)


def ratio(a, b, lo, hi):
    return Slot(min(max((a << 22) // b, (lo << 22) // 1000), (hi << 22) // 1000), 4, 1000)


class Memory:
    def __init__(self, tb, rb, mb):
        self.tb, self.rb, self.mb = tb, rb, mb
        self.trees = {}
        self.rec = [[0, [0, 0], [0, 0], [0, 0]] for _ in range(1 << rb)]
        self.heads = [{}, {}]
        self.g = [
            [
                [
                    [
                        ratio(6, 10 * t + 20, 2, 995)
                        if r == 0
                        else ratio(20 * c + 10 * (r == 1), 20 * c + 10 * t + 24, 2, 995)
                        for t in T
                    ]
                    for c in range(16)
                ]
                for r in range(4)
            ]
            for _ in range(10)
        ]

        def node(d, c, t):
            k = 4096 * 20 * max(c, 1)
            v = 53248 >> max(d - 1, 0)
            return ratio(k + v, k + 40960 * t + 2 * v, 20, 998)

        self.nd = [
            [[[node(d, c, t) for t in T] for c in range(16)] for d in range(12)] for _ in range(10)
        ]

        def mt(n, m, k):
            S = 500 if m > 0 else min(500 + 40 * n, 980)
            return (
                ratio(S, 1000, 2, 998)
                if k == 15
                else ratio(200, 1000, 2, 998)
                if k == 14
                else ratio((S << 15) + ((1000 - S) << 15 >> (k + 1)), 1000 << 15, 2, 998)
            )

        self.m = [
            [[[mt(n, m, k) for k in range(16)] for m in range(4)] for n in range(32)]
            for _ in range(2)
        ]
        self.w = [[45875] + [13107] * 14 + [0, 0] if i < 13 else [0] * 17 for i in range(109)]
        self.r = {}

    def ref(self, i):
        if i not in self.r:
            self.r[i] = [
                Slot(min(max(SQ[min(192 * j, 6143)], 64), (1 << 22) - 64), 6, 250)
                for j in range(33)
            ]
        return self.r[i]


class Bits:
    def __init__(self, d):
        self.d = d
        self.range = 1 << 32
        self.code = int.from_bytes((d + b"\0" * 4)[:4], "big")
        self.pos = 4

    def bit(self, p):
        b = self.range * p >> 22
        if self.code < b:
            bit = 1
            self.range = b
        else:
            bit = 0
            self.code -= b
            self.range -= b
        while self.range < 1 << 24:
            self.range <<= 8
            self.code = self.code << 8 | (self.d[self.pos] if self.pos < len(self.d) else 0)
            self.pos += 1
        return bit


class Lane:
    def __init__(self):
        self.last8 = self.before8 = self.word = self.lastword = self.column = self.line = (
            self.linebefore
        ) = self.field = self.fieldhash = self.key = self.fill = self.n = self.symbol1 = 0
        self.b = bytearray()
        self.m = [[None, 0, 0], [None, 0, 0]]

    def byte(self, c):
        K = 0x2F0B4C47D1B54A33
        self.b.append(c)
        self.before8 = u(self.before8 << 8 | self.last8 >> 56)
        self.last8 = u(self.last8 << 8 | c)
        self.fill += 1
        if 65 <= c <= 90 or 97 <= c <= 122 or c >= 128:
            self.word = u((self.word + (c | 32 if c < 128 else c)) * K + 1)
        else:
            if self.word:
                self.lastword = self.word
            self.word = 0
        if c == 10:
            self.linebefore = self.line
            self.line = self.fill
            self.column = self.field = self.fieldhash = 0
        else:
            self.column += 1
            if c in (9, 32, 34, 44, 124) or 58 <= c <= 62:
                self.field += 1
                self.key = self.fieldhash
                self.fieldhash = c
            else:
                self.fieldhash = u((self.fieldhash + c) * K + 1)

    def keys(self):
        a = self.linebefore + self.column
        above = 0
        if self.line > 0 and a + 1 < self.line:
            above = 65536 + 256 * self.b[a] + self.b[a + 1]
        h = self.last8
        last = h & 255
        v = [
            h & 0xFFFF,
            h & 0xFFFFFF,
            h & 0xFFFFFFFF,
            h & 0xFFFFFFFFFF,
            h,
            self.word * 256 + last,
            hash_(self.word, self.lastword) + last,
            h >> 8 & 0xFFFFFF,
            above * 65536 + last,
            hash_(self.fieldhash, self.field),
            self.symbol1,
            hash_(self.key, self.field),
        ]
        return [hash_(x, i + 1) for i, x in enumerate(v)]


class Group:
    def __init__(self, strings, mem, known, B, cs, stream):
        self.str, self.M, self.cs = strings, mem, cs
        self.start = len(known)
        self.known = list(known) + [-1] * (B * cs)
        self.L = [Lane() for _ in range(B)]
        self.d = Bits(stream)

    def next(self, q):
        if q % self.cs == 0 or self.known[q] < 0:
            q = (q - 1) // self.cs * self.cs + self.cs
            if q >= len(self.known) or self.known[q] < 0:
                return None
        return q

    def decide(self, x, A, B, C, E, F):
        M = self.M
        A, B, C = M.w[A], M.w[B], M.w[C]
        E, F = M.ref(E), M.ref(F)
        o = min(max(sum(x[j] * s32(A[j] + B[j] + C[j]) for j in range(16)) >> 16, -3072), 3071)
        q = SQ[o + 3072]
        i = (o + 3072) // 192
        f = o + 3072 - 192 * i
        le = E[i].p + F[i].p
        r = E[i + 1].p + F[i + 1].p
        p = min(max((2 * q + le + (r - le) * f // 192) >> 2, 16), (1 << 22) - 16)
        bit = self.d.bit(p)
        j = i + (2 * f >= 192)
        E[j].learn(bit)
        F[j].learn(bit)
        err = ((bit << 22) - q) * (6 + 768 // (32 + A[16])) >> 10
        A[16] = min(A[16] + 1, 4095)
        for j in range(16):
            ch = x[j] * err + (1 << 15) >> 16
            A[j] = s32(A[j] + ch)
            B[j] = s32(B[j] + ch)
            C[j] = s32(C[j] + ch)
        return bit

    def symbol(self, b, counts):
        M, L = self.M, self.L[b]
        V = len(self.str)
        keys = L.keys()
        last = L.last8 & 255
        S = [0]
        for c in counts:
            S.append(S[-1] + c)

        def net(y, t):
            return stretch(min(max((y << 22) // t, 1), (1 << 22) - 1))

        recs = []
        ent = []
        for k in keys[:10]:
            i = k & ((1 << M.rb) - 1)
            ck = k >> 48 | 1
            if M.rec[i][0] != ck:
                if M.rec[i ^ 1][0] == ck:
                    i ^= 1
                else:
                    if M.rec[i ^ 1][1][1] < M.rec[i][1][1]:
                        i ^= 1
                    M.rec[i] = [ck, [0, 0], [0, 0], [0, 0]]
            recs.append(i)
            ent.append([tuple(x) for x in M.rec[i][1:]])
        exp = [self.known[m[0]] if m[0] is not None else -1 for m in L.m]
        lv = [m[1] if m[1] < 16 else min(16 + (m[1] - 16 >> 3), 31) for m in L.m]
        st = 0
        for m in range(2):
            if exp[m] >= 0:
                st = max(st, 1 + (lv[m] >> 2 if lv[m] < 16 else min(lv[m] - 12, 6)))
        if exp[0] >= 0 and exp[1] >= 0 and exp[0] != exp[1]:
            st += 8
        mm = [M.m[m][lv[m]][min(L.m[m][2], 3)] for m in range(2)]
        g = max(range(V), key=lambda i: (counts[i], -i))
        p = (counts[g] << 22) // S[V]
        for j in range(10):
            if ent[j][0][1]:
                q = M.g[j][1][ent[j][0][1]][level(ent[j][1][1] + ent[j][2][1])].p
                if q > p:
                    g, p = ent[j][0][0], q
        for m in range(2):
            if exp[m] >= 0 and mm[m][15].p > p:
                g, p = exp[m], mm[m][15].p
        if p < 1 << 21:
            g = -1
        had = g >= 0
        sym = None
        if had:
            x = [net(counts[g], S[V]), 0, 0]
            used = []
            fav = 0
            for j in range(10):
                if not ent[j][0][1]:
                    x.append(0)
                    continue
                r = c = 0
                for i in range(3):
                    if ent[j][i][1] and ent[j][i][0] == g:
                        r, c = i + 1, ent[j][i][1]
                fav += r == 1
                sl = M.g[j][r][c][level(sum(z[1] for z in ent[j]) - c)]
                used.append(sl)
                x.append(sl.op())
            for m in range(2):
                if exp[m] < 0:
                    x.append(0)
                    continue
                sl = mm[m][15 if exp[m] == g else 14]
                used.append(sl)
                x.append(sl.op())
            x.append(256)
            bit = self.decide(x, 0, 13 + st, 61 + fav, st, 16 + g % 1024)
            for sl in used:
                sl.learn(bit)
            if bit:
                sym = g
            else:
                ent = [[(z[0], 0) if z[0] == g else z for z in t] for t in ent]
                exp = [-1 if z == g else z for z in exp]
        if sym is None:
            low, high, node, depth = 0, V, 1, 0
            dead = set()
            while high - low > 1:
                mid = low + high >> 1
                if depth % 3 == 0:
                    bi = []
                    for k in keys[10:]:
                        h = hash_(k, node)
                        i = h & ((1 << M.tb) - 1)
                        ck = (h >> 32 & 0xFFFFFFFF) | 1
                        if i not in M.trees or M.trees[i][0] != ck:
                            M.trees[i] = [ck] + [Slot(1 << 21, 0, 250) for _ in range(7)]
                        bi.append(i)
                    bk = [M.trees[i] for i in bi]
                    inner = 1
                be, ab = S[mid] - S[low], S[high] - S[mid]
                bit = None
                if had and low <= g < mid:
                    be -= counts[g]
                    bit = 1 if mid - low == 1 else None
                elif had and mid <= g < high:
                    ab -= counts[g]
                    bit = 0 if high - mid == 1 else None
                if bit is None:
                    d = min(depth, 11)
                    x = [net(ab, be + ab)] + [k[inner].op() for k in bk]
                    used = []
                    sp = 0
                    for j in range(10):
                        live = [z for z in ent[j] if z[1] and low <= z[0] < high]
                        if j in dead or not live:
                            dead.add(j)
                            x.append(0)
                            continue
                        sp += 1
                        side = live[0][0] >= mid
                        f = sum(z[1] for z in live if (z[0] >= mid) == side)
                        o = sum(z[1] for z in live if (z[0] >= mid) != side)
                        sl = M.nd[j][d][min(f, 15)][level(o)]
                        used.append((sl, side))
                        x.append(sl.op() if side else -sl.op())
                    for m in range(2):
                        if not low <= exp[m] < high:
                            x.append(0)
                            continue
                        side = exp[m] >= mid
                        sl = mm[m][d]
                        used.append((sl, side))
                        x.append(sl.op() if side else -sl.op())
                    x.append(256)
                    w = 2 if had else 1
                    bit = self.decide(
                        x,
                        1 + d,
                        13 + 16 * w + st,
                        61 + 16 * w + sp,
                        1040 + 256 * d + node % 256,
                        4112 + hash_(node, last) % 4096,
                    )
                    for k in bk:
                        k[inner].learn(bit)
                    for sl, side in used:
                        sl.learn(bit == side)
                if bit:
                    low = mid
                else:
                    high = mid
                node = 2 * node + bit
                inner = 2 * inner + bit
                depth += 1
            sym = low
        for i in recs:
            R = M.rec[i]
            e1, e2, e3 = R[1:]
            if e1[1] and e1[0] == sym:
                e1[1] = min(e1[1] + 1, 15)
                if e2[1] > 2:
                    e2[1] -= 1
            else:
                if e1[1] > 3:
                    e1[1] -= e1[1] >> 1
                if e2[1] and e2[0] == sym:
                    new = e2
                else:
                    new = e3 if e3[1] and e3[0] == sym else [sym, 0]
                    e3 = e2
                R[1] = [sym, min(new[1] + 1, 15)]
                R[2] = e1
                R[3] = e3
        q = self.start + b * self.cs + L.n
        self.known[q] = sym
        q += 1
        L.n += 1
        L.symbol1 = sym + 1
        for c in self.str[sym]:
            L.byte(c)
        for m in range(2):
            t = L.m[m]
            if t[0] is not None:
                if exp[m] == sym:
                    t[1] += 1
                    if t[2] > 0 and t[1] % 16 == 15:
                        t[2] -= 1
                else:
                    t[1] = 0
                    t[2] += 1
                t[0] = self.next(t[0] + 1)
                if t[0] is None or t[2] > 8:
                    t[:] = [None, 0, 0]
            if L.fill < (20, 6)[m]:
                continue
            k = (hash_(L.last8, L.before8) if m == 0 else hash_(L.last8 & ((1 << 48) - 1), 5)) & (
                (1 << M.mb) - 1
            )
            c = M.heads[m].get(k, 0)
            M.heads[m][k] = q
            if c == 0 or c == t[0] or (t[0] is not None and t[1] >= (16, 8)[m]):
                continue
            n = 0
            while n < min(L.n, c, 32) and self.known[c - 1 - n] == self.known[q - 1 - n]:
                n += 1
            if n > t[1] or (m == 1 and n == t[1] > 0):
                z = self.next(c)
                if z is not None:
                    t[:] = [z, n, 0]
        return sym


@pytest.mark.parametrize(
    ("chunk_size", "seed", "size"), [(512, None, 3000), (512, 3, 1500), (64, 5, 1000)]
)
def test_both_decoders_agree(chunk_size: int, seed: int | None, size: int) -> None:
    """Twice the same text, so that the second time there are known text and long matches."""
    data = first.TEXT[:size] + first.TEXT[500:900]
    vocabulary = first.vocabulary_of(data)
    order = Symbols.of(vocabulary)
    strings = [bytes(row[:n]) for row, n in zip(order.strings, order.lengths, strict=True)]
    chunks = first.cut(vocabulary, data, chunk_size)
    known, memory, text = first.nothing_known(), Memory(*first.BITS), []
    for _ in range(2):
        stream, coder = first.run(vocabulary, chunks, chunk_size, known, seed=seed)
        known = coder.after()
        group = Group(strings, memory, text, len(chunks), chunk_size, stream)
        for t in range(max(map(len, chunks))):
            for b, chunk in enumerate(chunks):
                if t < len(chunk):
                    counts = [1] * len(strings)
                    if seed is not None:
                        place = order.place
                        gaps = first.gaps_at(int(place[chunk[t]]), len(strings), seed + t)
                        counts = [int(n) for n in first.COUNTS[gaps[place]]]
                    assert group.symbol(b, counts) == chunk[t]
        text = group.known
        np.testing.assert_array_equal(coder.known_text, text)
