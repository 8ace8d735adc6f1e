"""Read arrays that `numpy.savez` wrote, from a file that may come from anybody."""

from __future__ import annotations

import zipfile
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from satbench.records.witnesses import MOST_HEADER


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read arrays that `numpy.savez` wrote.

    None that is compressed, or does not have the bytes that its header declares, is read: raises
    ValueError for it, or another error of a corrupt zip.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = archive.filelist
        return {one.filename.removesuffix(".npy"): _array(archive, one) for one in members}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, kind = read(file, max_header_size=MOST_HEADER)
        size = file.tell() + prod(shape) * kind.itemsize
        is_stored = member.compress_type == zipfile.ZIP_STORED
        if not is_stored or kind.hasobject or size != member.file_size:
            raise ValueError(f"{member.filename} is not an array as it was written")
        values = _values(file, kind)
    return values.reshape(shape, order="F" if by_columns else "C")


def _values(file: IO[bytes], kind: np.dtype[Any]) -> NDArray[Any]:
    # npy.read_array would parse the header again, which takes most of the time.
    return np.frombuffer(bytearray(file.read()), kind)
