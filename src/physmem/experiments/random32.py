# SPDX-License-Identifier: GPL-2.0-or-later
"""The generator of random numbers of all experiments: small, seeded, the same in both modes.

sfc32 (small fast counting, by Chris Doty-Humphrey, in the public domain): 128 bits of state, every
operation on 32 bits, so that 64-bit machine code and Python's unbounded integers agree. Independent
sequences of one seed have different numbers of a stream.
"""

from physmem.lib.jit import inlined, kernel
from physmem.lib.struct import Array, i64, struct

_MASK = 0xFFFFFFFF
_WARM_UP = 15
MOST_SEED = (1 << 63) - 1
"""Largest seed."""


@struct
class Random:
    """State of a generator: 32 bits in each field."""

    word_a: i64
    word_b: i64
    word_c: i64
    counter: i64


@inlined
def next32(random: Random) -> int:
    """The next 32 random bits."""
    word = (random.word_a + random.word_b + random.counter) & _MASK
    random.counter = (random.counter + 1) & _MASK
    random.word_a = random.word_b ^ (random.word_b >> 9)
    random.word_b = (random.word_c + (random.word_c << 3)) & _MASK
    turned = ((random.word_c << 21) | (random.word_c >> 11)) & _MASK
    random.word_c = (turned + word) & _MASK
    return word


@inlined
def below(random: Random, bound: int) -> int:
    """An even choice of 0 .. bound - 1; `bound` is 1 .. 2**31.

    A product's upper half is the answer; the few lower halves that would favour some are refused
    (D. Lemire, Fast Random Integer Generation in an Interval, 2019).
    """
    product = next32(random) * bound
    low = product & _MASK
    if low < bound:
        uneven = ((1 << 32) - bound) % bound
        while low < uneven:
            product = next32(random) * bound
            low = product & _MASK
    return product >> 32


@inlined
def chance(random: Random, parts: int) -> bool:
    """True in `parts` of 65,536 cases."""
    return next32(random) >> 16 < parts


@kernel
def seed_random(random: Random, seed: int, stream: int) -> None:
    """Begin the sequence number `stream` of a seed (0 .. 2**63 - 1)."""
    random.word_a = seed & _MASK
    random.word_b = seed >> 32 & _MASK
    random.word_c = stream & _MASK
    random.counter = 1
    for _ in range(_WARM_UP):
        next32(random)


@kernel
def draw(random: Array[Random], bound: int, out: Array[i64]) -> None:
    """Fill `out` with choices of 0 .. bound - 1, from Python."""
    for i in range(len(out)):
        out[i] = below(random[0], bound)


@kernel
def start_random(random: Array[Random], seed: int, stream: int) -> None:
    """`seed_random` from Python."""
    seed_random(random[0], seed, stream)
