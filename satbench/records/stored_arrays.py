"""Read arrays that `numpy.savez` wrote, from a file that may come from anybody."""

from __future__ import annotations

import zipfile
from math import prod
from pathlib import Path
from typing import Any

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
        shape, _, kind = read(file, max_header_size=MOST_HEADER)
        size = file.tell() + prod(shape) * kind.itemsize
    if member.compress_type != zipfile.ZIP_STORED or size != member.file_size:
        raise ValueError(f"{member.filename} is not an array as it was written")
    with archive.open(member) as file:
        found: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return found
