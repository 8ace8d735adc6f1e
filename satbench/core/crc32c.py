"""CRC-32C (Castagnoli), the checksum of LevelDB's tables and TensorFlow's checkpoints.

RFC 3720, appendix B.4.  A checksum is linear over GF(2), so many stretches of a file are gone
through at once, and their checksums are combined: some 100 MB a second in NumPy.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_BLOCKS = ((1 << 12, 1 << 11), (1 << 9, 1 << 9), (1 << 6, 1 << 6))  # lanes, and bytes of a lane
_ONES = 0xFFFFFFFF


def crc32c(data: bytes | memoryview | NDArray[np.uint8]) -> int:
    """Return the checksum of some bytes.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    octets = np.frombuffer(data, np.uint8)
    state, begin = _ONES, 0
    for lanes, length in _BLOCKS:
        while len(octets) - begin >= lanes * length:
            block = octets[begin : begin + lanes * length].reshape(lanes, length)
            state = _shifted(state, lanes * length) ^ _of_lanes(block)
            begin += lanes * length
    table = _table().tolist()
    for octet in octets[begin:].tolist():
        state = table[(state ^ octet) & 0xFF] ^ (state >> 8)
    return state ^ _ONES


def masked(crc: int) -> int:
    """Return a checksum as LevelDB stores it: rotated, and moved by a constant."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & _ONES


def _of_lanes(block: NDArray[np.uint8]) -> int:
    """Return the checksum, from 0, of (lanes, length) bytes in a row; lanes is a power of 2."""
    crcs: Words = np.zeros(len(block), np.uint32)
    pairs = _table_of_pairs()
    for column in np.ascontiguousarray(block.view("<u2").T):
        crcs = pairs[(crcs ^ column) & 0xFFFF] ^ (crcs >> 16)
    operator = _zeros(block.shape[1])
    while len(crcs) > 1:
        crcs = _applied(operator, crcs[0::2]) ^ crcs[1::2]
        operator = _applied(operator, operator)
    return int(crcs[0])


def _shifted(crc: int, length: int) -> int:
    """Return what becomes of a checksum when `length` bytes of 0 follow."""
    return int(_applied(_zeros(length), np.array([crc], np.uint32))[0])


@cache
def _zeros(length: int) -> Words:
    """Return the operator of `length` bytes of 0: what it makes of each of the 32 bits."""
    bits = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
    operator, power = bits, _table()[bits & 0xFF] ^ (bits >> 8)
    while length:
        if length & 1:
            operator = _applied(power, operator)
        power = _applied(power, power)
        length >>= 1
    return operator


def _applied(operator: Words, words: Words) -> Words:
    result: Words = np.zeros_like(words)
    for bit in range(32):
        result ^= np.where(words >> bit & 1, operator[bit], np.uint32(0))
    return result


@cache
def _table() -> Words:
    words: Words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        words = np.where(words & 1, np.uint32(0x82F63B78), np.uint32(0)) ^ (words >> 1)
    return words


@cache
def _table_of_pairs() -> Words:
    words: Words = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(2):
        words = _table()[words & 0xFF] ^ (words >> 8)
    return words
