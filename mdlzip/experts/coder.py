"""The binary range coder with probabilities of 22 bits, as a long repeat needs them."""

from __future__ import annotations

import numpy as np

from mdlzip.coding.binary_coder import CODE, LOW, POSITION, RANGE, shift_low
from mdlzip.experts.slots import Array, Int, inlined
from mdlzip.experts.tables import PROBABILITY_BITS

_TOP = 1 << 24


@inlined
def code_bit(state: Array, stream: Array, decoding: bool, bit: Int, p: Int) -> Int:
    """Code a decision whose answer is 1 with probability p / 2**22; returns it.

    Bytes past the end of `stream` count as zero when decoding; when encoding it must have room.
    """
    bound = (state[RANGE] * p) >> PROBABILITY_BITS
    if decoding:
        bit = np.int64(state[CODE] < bound)
    if bit:
        state[RANGE] = bound
    else:
        state[RANGE] -= bound
        state[CODE if decoding else LOW] += -bound if decoding else bound
    while state[RANGE] < _TOP:
        state[RANGE] <<= 8
        if decoding:
            position = state[POSITION]
            byte = np.int64(stream[position]) if position < stream.size else np.int64(0)
            state[CODE] = (state[CODE] << 8) | byte
            state[POSITION] = position + 1
        else:
            shift_low(state, stream)
    return bit
