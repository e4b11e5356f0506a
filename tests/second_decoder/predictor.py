"""docs/format-predictor.md: symbols before a position -> counts, for many chunks side by side."""

from collections.abc import Iterator
from decimal import ROUND_FLOOR, Context, Decimal, localcontext
from itertools import count, takewhile
from math import factorial, isqrt
from types import SimpleNamespace

import numpy as np

from tests.second_decoder.fields import require

DIGITS, TINY = Context(prec=100), Decimal("1e-99")
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


def rounded(x: Decimal, bits: int) -> int:
    return int((x * 2**bits + Decimal("0.5")).to_integral_value(ROUND_FLOOR))


def exp_table(b: int, n: int) -> np.ndarray:
    """EXP(b, n), and a 0 for what is beyond its end."""
    with localcontext(DIGITS):
        values = (rounded((Decimal(-d) / n).exp(), b) for d in count())
        return np.array([*takewhile(bool, values), 0])


def rotations(k: int) -> Iterator[np.ndarray]:
    """Rows t = 0, 1, ... of ROT(K): (K/2, 2), cosine and sine."""
    with localcontext(DIGITS):
        angles = [(Decimal(10000).ln() * -2 * c / k).exp() for c in range(k // 2)]
        # Cosine and sine of an angle a <= 1: sums of +-a^n / n! over even and odd n.
        terms = [[(-1) ** (n // 2) * a**n / factorial(n) for n in range(80)] for a in angles]
        turns = [(sum(t[::2]), sum(t[1::2])) for t in terms]
    at = [(Decimal(1), Decimal(0))] * len(turns)
    while True:
        yield np.array([[rounded(x, 14) for x in pair] for pair in at])
        with localcontext(DIGITS):
            both = zip(at, turns, strict=True)
            at = [(c * c1 - s * s1, s * c1 + c * s1) for (c, s), (c1, s1) in both]


def gelu_table() -> np.ndarray:
    out = []
    with localcontext(DIGITS):
        for i in range(1024):  # erf(z) = 2 / sqrt(pi) * sum of (-1)^n z^(2n+1) / (n! (2n+1))
            x = Decimal(i - 512) / 64
            power, total, n = x / Decimal(2).sqrt(), Decimal(0), 0
            while abs(power) > TINY:
                total, n = total + power / (2 * n + 1), n + 1
                power *= -x * x / (2 * n)
            out.append(rounded(x * (1 + 2 * total / PI.sqrt()) / 2, 10))
    return np.array(out)


EXP_COUNTS, GELU = exp_table(22, 64), gelu_table()
RSQ = np.array([isqrt(2**89 // ((2 * i + 1) * 2**22)) for i in range(256)])  # used from 64 on


def r(x: np.ndarray, s: int) -> np.ndarray:
    """R(x, s)."""
    return (x + (1 << (s - 1))) >> s if s > 0 else x << -s


def inverse_root(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(r, s) for each v of a column."""
    e = np.array([[n.bit_length() + n.bit_length() % 2] for n in v[:, 0].tolist()])
    m = np.where(e <= 30, v << np.maximum(30 - e, 0), v >> np.maximum(e - 30, 0))
    root = RSQ[m >> 22]
    for _ in range(2):
        root = (root * (3 * 2**30 - ((m * ((root * root) >> 30)) >> 28))) >> 31
    return root >> 4, 25 + e // 2


class Matcher:
    """The guess for the next symbol of one chunk: s[p], if p >= 0."""

    def __init__(self, match_min: int, chunk_size: int) -> None:
        self.m, self.shift = match_min, 64 - (2 * chunk_size - 1).bit_length()
        self.s, self.table, self.p, self.length = [], {}, -1, 0

    def push(self, symbol: int) -> None:
        """Symbol t - 1 becomes known."""
        self.s.append(symbol)
        s, m, t = self.s, self.m, len(self.s)
        if self.p >= 0:
            agrees = s[self.p] == symbol
            self.p, self.length = (self.p + 1, min(self.length + 1, 31)) if agrees else (-1, 0)
        if t >= m:
            key = sum(s[t - m + i] << 12 * i for i in range(m))
            slot = (key * 0x9E3779B97F4A7C15 % 2**64) >> self.shift
            c, self.table[slot] = self.table.get(slot, 0), t
            agree = takewhile(lambda i: s[c - 1 - i] == s[t - 1 - i], range(min(c, 31)))
            if self.p < 0 and (n := len(list(agree))) >= m:
                self.p, self.length = c, n


class NoNetwork:
    """Counts of family 1, where the experts are alone; its methods are those of Predictor."""

    def __init__(self, model: SimpleNamespace) -> None:
        self.m = model

    def start(self, n: int) -> None:
        pass

    def keep(self, rows: list[int]) -> None:
        pass

    def counts(self, before: list[int]) -> np.ndarray:
        return np.ones((len(before), len(self.m.in_use)), int)


class Predictor:
    """Counts for the symbols in use; refuses a model that breaks a bound.

    Shapes: B chunks, D width, H heads, K head width, V symbols in use.
    """

    def __init__(self, model: SimpleNamespace) -> None:
        self.m, c, e, self.products = model, model, model.exponents, {}
        self.blocks = [f"blocks.{i}." for i in range(c.n_layers)]
        self.embedding = np.clip(self.fixed("embedding", 12), -(2**24), 2**24)
        rows = [n for n in c.tensors if n.endswith((".gain", ".bias", ".conv"))]
        self.rows = {name: self.fixed(name, 12) for name in rows}
        for name, values in self.rows.items():
            bound = 2**22 if name.endswith("gain") else 2**24
            require(np.abs(values).max() < bound, f"{name}: out of bounds")
        for b, end in ((b, end) for b in self.blocks for end in ("attn", "mlp") if c.conv_width):
            norm = b + ("norm." if c.shared else end + "_norm.")
            gain, bias = self.rows.get(norm + "gain", 4096), self.rows.get(norm + "bias", 0)
            y = 2**7 * np.abs(gain) + np.abs(bias)  # no y is larger
            sums = y * np.abs(self.rows[f"{b}{end}.conv"]).sum(axis=0)
            require(sums.max() < 2**52, f"{b}{end}.conv: out of bounds")
        for b in self.blocks:
            require(40 + e[b + "v"] - e[b + "attn_out"] <= 62, f"{b}attn: exponents too far apart")
            self.product(b + "attn.qkv", e[b + "attn_in"], [e[b + "qk"] + 8, e[b + "v"]])
            self.product(b + "attn.out", e[b + "attn_out"], [12])
            self.product(b + "mlp.up", e[b + "mlp_in"], [6 if c.gelu else 10])
            self.product(b + "mlp.down", e[b + "mlp_act"], [12])
        self.product("head", e["head_in"], [6], c.in_use + [256] * bool(c.match_min))
        self.match = self.fixed("match", 6) if c.match_min else None
        self.window = c.window if 0 < c.window < c.chunk_size else c.chunk_size
        self.exps = exp_table(min(15, 24 - (self.window - 1).bit_length()), 128)
        self.k = c.d_model // c.n_heads
        self.angles, self.more = [], rotations(c.d_model if c.sinusoidal else self.k)

    def fixed(self, name: str, f: int) -> np.ndarray:
        codes, mantissa, exponent = self.m.tensors[name]
        require(exponent - f >= -30, f"{name}: the step is too large")
        return np.clip(r(codes * mantissa, exponent - f), -(2**30), 2**30)

    def product(self, name: str, e: int, fs: list[int], rows: object = slice(None)) -> None:
        """Make P(name, f) ready for each f; float64 sums of whole numbers below 2^53 are exact."""
        codes, mantissa, exponent = self.m.tensors[name]
        largest = 127 * int(np.abs(codes[rows]).sum(axis=1).max()) * mantissa
        for f in fs:
            s = exponent + e - f
            require(-16 <= s <= 62 and largest << max(0, -s) < 2**51, f"{name}: out of bounds")
            bias = self.fixed(name + "_bias", f)[rows] if name + "_bias" in self.m.tensors else 0
            self.products[name, f] = codes[rows].T.astype(np.float64), mantissa, s, bias

    def p(self, name: str, codes: np.ndarray, f: int) -> np.ndarray:
        """P(name, f) of codes (B, inputs)."""
        matrix, mantissa, s, bias = self.products[name, f]
        return r((codes.astype(np.float64) @ matrix).astype(np.int64) * mantissa, s) + bias

    def start(self, n: int) -> None:
        """Begin n chunks. state: past norms of each part; seen keys and values."""
        c, self.t, past = self.m, 0, (n, self.m.conv_width, self.m.d_model)
        shapes = {"attn.": past, "mlp.": past, "seen": (n, 0, 2, c.n_heads, self.k)}
        self.state = {b + s: np.zeros(shapes[s], int) for b in self.blocks for s in shapes}
        self.matchers = [Matcher(c.match_min, c.chunk_size) for _ in range(n)]

    def keep(self, rows: list[int]) -> None:
        """Go on with these chunks alone."""
        self.state = {name: a[rows] for name, a in self.state.items()}
        self.matchers = [self.matchers[row] for row in rows]

    def counts(self, before: list[int]) -> np.ndarray:
        """Counts (B, V) at the next position, given the symbol before it."""
        c, e, x = self.m, self.m.exponents, self.embedding[before]
        if len(self.angles) <= self.t:
            self.angles.append(next(self.more))
        if c.sinusoidal:
            x = x + ((self.angles[self.t][:, ::-1].ravel() + 2) >> 2)  # POS
        for b in self.blocks:
            norms = ("norm.", "norm.") if c.shared else ("attn_norm.", "mlp_norm.")
            codes = self.convolved(self.norm(x, b + norms[0]), b + "attn.", e[b + "attn_in"])
            codes = self.attention(codes, b, e[b + "qk"], e[b + "v"], e[b + "attn_out"])
            x = np.clip(x + self.p(b + "attn.out", codes, 12), -(2**25), 2**25 - 1)
            codes = self.convolved(self.norm(x, b + norms[1]), b + "mlp.", e[b + "mlp_in"])
            codes = self.activation(codes, b, e[b + "mlp_act"])
            x = np.clip(x + self.p(b + "mlp.down", codes, 12), -(2**25), 2**25 - 1)
        codes = np.clip(r(self.norm(x, "final_norm."), 12 - e["head_in"]), -127, 127)
        return self.head(codes, before)

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        d, layer = self.m.d_model, self.m.layer_norm
        if layer:
            x = np.clip(x - x.sum(axis=1, keepdims=True) // d, -(2**25), 2**25 - 1)
        root, s = inverse_root((x * x).sum(axis=1, keepdims=True) // d + 1)
        y = (x * root + (1 << (s - 13))) >> (s - 12)
        return r(y * self.rows[name + "gain"], 12) + self.rows[name + "bias"] if layer else y

    def convolved(self, y: np.ndarray, part: str, e: int) -> np.ndarray:
        if not self.m.conv_width:
            return np.clip(r(y, 12 - e), -127, 127)
        past = self.state[part] = np.append(y[:, None], self.state[part][:, :-1], axis=1)
        return np.clip(r((past * self.rows[part + "conv"]).sum(axis=1), 24 - e), -127, 127)

    def qkv(self, codes: np.ndarray, b: str, e_qk: int, e_v: int) -> list[np.ndarray]:
        """Query, key and value, each (B, H, K)."""
        d, heads, k = self.m.d_model, self.m.n_heads, self.k
        u = self.p(b + "attn.qkv", codes, e_qk + 8)[:, : 2 * d]
        u = np.clip(u, -(2**20), 2**20 - 1).reshape(-1, 2, heads, k // 2, 2)
        # A rotation by no angle is R(u, 8), which is what models with sinusoidal positions need.
        x, y = u[..., 0], u[..., 1]
        cos, sin = (2**14, 0) if self.m.sinusoidal else self.angles[self.t].T
        u = np.stack((r(x * cos - y * sin, 22), r(x * sin + y * cos, 22)), axis=-1)
        q, key = np.moveaxis(np.clip(u, -127, 127).reshape(-1, 2, heads, k), 1, 0)
        value = np.clip(self.p(b + "attn.qkv", codes, e_v)[:, 2 * d :], -127, 127)
        return [q, key, value.reshape(q.shape)]

    def attention(self, codes: np.ndarray, b: str, e_qk: int, e_v: int, e_out: int) -> np.ndarray:
        q, *new = self.qkv(codes, b, e_qk, e_v)
        seen = np.append(self.state[b + "seen"], np.stack(new, axis=1)[:, None], axis=1)
        self.state[b + "seen"] = seen = seen[:, -self.window :]
        score = np.einsum("bhk,bjhk->bhj", q, seen[:, :, 0])
        gap = (score.max(axis=2, keepdims=True) - score) * ((isqrt(2**34 // self.k) + 1) >> 1)
        p = self.exps[np.minimum(gap >> (9 + 2 * e_qk), len(self.exps) - 1)]
        total = np.einsum("bhj,bjhk->bhk", p, seen[:, :, 1])
        mean = r(total * (2**40 // p.sum(axis=2, keepdims=True)), 40 + e_v - e_out)
        return np.clip(mean, -127, 127).reshape(len(q), -1)

    def activation(self, codes: np.ndarray, b: str, e: int) -> np.ndarray:
        if not self.m.gelu:
            u = np.clip(self.p(b + "mlp.up", codes, 10), 0, 2**26 - 1)
            return np.minimum(r(u * u, 20 - e), 127)
        u = np.clip(self.p(b + "mlp.up", codes, 6), -(2**20), 2**20 - 1)
        g = np.where(u >= 512, 16 * u, GELU[np.clip(u + 512, 0, 1023)])
        return np.clip(r(np.where(u < -512, 0, g), 10 - e), -127, 127)

    def head(self, codes: np.ndarray, before: list[int]) -> np.ndarray:
        logits, v = self.p("head", codes, 6), len(self.m.in_use)
        for row, matcher in enumerate(self.matchers if self.m.match_min else []):
            if self.t > 0:
                matcher.push(before[row])
            if matcher.p >= 0:
                guess = self.m.in_use.index(matcher.s[matcher.p])
                logits[row, guess] += logits[row, v] + self.match[matcher.length]
        self.t, logits = self.t + 1, logits[:, :v]
        gap = logits.max(axis=1, keepdims=True) - logits
        return 1 + EXP_COUNTS[np.minimum(gap, len(EXP_COUNTS) - 1)]
