from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from satbench.core import digests
from satbench.core.digests import (
    canonical_json,
    digest_arrays,
    digest_file,
    digest_json,
    digest_named_arrays,
)

GRID = np.arange(6, dtype=np.int32).reshape(2, 3)


def test_the_digest_of_an_array_is_that_of_dtype_shape_and_little_endian_bytes() -> None:
    expected = hashlib.sha256(b"<i4(2, 3)" + GRID.astype("<i4").tobytes()).hexdigest()

    assert digest_arrays(GRID) == expected


def test_the_byte_order_in_memory_does_not_change_a_digest() -> None:
    assert digest_arrays(GRID.astype(">i4")) == digest_arrays(GRID)


def test_the_layout_in_memory_does_not_change_a_digest() -> None:
    assert digest_arrays(np.asfortranarray(GRID)) == digest_arrays(GRID)


def test_the_dtype_changes_a_digest() -> None:
    assert digest_arrays(GRID.view(np.uint32)) != digest_arrays(GRID)


def test_the_shape_changes_a_digest() -> None:
    assert digest_arrays(GRID.reshape(3, 2)) != digest_arrays(GRID)


def test_one_element_changes_a_digest() -> None:
    other = GRID.copy()
    other[1, 2] = 7

    assert digest_arrays(other) != digest_arrays(GRID)


def test_the_order_of_arrays_changes_a_digest() -> None:
    assert digest_arrays(GRID, GRID + 1) != digest_arrays(GRID + 1, GRID)


def test_the_order_of_named_arrays_does_not_change_a_digest() -> None:
    assert digest_named_arrays({"a": GRID, "b": GRID + 1}) == digest_named_arrays(
        {"b": GRID + 1, "a": GRID}
    )


def test_swapped_names_change_a_digest() -> None:
    assert digest_named_arrays({"a": GRID, "b": GRID + 1}) != digest_named_arrays(
        {"b": GRID, "a": GRID + 1}
    )


def test_canonical_json_sorts_keys_and_has_no_spaces() -> None:
    assert canonical_json({"b": [1, 2.5], "a": None}) == '{"a":null,"b":[1,2.5]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canonical_json_refuses_numbers_that_json_does_not_have(value: float) -> None:
    with pytest.raises(ValueError, match=r"not JSON compliant"):
        canonical_json([value])


def test_the_order_of_keys_does_not_change_a_json_digest() -> None:
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")

    assert digest_file(path) == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (1, 5), (7, 2, 3)])
def test_the_digest_of_an_array_is_that_of_its_bytes_however_it_is_cut(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.arange(int(np.prod(shape)), dtype=">f4").reshape(shape)
    head = f"<f4{shape or (1,)}".encode()  # a number counts as an array of one
    expected = hashlib.sha256(head + array.astype("<f4").tobytes()).hexdigest()

    for part in (1, 9, 2**20):
        monkeypatch.setattr(digests, "_PART", part)
        assert expected == digest_arrays(array)
