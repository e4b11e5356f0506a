"""Binary range coder and the integer tables of logistic mixing; exact on every machine.

Units: a probability is an integer in 1..65535 over 2**16 (that the bit is 1); `stretch` is its
log-odds in 1/1024 nat, -12288..12287; `squash` is the inverse. All arithmetic is int64 with
explicit shifts (`>>` floors), so nothing depends on the machine, libm or the compiler.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from mdlzip.process.kernels import compiled

PROBABILITY_BITS = 16
ONE = 1 << PROBABILITY_BITS
STRETCH_LIMIT = 12288  # 12 nats in 1/1024 nat; squash(-12 nats) * 2**16 < 1
STRETCH_BITS = 12  # precision of a probability that is stretched: a small table stays in cache
COST_BITS = 16  # costs are counted in 2**-16 bit

# Fields of the coder's int64 state.
LOW, RANGE, CACHE, PENDING, POSITION, CODE = range(6)
STATE_FIELDS = 6

_TOP = 1 << 24  # the range stays at or above this, so even probability 1 / 2**16 has width >= 256
_EXP_ONE = 1 << 62
_EXP_STEP = 4607184617107619806  # round(2**62 * exp(-1 / 1024))


# No divisor of ours can be zero; without the checks numba also drops most reference counting.
jit = compiled(error_model="numpy")
# For functions that are put into their callers: no reference counting at calls.
jit_inline = compiled(error_model="numpy", inline="always")


@cache
def squash_table() -> np.ndarray:
    """Log-odds + STRETCH_LIMIT -> probability; int64, shape (2 * STRETCH_LIMIT,), 1..65535.

    Built with Python integers from one constant: e[0] = 2**62, e[k + 1] = e[k] * STEP >> 62.
    """
    upper = []
    e = _EXP_ONE
    for _ in range(STRETCH_LIMIT + 1):
        upper.append(min((ONE * _EXP_ONE) // (_EXP_ONE + e), ONE - 1))
        e = (e * _EXP_STEP) >> 62
    lower = [ONE - p for p in upper[:0:-1]]
    return np.array(lower + upper[:-1], dtype=np.int64)


@cache
def stretch_table() -> np.ndarray:
    """Probability in 1/4096, cut to 0..4095 -> log-odds in 1/1024 nat; int64.

    Entry i is the log-odds whose probability is nearest below (i + 1/2) / 4096.
    """
    middle = (2 * np.arange(1 << STRETCH_BITS, dtype=np.int64) + 1) << (15 - STRETCH_BITS)
    return np.searchsorted(squash_table(), middle, "right") - 1 - STRETCH_LIMIT


@cache
def cost_table() -> np.ndarray:
    """Probability -> cost of that event in 2**-16 bit; int64; for reports, never for coding."""
    p = np.arange(ONE + 1, dtype=np.float64)
    p[0] = 1.0
    return np.rint((PROBABILITY_BITS - np.log2(p)) * (1 << COST_BITS)).astype(np.int64)


def new_encoder() -> np.ndarray:
    """State of a fresh encoder, int64 [STATE_FIELDS]."""
    state = np.zeros(STATE_FIELDS, dtype=np.int64)
    state[RANGE] = 1 << 32
    state[CACHE] = -1  # no byte is waiting yet; the first one can receive no carry
    return state


def new_decoder(data: np.ndarray) -> np.ndarray:
    """State of a decoder at the start of `data` (uint8); bytes past its end count as zero."""
    state = np.zeros(STATE_FIELDS, dtype=np.int64)
    state[RANGE] = 1 << 32
    head = bytes(data[:4]).ljust(4, b"\0")
    state[CODE] = int.from_bytes(head, "big")
    state[POSITION] = 4
    return state


@jit
def shift_low(state: np.ndarray, out: np.ndarray) -> None:
    """Move the top byte of `low` out; 0xFF bytes wait until it is known whether a carry comes."""
    low = state[LOW]
    if low < 0xFF000000 or low >= 0x100000000:
        carry = low >> 32
        position = state[POSITION]
        if state[CACHE] >= 0:
            out[position] = (state[CACHE] + carry) & 0xFF
            position += 1
        for _ in range(state[PENDING]):
            out[position] = (0xFF + carry) & 0xFF
            position += 1
        state[PENDING] = 0
        state[CACHE] = (low >> 24) & 0xFF
        state[POSITION] = position
    else:
        state[PENDING] += 1
    state[LOW] = (low & 0x00FFFFFF) << 8


@jit_inline
def encode_bit(state: np.ndarray, out: np.ndarray, bit: int, p: int) -> None:
    """Append `bit` with probability `p` / 2**16 of being 1; `out` must have room for 3 bytes more.

    Room for the bytes in PENDING is needed too.
    """
    bound = (state[RANGE] * p) >> PROBABILITY_BITS
    if bit:
        state[RANGE] = bound
    else:
        state[LOW] += bound
        state[RANGE] -= bound
    while state[RANGE] < _TOP:
        state[RANGE] <<= 8
        shift_low(state, out)


@jit_inline
def decode_bit(state: np.ndarray, data: np.ndarray, p: int) -> int:
    """Return the next bit; `p` as in `encode_bit`. Never reads outside `data`."""
    bound = (state[RANGE] * p) >> PROBABILITY_BITS
    if state[CODE] < bound:
        state[RANGE] = bound
        bit = 1
    else:
        state[CODE] -= bound
        state[RANGE] -= bound
        bit = 0
    while state[RANGE] < _TOP:
        state[RANGE] <<= 8
        position = state[POSITION]
        byte = np.int64(data[position]) if position < data.size else np.int64(0)
        state[CODE] = (state[CODE] << 8) | byte
        state[POSITION] = position + 1
    return bit


def finish(state: np.ndarray, out: np.ndarray) -> int:
    """Flush the encoder; returns the length without trailing zero bytes (the decoder adds them).

    Of all values in the final interval the one with most trailing zero bits at a byte edge is
    written. `out` needs room for PENDING + 5 bytes more.
    """
    low, width = int(state[LOW]), int(state[RANGE])
    for bits in (32, 24, 16, 8, 0):
        value = (low + (1 << bits) - 1) >> bits << bits
        if value < low + width:
            break
    state[LOW] = value
    for _ in range(5):
        shift_low(state, out)
    length = int(state[POSITION])
    while length and out[length - 1] == 0:
        length -= 1
    return length
