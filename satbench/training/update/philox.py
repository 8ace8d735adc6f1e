"""Philox 4×64-10 on any device: exactly NumPy's numbers, from any position of the stream.

Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3", SC '11, section 3.3.  Unsigned
64-bit words are stored in int64 tensors, whose sums and products wrap to the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUMBERS = 8
"""How many float32 numbers a counter gives: two for each of its four words."""

_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS, _LOW, _WORD = 10, 2**32 - 1, 2**64
_AT_ONCE = 2**20  # counters per chunk, so that a large batch needs little extra memory


def uniform_numbers(key: int, start: int, count: int, device: torch.device) -> Tensor:
    """Return numbers `start` to `start + count` of the stream of a 128-bit key, in [0, 1).

    They are those of `numpy.random.Generator(numpy.random.Philox(key=key)).random`, float32.
    -> (count,) float32 on `device`.
    """
    first, last = start // NUMBERS, -(-(start + count) // NUMBERS)
    pieces = [
        _floats(_words(key, torch.arange(block, min(block + _AT_ONCE, last), device=device)))
        for block in range(first, last, _AT_ONCE)
    ]
    drawn = torch.cat(pieces) if pieces else torch.empty(0, device=device)
    skipped = start - first * NUMBERS
    return drawn[skipped : skipped + count]


def _words(key: int, blocks: Tensor) -> Tensor:
    """Return the four words of some blocks.  (N,) -> (N, 4)."""
    zero = torch.zeros_like(blocks)
    # NumPy increments the counter before it computes.
    words = [blocks + 1, zero, zero, zero]
    keys = [key % _WORD, key // _WORD]
    for _ in range(_ROUNDS):
        (high_0, low_0), (high_2, low_2) = (
            _product(multiplier, word)
            for multiplier, word in zip(_MULTIPLIERS, words[::2], strict=True)
        )
        words = [
            high_2 ^ words[1] ^ _signed(keys[0]),
            low_2,
            high_0 ^ words[3] ^ _signed(keys[1]),
            low_0,
        ]
        keys = [(key + weyl) % _WORD for key, weyl in zip(keys, _WEYL, strict=True)]
    return torch.stack(words, 1)


def _product(number: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """Return the upper and the lower word of the product of two words."""
    low, high = word & _LOW, _upper(word)
    low_low, low_high = low * (number & _LOW), low * (number >> 32)
    high_low, high_high = high * (number & _LOW), high * (number >> 32)
    middle = _upper(low_low) + (low_high & _LOW) + (high_low & _LOW)
    upper = high_high + _upper(low_high) + _upper(high_low) + (middle >> 32)
    return upper, word * _signed(number)


def _floats(words: Tensor) -> Tensor:
    """Return two numbers of each word, the lower half's first.  (N, 4) -> (8 N,)."""
    halves = torch.stack([words & _LOW, _upper(words)], 2).flatten()
    return (halves >> 8).float() * 2.0**-24


def _upper(word: Tensor) -> Tensor:
    return (word >> 32) & _LOW  # the shift extends the sign


def _signed(number: int) -> int:
    return number - _WORD if number >= _WORD // 2 else number
