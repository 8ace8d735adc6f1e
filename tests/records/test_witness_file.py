"""Witness files: an exact round trip, and clear errors for damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from satbench.core.errors import SatbenchError
from satbench.records import witnesses
from satbench.records.witnesses import (
    Witnesses,
    WitnessSpool,
    find_witnesses,
    read_witnesses,
    store_witnesses,
    witnesses_path,
    write_witnesses,
)

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


@pytest.mark.parametrize("count", [0, 1, 7])
def test_witnesses_spooled_in_pieces_of_any_order_are_those_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(witnesses, "_CHUNK_BYTES", 2 * 4 * 3 * 16)  # two images a chunk
    generator = np.random.default_rng(1)
    indices = 3 * np.arange(count)
    whole = Witnesses(indices, generator.random((count, 3, 4, 4), dtype=np.float32))
    order = generator.permutation(count)
    with WitnessSpool((3, 4, 4), tmp_path) as spool:
        for piece in np.array_split(order, 3):
            spool.add(whole.indices[piece], whole.images[piece])
        spool.write(tmp_path / "spooled.npz")
        told, read = spool.digest, spool.read().digest
    write_witnesses(whole, tmp_path / "whole.npz")

    assert [whole.digest] * 3 == [told, read, read_witnesses(tmp_path / "spooled.npz").digest]
    assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "spooled.npz").read_bytes()
    assert ["spooled.npz", "whole.npz"] == sorted(path.name for path in tmp_path.iterdir())


def test_witnesses_of_a_board_are_found_by_digest_unless_some_lie_beside(tmp_path) -> None:
    record = tmp_path / "records" / "one.json"
    beside = witnesses_path(record)
    write_witnesses(WITNESSES, beside)
    assert beside == find_witnesses(record, WITNESSES.digest)

    stored = store_witnesses(record, WITNESSES.digest, tmp_path / "witnesses")

    assert (stored, False) == (find_witnesses(record, WITNESSES.digest), beside.exists())
    assert WITNESSES.digest == read_witnesses(stored).digest
    assert beside == find_witnesses(record, "0" * 64)  # named in the message that it is missing
