"""A reader for torch.save files and plain pickles that runs no code of the file.

It reads both formats of torch from their bytes, and the objects through `plain_pickle`.  So a file
cannot make torch call anything.  `torch.load(weights_only=True)` is not enough: it rejects the
arrays, dates and paths that training scripts save, and pickles of protocol 3 and later.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from satbench.core.limits import check_archive
from satbench.model_zoo.plain_pickle import AllowedName, Inert, RefusedError, Unpickler

_MAGIC = 0x1950A86A20F9469CFC6C  # the start of the older of torch's two formats
_VERSION = 1001
_EXPANDED = 2**20  # elements that an expanded tensor may have, such as a single zero expanded


def read_torch_file(path: Path) -> object:
    """Read a file of torch.save or pickle.dump.

    Raises RefusedError if the file asks for anything but data.  A broken file may raise any error.
    """
    try:
        return _read(path, "utf-8")
    except UnicodeDecodeError:  # Python 2 wrote bytes as text
        return _read(path, "latin1")


def _read(path: Path, encoding: str) -> object:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path)
            return _read_archive(archive, encoding)
    with path.open("rb") as file:
        return _read_stream(file, encoding)


# Tensors


@dataclass(frozen=True)
class _Storage:
    """The memory of tensors: a flat array of elements."""

    elements: Tensor


def _tensor(storage: object, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without its memory")
    shape, elements = tuple(size), storage.elements.numel()
    if not 0 <= prod(shape) <= max(elements, _EXPANDED):
        raise pickle.UnpicklingError(f"a tensor of {shape} in a memory of {elements} numbers")
    return storage.elements.as_strided(shape, tuple(stride), offset)


def _tensor_of_dtype(
    storage: object, offset: int, size: Any, stride: Any, _grad: object, _hooks: object, dtype: Any
) -> Tensor:
    if not isinstance(storage, _Storage) or not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a tensor without its memory")
    return _tensor(_Storage(storage.elements.view(dtype)), offset, size, stride)


def _parameter(data: object, *_: object) -> object:
    return data


def _of_subclass(make: object, _kind: object, arguments: Any, _state: object) -> object:
    """Return the plain tensor inside a subclass of Tensor; the subclass itself would be code."""
    if not isinstance(make, AllowedName):
        raise RefusedError("torch._tensor._rebuild_from_type_v2")
    return make.make(*arguments)


def _of_array(array: object, *_: object) -> object:
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array


def _version(text: object = "", *_: object) -> str:
    return str(text)


def _storage_of_bytes(data: bytes) -> object:
    return _read_stream(io.BytesIO(data), "utf-8")


_DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Byte": torch.uint8,
    "Char": torch.int8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
}

_MAKERS: dict[str, Callable[..., object]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_sparse_tensor": Inert,  # no weight is sparse
    "torch._utils._rebuild_device_tensor_from_numpy": _of_array,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
    "torch.storage._load_from_bytes": _storage_of_bytes,
    "torch.serialization._get_layout": Inert,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": torch.Size,
    "torch.device": Inert,
    "torch.torch_version.TorchVersion": _version,
}


class _TorchUnpickler(Unpickler):
    """An unpickler that knows tensors; `memory` returns the storage of a persistent id of torch."""

    table = _MAKERS

    def __init__(
        self,
        file: IO[bytes],
        encoding: str,
        memory: Callable[[tuple[object, ...]], object] | None = None,
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._memory = memory

    def look_up(self, name: str) -> object:
        package, _, rest = name.partition(".")
        if package == "torch" and isinstance(found := getattr(torch, rest, None), torch.dtype):
            return found
        if package == "torch" and rest.endswith("Storage"):
            dtype = _DTYPES.get(rest.rpartition(".")[2].removesuffix("Storage"))
            if dtype is not None:
                return dtype
        return super().look_up(name)

    def persistent_load(self, pid: object) -> object:
        if self._memory and isinstance(pid, tuple) and len(pid) > 3:
            if _text(pid[0]) == "storage":
                return self._memory(pid[1:])
            if _text(pid[0]) == "module":  # a class, with its source as text
                return cast(object, pid[1])
        return super().persistent_load(pid)


def _text(value: object) -> object:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


# The format since torch 1.6: a zip archive of a pickle and one file for each storage


def _read_archive(archive: zipfile.ZipFile, encoding: str) -> object:
    names = archive.namelist()
    place = next(name for name in names if name == "data.pkl" or name.endswith("/data.pkl"))
    folder = place.removesuffix("data.pkl")
    order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
    swapped = order.decode("ascii", "replace") != sys.byteorder
    storages: dict[object, _Storage] = {}

    def memory(pid: tuple[object, ...]) -> _Storage:
        dtype, key, *_ = pid
        if key not in storages:
            data = archive.read(f"{folder}data/{_text(key)}")
            storages[key] = _Storage(_elements(data, dtype, swapped))
        return storages[key]

    return cast(object, _TorchUnpickler(io.BytesIO(archive.read(place)), encoding, memory).load())


def _elements(data: bytes, dtype: object, swapped: bool = False) -> Tensor:
    if not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError(f"memory of {dtype!r:.40}, which is not a kind of number")
    if not data:
        return torch.empty(0, dtype=dtype)
    flat = np.frombuffer(bytearray(data), np.uint8)
    if swapped:
        size = torch.empty(0, dtype=dtype).element_size() // (2 if dtype.is_complex else 1)
        flat = np.ascontiguousarray(flat.reshape(-1, size)[:, ::-1]).reshape(-1)
    return torch.from_numpy(flat).view(dtype)


# The format before torch 1.6: several pickles, then the memory of all storages


def _read_stream(file: IO[bytes], encoding: str) -> object:
    first = _TorchUnpickler(file, encoding).load()
    if first != _MAGIC:
        return cast(object, first)  # a pickle, not a file of torch
    if _TorchUnpickler(file, encoding).load() != _VERSION:
        raise pickle.UnpicklingError("an unknown version of torch's format")
    _TorchUnpickler(file, encoding).load()  # facts about the machine that wrote it
    pending: dict[object, _Storage] = {}

    def memory(pid: tuple[object, ...]) -> _Storage:
        dtype, key, _, count, *view = pid
        if key not in pending:
            if not isinstance(dtype, torch.dtype):
                raise pickle.UnpicklingError(f"memory of {dtype!r:.40}, which is not a number")
            pending[key] = _Storage(torch.empty(cast(int, count), dtype=dtype))
        return _part(pending[key], view[0] if view else None)

    result = _TorchUnpickler(file, encoding, memory).load()
    filled = list(cast(Any, _TorchUnpickler(file, encoding).load()))
    if set(filled) != pending.keys():
        raise pickle.UnpicklingError("a storage is missing from the file or unused")
    for key in filled:
        _fill(pending[key].elements, file)
    return cast(object, result)


def _part(storage: _Storage, view: object) -> _Storage:
    if view is None:
        return storage
    _, offset, size = cast(tuple[object, int, int], view)
    return _Storage(storage.elements[offset : offset + size])


def _fill(elements: Tensor, file: IO[bytes]) -> None:
    (count,) = struct.unpack("<q", file.read(8))
    if count != len(elements):
        raise pickle.UnpicklingError(f"memory of {count} numbers instead of {len(elements)}")
    room = elements.view(torch.uint8).numpy()
    if cast(Any, file).readinto(cast(Any, room)) != len(room):
        raise pickle.UnpicklingError("the memory is truncated")
