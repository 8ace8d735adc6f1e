"""Witness files: an exact round trip, and no surprise from a damaged one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from satbench.core.errors import SatbenchError
from satbench.leaderboard.record import Witnesses, read_witnesses, write_witnesses

WITNESSES = Witnesses(
    np.array([1, 5]), np.random.default_rng(0).random((2, 1, 4, 4), dtype=np.float32)
)


def test_witnesses_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    write_witnesses(WITNESSES, tmp_path / "w.npz")

    assert read_witnesses(tmp_path / "w.npz").digest == WITNESSES.digest


def test_a_flipped_byte_anywhere_is_refused_or_seen_in_the_digest_or_harmless(
    tmp_path: Path,
) -> None:
    path = tmp_path / "w.npz"
    write_witnesses(WITNESSES, path)
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(bytes(damaged))
        try:
            read_witnesses(path)
        except SatbenchError:
            refused += 1

    assert refused > len(whole) / 4
