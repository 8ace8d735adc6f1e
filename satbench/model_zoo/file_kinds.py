"""Names for files that satbench cannot read weights from, by their first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from satbench.core.files import open_plain

_ARCHIVE = "a compressed archive: unpack it, and give the file of weights in it"
_TENSORFLOW = "a TensorFlow checkpoint: convert it first"
_MAGIC = {
    b"\x89HDF": "an HDF5 file, as Keras writes it: save its weights as tensors by name",
    b"\x93NUMPY": "one array of NumPy (.npy): save the weights as tensors by name",
    b"\x1f\x8b": _ARCHIVE,
    b"BZh": _ARCHIVE,
    b"\xfd7zXZ": _ARCHIVE,
    b"7z\xbc\xaf": _ARCHIVE,
    b"Rar!": _ARCHIVE,
}
_SUFFIXES = {
    ".onnx": "an ONNX graph: load it with a package that makes a torch.nn.Module of it",
    ".index": _TENSORFLOW,
    ".meta": _TENSORFLOW,
    ".pb": "a TensorFlow graph: convert it first",
    ".msgpack": "a Flax checkpoint: save its weights as tensors by name",
}


def is_safetensors(path: Path) -> bool:
    """Return whether a file is a safetensors file, by its contents or its name."""
    with open_plain(path) as file:
        start = file.read(9)
    size = path.stat().st_size
    header = int.from_bytes(start[:8], "little")
    return path.suffix == ".safetensors" or (start[8:] == b"{" and header <= size - 8)


def another_kind(path: Path, start: bytes) -> str:
    """Return what an unreadable file is; "" if it may hold readable weights."""
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it, and give the file of weights in it"
    if path.suffix in _SUFFIXES:
        return _SUFFIXES[path.suffix]
    return _kind_of_zip(path) if start.startswith(b"PK") else ""


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zipfile may raise anything on a broken archive; its reader reports it
        return ""
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends:
        return (
            "a TorchScript archive, which holds a program as well as weights: load it in Python "
            "with torch.jit.load and pass the module to satbench.evaluate, or save its state_dict()"
        )
    if "data.pkl" in ends:
        return ""
    if {"serialized_exported_program.json", "archive_format"} & ends:
        return (
            "a program of torch.export: load it in Python with torch.export.load and pass its "
            "module() to satbench.evaluate, or save its state_dict"
        )
    if names and all(name.endswith(".npy") for name in names):
        return "arrays of NumPy (.npz): save them as tensors by name, with torch.save"
    return "a zip archive: unpack it, and give the file of weights in it"
