"""Witnesses: the adversarial images that prove a record's verdicts, in a separate file."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from satbench.core.digests import array_head, digest_arrays
from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path, open_plain
from satbench.core.limits import MOST_WITNESS_BYTES, check_archive

_CHUNK_BYTES = 2**20
MOST_HEADER = 10_000
"""Letters; a longer header is not ours, and slow to read."""


@dataclass(frozen=True)
class Witnesses:
    """The adversarial images that prove the broken verdicts of a record.

    `indices` (M,) int64 are indices in the data set, ascending; `images` (M, C, H, W) float32.
    """

    indices: NDArray[np.int64]
    images: NDArray[np.float32]

    @property
    def digest(self) -> str:
        """SHA-256 of indices and images."""
        return digest_arrays(self.indices, self.images)


class WitnessSpool:
    """Witnesses that are being collected for a file.

    They are kept on disk, in a file without a name in `folder`, so that memory does not grow with
    their number.  `shape` is that of one image, (C, H, W).
    """

    def __init__(self, shape: tuple[int, ...], folder: Path) -> None:
        self.shape = shape
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by __exit__)
        self._added: list[NDArray[np.int64]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, indices: NDArray[np.int64], images: NDArray[np.float32]) -> None:
        """Add witnesses: indices in the data set (M,), in any order, and images (M, C, H, W)."""
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(images, "<f4").tobytes())
        self._added.append(indices.astype(np.int64))

    @property
    def indices(self) -> NDArray[np.int64]:
        """The indices of all added witnesses in the data set, ascending."""
        return np.sort(self._unsorted())

    @property
    def digest(self) -> str:
        """The digest that `Witnesses` of the same images has."""
        indices, images = self.indices, hashlib.sha256()
        images.update(array_head(indices))
        images.update(indices.astype("<i8").tobytes())
        images.update(array_head(np.empty(0, "<f4"), (len(indices), *self.shape)))
        for chunk in self._chunks():
            images.update(chunk.tobytes())
        return images.hexdigest()

    def write(self, path: Path) -> None:
        """Write them losslessly and compactly, atomically; `read_witnesses` is the inverse.

        The four bytes of the floats are stored as four planes, which compress far better.  The
        lowest compression level takes a third of the default's time, and 3.5 % more bytes.
        """
        indices = self.indices
        with (
            atomic_path(path) as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            with archive.open("indices.npy", "w") as member:
                npy.write_array(member, indices, allow_pickle=False)
            with archive.open("planes.npy", "w", force_zip64=True) as member:
                shape = (4, len(indices), *self.shape)
                head = {"descr": "|u1", "fortran_order": False, "shape": shape}
                npy.write_array_header_1_0(member, head)
                for plane in range(4):
                    for chunk in self._chunks():
                        member.write(chunk.view(np.uint8).reshape(-1, 4)[:, plane].tobytes())

    def read(self) -> Witnesses:
        """Return all of them in memory."""
        images = np.concatenate([np.empty((0, *self.shape), np.float32), *self._chunks()])
        return Witnesses(self.indices, images)

    def _unsorted(self) -> NDArray[np.int64]:
        return np.concatenate([np.empty(0, np.int64), *self._added])

    def _chunks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the images in the order of their indices, (B, C, H, W) little-endian float32."""
        size = 4 * int(np.prod(self.shape))
        order = np.argsort(self._unsorted(), kind="stable")
        per_chunk = max(1, _CHUNK_BYTES // size)
        for start in range(0, len(order), per_chunk):
            buffer = bytearray()
            for row in order[start : start + per_chunk]:
                self._file.seek(int(row) * size)
                buffer += self._file.read(size)
            yield np.frombuffer(buffer, "<f4").reshape(-1, *self.shape)


def witnesses_path(record_path: Path) -> Path:
    """Return the path of witnesses next to a record, `NAME.witnesses.npz`."""
    return record_path.with_name(record_path.name.removesuffix(".json") + ".witnesses.npz")


def stored_path(folder: Path, digest: str) -> Path:
    """Return the path of witnesses with a digest in the `witnesses` folder of a board."""
    return folder / f"{digest[:16]}.npz"


def find_witnesses(record_path: Path, digest: str) -> Path:
    """Return the path of the witnesses of a record: next to it, else in the folder of its board.

    A board keeps witnesses by their digest in `witnesses`, next to its `records`, so that a clone
    can leave them out and records with equal witnesses share a file.  A text that is not a digest
    names no file there, because it could leave the folder.
    """
    beside = witnesses_path(record_path)
    if not digest.isalnum():
        return beside
    stored = stored_path(record_path.resolve().parent.parent / "witnesses", digest)
    return stored if stored.is_file() and not beside.is_file() else beside


def store_witnesses(record_path: Path, digest: str, folder: Path) -> Path:
    """Move the witnesses next to a record into the folder of a board; return their path."""
    beside, stored = witnesses_path(record_path), stored_path(folder, digest)
    if beside.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        beside.replace(stored)
    return stored


def write_witnesses(witnesses: Witnesses, path: Path) -> None:
    """Write witnesses that are in memory; see `WitnessSpool.write`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with WitnessSpool(witnesses.images.shape[1:], path.parent) as spool:
        spool.add(witnesses.indices, witnesses.images)
        spool.write(path)


def read_witnesses(path: Path, most: int | None = None) -> Witnesses:
    """Read witnesses, at most `most`, if given.

    Raises SatbenchError for a missing or corrupt file, and, before anything is unpacked, for one
    that declares more images, or more than `MOST_WITNESS_BYTES`.
    """
    try:
        with open_plain(path) as file, zipfile.ZipFile(file) as archive:
            shape = _declared_shape(archive, path, most)
            with archive.open("indices.npy") as member:
                indices = npy.read_array(member, allow_pickle=False, max_header_size=MOST_HEADER)
            images = np.empty((*shape[1:], 4), np.uint8)
            with archive.open("planes.npy") as member:
                read_header(member)
                for plane in range(4):
                    read = member.read(prod(shape[1:]))
                    images[..., plane] = np.frombuffer(read, np.uint8).reshape(shape[1:])
            whole = images.view("<f4")[..., 0].astype(np.float32, copy=False)
            return Witnesses(indices.astype(np.int64, casting="safe"), whole)
    except FileNotFoundError:
        raise SatbenchError(
            f"expected witnesses at {path}, which are missing (a wheel and a sparse clone "
            "leave out those of the boards: git sparse-checkout disable brings them)"
        ) from None
    except Exception as error:  # a zip file with a flipped byte can raise any error
        said = str(error)[:200]
        raise SatbenchError(f"the witnesses {path} are corrupt ({said})") from None


def _declared_shape(archive: zipfile.ZipFile, path: Path, most: int | None) -> tuple[int, ...]:
    """Return the shape (4, M, C, H, W) of the planes, if it is within the limits.

    Raises SatbenchError or ValueError otherwise; only two headers are unpacked.
    """
    check_archive(archive, path, MOST_WITNESS_BYTES)
    with archive.open("indices.npy") as member:
        places, kind = read_header(member)
    with archive.open("planes.npy") as member:
        shape, planes = read_header(member)
        declared = archive.getinfo("planes.npy").file_size - member.tell()
    if len(places) != 1 or kind.kind not in "iu" or planes != np.dtype("u1"):
        raise ValueError("expected whole numbers and planes of bytes")
    if shape[:2] != (4, places[0]) or len(shape) < 3 or min(shape[2:]) < 1:
        raise ValueError(f"{places[0]} places do not go with planes of shape {shape}")
    if declared != prod(shape):
        raise ValueError(f"planes of shape {shape} do not have {declared:,} bytes")
    if most is not None and places[0] > most:
        raise ValueError(f"expected at most {most} images, got {places[0]}")
    return shape


def read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Read the header of a member; return the shape and the type of its array."""
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_by_column, kind = read(member, max_header_size=MOST_HEADER)
    if is_by_column and len(shape) > 1:
        raise ValueError("expected arrays in the order of C")
    return shape, kind
