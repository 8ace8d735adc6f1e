"""Digests: SHA-256 of arrays, files and JSON values, each in one fixed form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_PART = 64 * 2**20  # bytes that are hashed at once


def digest_arrays(*arrays: NDArray[np.generic]) -> str:
    """Return the SHA-256 of arrays: of each one its dtype, shape and little-endian bytes."""
    sha = hashlib.sha256()
    for array in map(np.atleast_1d, arrays):  # a number counts as an array of one, permanently
        little = array.dtype.newbyteorder("<")
        sha.update(array_head(array))
        for part in _parts(array):
            sha.update(np.ascontiguousarray(part, dtype=little).tobytes())
    return sha.hexdigest()


def _parts(array: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    """Cut an array along its first axis, because a memory-mapped one may be larger than memory."""
    if array.nbytes <= _PART:
        yield array
        return
    rows = max(1, _PART * len(array) // array.nbytes)
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def array_head(array: NDArray[np.generic], shape: tuple[int, ...] | None = None) -> bytes:
    """Return what `digest_arrays` hashes before an array's bytes; `shape` is that of the whole."""
    little = array.dtype.newbyteorder("<")
    return f"{little.str}{array.shape if shape is None else shape}".encode()


def digest_named_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """Return the SHA-256 of named arrays (a state dict), independent of their order."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(f"{name}={digest_arrays(arrays[name])};".encode())
    return sha.hexdigest()


def digest_json(value: object) -> str:
    """Return the SHA-256 of a JSON value: keys sorted, no spaces, UTF-8."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: object) -> str:
    """Return the canonical text of a JSON value. Raises ValueError for NaN or infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
