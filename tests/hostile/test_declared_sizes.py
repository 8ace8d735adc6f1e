"""Files that declare more than the limits are refused before they are unpacked."""

from __future__ import annotations

import io
import resource
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib import format as npy

from satbench.core import limits, schema
from satbench.core.errors import SatbenchError
from satbench.core.limits import MIB, MOST_PIXELS, check_archive
from satbench.core.threat import Threat
from satbench.data import load_arrays
from satbench.data.image_files.picture import check_size
from satbench.model_zoo.torch_file import read_torch_file
from satbench.preflight.image_checks import dataset_from_tensors
from satbench.proofs.submission import read_submission
from satbench.records.witnesses import Witnesses, read_witnesses, write_witnesses

DATA = dataset_from_tensors(torch.zeros(2, 1, 3, 3), torch.arange(2))
WITNESSES = Witnesses(np.array([1, 4]), np.ones((2, 1, 3, 3), np.float32))


def _bomb(path: Path, names: tuple[str, str], first: np.ndarray, shape: tuple[int, ...]) -> None:
    """Write a zip of a small array and uint8 zeros, 1,000 times larger when it is unpacked."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(f"{names[0]}.npy", "w") as member:
            npy.write_array(member, first)
        with archive.open(f"{names[1]}.npy", "w", force_zip64=True) as member:
            head = {"descr": "|u1", "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(member, head)
            left, zeros = int(np.prod(shape)), bytes(4 * MIB)
            while left > 0:
                member.write(zeros[:left])
                left -= len(zeros)


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_witness_file_that_unpacks_to_a_huge_size_is_refused_before_unpacking(
    tmp_path: Path,
) -> None:
    _bomb(tmp_path / "w.npz", ("indices", "planes"), np.arange(90), (4, 90, 1, 1024, 1024))
    before = _memory()

    with pytest.raises(SatbenchError, match=r"unpack to 37\d,\d{3},\d{3}"):
        read_witnesses(tmp_path / "w.npz")

    assert _memory() - before < 64 * MIB


def test_data_that_unpack_to_a_huge_size_are_refused_before_unpacking(tmp_path: Path) -> None:
    _bomb(tmp_path / "d.npz", ("y", "x"), np.zeros(90, int), (90, 4, 1024, 1024))
    before = _memory()

    with pytest.raises(SatbenchError, match="unpack to"):
        load_arrays(str(tmp_path / "d.npz"))

    assert _memory() - before < 64 * MIB


@pytest.mark.parametrize(
    ("indices", "shape"),
    [
        (np.arange(3), (4, 2, 1, 3, 3)),
        (np.arange(2), (3, 2, 1, 3, 3)),
        (np.arange(2), (4, 2)),
        (np.arange(2.0), (4, 2, 1, 3, 3)),
        (np.zeros((2, 1), int), (4, 2, 1, 3, 3)),
    ],
)
def test_witnesses_with_inconsistent_headers_are_refused(
    indices: np.ndarray, shape: tuple[int, ...], tmp_path: Path
) -> None:
    _bomb(tmp_path / "w.npz", ("indices", "planes"), indices, shape)

    with pytest.raises(SatbenchError, match="corrupt"):
        read_witnesses(tmp_path / "w.npz")


def test_more_witnesses_than_images_are_refused(tmp_path: Path) -> None:
    write_witnesses(WITNESSES, tmp_path / "w.npz")

    assert WITNESSES.digest == read_witnesses(tmp_path / "w.npz", most=2).digest
    with pytest.raises(SatbenchError, match="at most 1 images"):
        read_witnesses(tmp_path / "w.npz", most=1)


def test_a_zip_that_declares_exactly_the_limit_is_accepted(tmp_path: Path) -> None:
    write_witnesses(WITNESSES, path := tmp_path / "w.npz")
    with zipfile.ZipFile(path) as archive:
        declared = sum(one.file_size for one in archive.infolist())
        check_archive(archive, path, declared)
        with pytest.raises(SatbenchError):
            check_archive(archive, path, declared - 1)


def test_an_image_whose_header_declares_too_many_pixels_is_refused() -> None:
    from PIL import Image

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    sides = (10_001, MOST_PIXELS // 10_000)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *sides, 8, 0, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.warns(Image.DecompressionBombWarning):
        picture = Image.open(io.BytesIO(png))
    with pytest.raises(SatbenchError, match="pixels"):
        check_size(picture)


def test_a_tensor_that_expands_one_number_is_refused(tmp_path: Path) -> None:
    one = torch.zeros(1)
    torch.save({"x": one.expand(10**6, 1, 100, 100), "y": one.long()}, tmp_path / "d.pt")

    with pytest.raises(SatbenchError, match="as a whole"):
        load_arrays(str(tmp_path / "d.pt"))
    with pytest.raises(Exception, match="in a memory of 1 numbers"):
        read_torch_file(tmp_path / "d.pt")


def test_a_text_file_that_is_too_large_or_endless_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text(" " * 101)
    for path, said in ((tmp_path / "a.json", "101 bytes"), (Path("/dev/zero"), "not a plain file")):
        with pytest.raises(SatbenchError, match=said):
            schema.read_text(path, "thing", 100)


def test_the_limits_allow_10000_imagenet_witnesses() -> None:
    images = 10_000 * 3 * 224 * 224 * 4
    assert images < limits.MOST_WITNESS_BYTES < limits.MOST_UNPACKED_BYTES


def _npy(path: Path, shape: str) -> Path:
    """Write the header of an array of floats without the array."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117)
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00" + head.encode() + b"\n")
    return path


@pytest.mark.parametrize(
    "shape",
    [
        *("(-2, 1, 3, 3)", "(1000000000000000, 1, 3, 3)", "(6000000, 1, 28, 28)", "()", "(2.5,)"),
        "__import__('os').abort()",
    ],
)
def test_an_array_with_a_false_header_is_refused(shape: str, tmp_path: Path) -> None:
    path = _npy(tmp_path / "x.npy", shape)
    np.save(tmp_path / "y.npy", np.zeros(2, int))

    with pytest.raises(SatbenchError):
        load_arrays(f"{path},{tmp_path / 'y.npy'}")
    with pytest.raises(SatbenchError):
        read_submission(path, DATA, 2, Threat.parse("linf:0.1"))


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 1, 3, 3).to_sparse(),
        torch.zeros(2, 1, 3, 3, device="meta"),
        torch._neg_view(torch.zeros(2, 1, 3, 3)),
        torch.zeros(1).expand(10**7, 1, 3, 3),
        [[torch.zeros(2, 1, 3, 3)]],
        {},
        None,
    ],
    ids=str,
)
def test_images_that_are_not_a_plain_tensor_are_refused(images: object, tmp_path: Path) -> None:
    torch.save(images, tmp_path / "x.pt")

    with pytest.raises(SatbenchError, match=r"x\.pt"):
        read_submission(tmp_path / "x.pt", DATA, 2, Threat.parse("linf:0.1"))
