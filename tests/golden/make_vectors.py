"""Write docs/format-vectors.md: `python tests/golden/make_vectors.py`.

Every number comes from the second decoder and the golden archives. Tests compare the page with what
this file makes, and its numbers with mdlzip's own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from tests.golden.annotate import annotated  # noqa: E402
from tests.second_decoder import archive, data, decode, experts, predictor, weights  # noqa: E402

PAGE = ROOT / "docs" / "format-vectors.md"
POSITION = 5  # of the first chunk: whose steps are shown
CODED_SYMBOLS = 5  # of the first group: whose decoding is shown
STREAM = bytes.fromhex("8f4b62bf9611")
STREAM_TENSORS = {"embedding": (2, 4), "head_bias": (4,)}
SHOWN_DECISIONS = (0, 1, 2, *range(1394, 1402))  # of the experts, in the first unit
ROOTS = (1, 2, 3, 4095, 1 << 24, (1 << 40) + 12345, (1 << 50) + 1)
MATCHED = "abracadabra, abracadabra"


def tables() -> dict[str, np.ndarray]:
    """Name -> entries in order, row by row."""
    return {
        "EXP(22, 64)": predictor.exp_table(22, 64)[:-1],
        "EXP(15, 128)": predictor.exp_table(15, 128)[:-1],
        "EXP(10, 128)": predictor.exp_table(10, 128)[:-1],
        "ROT(8), t < 16": first_rows(predictor.rotations(8), 16),
        "ROT(64), t < 512": first_rows(predictor.rotations(64), 512),
        "POS(8), t < 16": positions(8, 16),
        "POS(64), t < 512": positions(64, 512),
        "GELU": predictor.GELU,
        "RSQ, i >= 64": predictor.RSQ[64:],
        "squash, x >= -12288": np.array(weights.SQUASH),
        "stretch": np.array(weights.STRETCH),
        "coarse, v < 32768": np.array(weights.COARSE),
        "fine, v < 32768": np.array(weights.FINE),
        "experts: squash, x >= -3072": np.array(experts.SQUASH),
        "experts: stretch(16 i + 8), i < 4096": np.array(experts.LOW),
        "experts: stretch(1024 i + 512), 64 <= i < 4032": np.array(experts.MIDDLE[64:4032]),
    }


def first_rows(table: Iterator[np.ndarray], n: int) -> np.ndarray:
    """The first n rows of a table, one after the other."""
    return np.concatenate([row.ravel() for row in islice(table, n)])


def positions(d: int, n: int) -> np.ndarray:
    """The first n rows of POS(D)."""
    rows = first_rows(predictor.rotations(d), n).reshape(-1, 2)
    return (rows[:, ::-1].ravel() + 2) >> 2


class TracingPredictor(predictor.Predictor):
    """Notes what becomes of the first chunk of the first group."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.groups, self.steps = 0, []
        TracingPredictor.latest = self  # type: ignore[attr-defined]

    def note(self, label: str, values: np.ndarray) -> None:
        if self.groups == 1:
            self.steps[-1][label] = np.asarray(values)[0].ravel().tolist()

    def start(self, n: int) -> None:
        super().start(n)
        self.groups += 1

    def counts(self, before: list[int]) -> np.ndarray:
        if self.groups == 1:
            self.steps.append({"symbol before": before[:1]})
        counts = super().counts(before)
        self.note("counts", counts)
        return counts

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        y = super().norm(x, name)
        place = name.split(".")[-2].removesuffix("_norm")
        self.note(f"{place} x", x)
        self.note(f"{place} y", y)
        return y

    def convolved(self, y: np.ndarray, part: str, e: int) -> np.ndarray:
        codes = super().convolved(y, part, e)
        self.note(part.split(".")[-2] + "_in", codes)
        return codes

    def qkv(self, codes: np.ndarray, b: str, e_qk: int, e_v: int) -> list[np.ndarray]:
        found = super().qkv(codes, b, e_qk, e_v)
        for label, values in zip("qkv", found, strict=True):
            self.note(label, values)
        return found

    def attention(self, codes: np.ndarray, b: str, e_qk: int, e_v: int, e_out: int) -> np.ndarray:
        out = super().attention(codes, b, e_qk, e_v, e_out)
        self.note("attn_out", out)
        return out

    def activation(self, codes: np.ndarray, b: str, e: int) -> np.ndarray:
        out = super().activation(codes, b, e)
        self.note("mlp_act", out)
        return out

    def head(self, codes: np.ndarray, before: list[int]) -> np.ndarray:
        self.note("head_in", codes)
        return super().head(codes, before)


class TracingCoder(data.RangeDecoder):
    """Notes every symbol of the first group."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.rows: list[tuple[int, ...]] = [(-1, 0, 0, 0, self.lower, self.range, self.point)]
        if TracingPredictor.latest.groups == 0:  # type: ignore[attr-defined]
            TracingCoder.first = self  # type: ignore[attr-defined]

    def symbol(self, weights: np.ndarray) -> int:
        q = (self.point - self.lower) % 2**64 // (self.range >> 24)
        rank = super().symbol(weights)
        left, right = int(weights[rank]), int(weights[rank + 1])
        self.rows.append((q, rank, left, right, self.lower, self.range, self.point))
        return rank


def traced(name: str) -> tuple[TracingPredictor, TracingCoder]:
    """What happens to the first chunk of a golden archive, and to its first group."""
    with (
        mock.patch.object(archive, "Predictor", TracingPredictor),
        mock.patch.object(data, "RangeDecoder", TracingCoder),
    ):
        decode((HERE / f"v1-{name}.mdlz").read_bytes())
    return TracingPredictor.latest, TracingCoder.first  # type: ignore[attr-defined]


class TracingStream(weights.WeightsStream):
    """Notes every decision."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.rows: list[tuple[str, int, int, int, int]] = [("", 0, 0, self.range, self.code)]

    def decide(self, slots: list[list[int]], a: list[int], b: list[int]) -> int:
        x = [weights.STRETCH[q >> 10] * (256 * n // (n + 4)) >> 8 for q, n in slots]
        dot = sum(v * (a[j] + b[j]) for j, v in enumerate([*x, 256]))
        p = weights.SQUASH[min(max(dot >> 16, -12288), 12287) + 12288]
        asked = [f"at least {t}?" for t, node_set in self.node_sets.items() if node_set is a]
        bit = super().decide(slots, a, b)
        p = min(max(p, 4), 65532)
        self.rows.append(((asked or ["negative?"])[0], p, bit, self.range, self.code))
        return bit


class TracingBits(experts.BinaryDecoder):
    """Notes the last probability that was asked for."""

    def bit(self, p: int, bits: int) -> int:
        self.p = p
        return super().bit(p, bits)


class TracingExperts(experts.Experts):
    """Notes every decision of the first unit: x, sets, refinements, p, bit, range and code."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rows: list[tuple[Any, ...]] = []
        if not self.start:
            TracingExperts.first = self  # type: ignore[attr-defined]

    def decide(self, x: list[int], sets: tuple[int, ...], pair: tuple[int, int]) -> int:
        bit, stream = super().decide(x, sets, pair), self.stream
        self.rows.append((list(x), sets, pair, stream.p, bit, stream.range, stream.code))
        return bit


def expert_decisions(name: str) -> list[tuple[Any, ...]]:
    """The decisions of the first unit of a golden archive."""
    with (
        mock.patch.object(data, "Experts", TracingExperts),
        mock.patch.object(experts, "BinaryDecoder", TracingBits),
    ):
        decode((HERE / f"v1-{name}.mdlz").read_bytes())
    return TracingExperts.first.rows  # type: ignore[attr-defined]


def matched(text: str, match_min: int, chunk_size: int) -> list[tuple[str, int]]:
    """The guess and its length at each position of a chunk; ("", 0) for none."""
    matcher = predictor.Matcher(match_min, chunk_size)
    guesses = [("", 0)]
    for character in text[:-1]:
        matcher.push(ord(character))
        found = (chr(matcher.s[matcher.p]), matcher.length) if matcher.p >= 0 else ("", 0)
        guesses.append(found)
    return guesses


# --- the page ------------------------------------------------------------------------------------


def numbers(values: Iterable[int], width: int = 92) -> Iterator[str]:
    """The numbers, as lines."""
    line = ""
    for value in values:
        if len(line) + len(str(value)) + 1 > width:
            yield line
            line = ""
        line += (" " if line else "") + str(value)
    yield line


def row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def head(*cells: str) -> list[str]:
    return ["", row(*cells), row(*["---"] * len(cells))]


def table_lines() -> Iterator[str]:
    yield from head("table", "entries", "first", "last", "SHA-256, first 16 digits")
    for name, entries in tables().items():
        digest = sha256(entries.astype("<i8").tobytes()).hexdigest()[:16]
        first, last = (" ".join(map(str, part)) for part in (entries[:5], entries[-3:]))
        yield row(name, len(entries), first, last, f"`{digest}`")


def root_lines() -> Iterator[str]:
    yield from head("v", "r", "s")
    for v, r, s in zip(ROOTS, *predictor.inverse_root(np.array(ROOTS)[:, None]), strict=True):
        yield row(v, int(r[0]), int(s[0]))


def hex_lines() -> Iterator[str]:
    yield from head("offset", "bytes", "meaning")
    for offset, raw, meaning in annotated((HERE / "v1-learned-smallest.mdlz").read_bytes()):
        yield row(offset, f"`{raw.hex(' ')}`", meaning)


def stream_lines() -> Iterator[str]:
    stream = TracingStream(STREAM)
    yield from head("tensor", "codes", "decision", "p", "bit", "range", "code")
    *_, range_, code = stream.rows[0]
    yield row("", "", "at the start", "", "", f"{range_:x}", f"{code:x}")
    for name, shape in STREAM_TENSORS.items():
        done = len(stream.rows)
        codes = stream.tensor(name, shape).ravel().tolist()
        for i, (asked, p, bit, range_, code) in enumerate(stream.rows[done:]):
            labels = (f"`{name}` {shape}", codes) if i == 0 else ("", "")
            yield row(*labels, asked, p, bit, f"{range_:x}", f"{code:x}")


def step_lines(name: str) -> Iterator[str]:
    steps = traced(name)[0].steps[POSITION]
    yield "```"
    for label, values in steps.items():
        lines = list(numbers(values, 80))
        yield f"{label:<15}{lines[0]}"
        yield from (" " * 15 + line for line in lines[1:])
    yield "```"


def coder_lines(name: str) -> Iterator[str]:
    tracing, coder = traced(name)
    weights_ = data.cumulative_weights(np.array([tracing.steps[0]["counts"]]))[0]
    yield "```"
    for label, values in (("counts", tracing.steps[0]["counts"]), ("L", weights_)):
        yield f"{label:<8}" + " ".join(map(str, values))
    yield "```"
    yield from head("q", "rank", "L[rank]", "L[rank + 1]", "lower", "range", "point")
    for i, (q, rank, left, right, *state) in enumerate(coder.rows[: CODED_SYMBOLS + 1]):
        yield row(*((q, rank, left, right) if i else [""] * 4), *(f"{v:016x}" for v in state))


def expert_lines(name: str) -> Iterator[str]:
    rows = expert_decisions(name)
    yield from head("number", "inputs 0 to 17", "sets", "refinements", "p", "bit", "range", "code")
    for number in SHOWN_DECISIONS:
        x, sets, pair, p, bit, range_, code = rows[number]
        lists = (" ".join(map(str, part)) for part in (x[:18], sets, pair))
        yield row(number, *lists, p, bit, f"{range_:x}", f"{code:x}")


def match_lines() -> Iterator[str]:
    yield from head("position", "symbol", "guess", "length")
    for t, (guess, length) in enumerate(matched(MATCHED, 2, 64)):
        yield row(t, f"`{MATCHED[t]}`", f"`{guess}`" if length else "", length or "")


def page() -> str:
    """The whole page."""
    parts = {
        "TABLES": table_lines(), "ROOTS": root_lines(), "HEX": hex_lines(),
        "STREAM": stream_lines(), "OURS": step_lines("learned-tiny-ours"),
        "PAPER": step_lines("learned-tiny-paper"), "CODER": coder_lines("learned-tiny-ours"),
        "EXPERTS": expert_lines("learned-alone"), "MATCHES": match_lines(),
    }  # fmt: skip
    text = (HERE / "format-vectors.txt").read_text(encoding="utf-8")
    for name, lines in parts.items():
        text = text.replace(f"<<{name}>>", "\n".join(lines).strip("\n"))
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
