"""A reader for TensorFlow checkpoints that needs no TensorFlow.

A checkpoint is the files PREFIX.index and PREFIX.data-00000-of-00001.  The index is a LevelDB table
whose values are protocol buffers.  They give each tensor's type, shape and place in the data files,
which hold only the numbers.  Both have checksums, which are verified. Sources: LevelDB,
doc/table_format.md; TensorFlow, core/util/tensor_bundle/tensor_bundle.h and
core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from satbench.core.crc32c import crc32c, masked
from satbench.core.errors import SatbenchError

_MAGIC = 0xDB4775248B80FB57
_FOOTER, _TRAILER = 48, 5
_FLOATS = {1: "<f4", 2: "<f8", 19: "<f2"}
_BFLOAT16 = 14
_OTHERS = {3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 17: "<u2"}

Message = dict[int, list[int | bytes]]
"""The fields of a protocol buffer, by number: integers (varints and fixed words) or bytes."""


@dataclass(frozen=True)
class BundleEntry:
    """An entry of the index: a tensor's TensorFlow type `kind`, its shape and its place."""

    shape: tuple[int, ...]
    kind: int
    shard: int
    offset: int
    size: int
    checksum: int
    in_slices: bool


@dataclass(frozen=True)
class TensorBundle:
    """A checkpoint: the place of its files, and its tensors by name."""

    prefix: Path
    shards: int
    entries: dict[str, BundleEntry]

    def read(self, name: str) -> NDArray[np.float32]:
        """Return a floating-point tensor as float32.

        Raises SatbenchError for another type, a data file that is missing or short, and a wrong
        checksum.
        """
        entry = self.entries[name]
        if entry.in_slices:
            raise SatbenchError(
                f"{self.prefix}: {name} is stored in slices, which satbench does not read"
            )
        data = self._bytes(name, entry)
        if entry.kind == _BFLOAT16:
            wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
            return wide.view(np.float32).reshape(entry.shape)
        if entry.kind not in _FLOATS:
            raise SatbenchError(f"{self.prefix}: {name} holds no floating-point numbers")
        return np.frombuffer(data, _FLOATS[entry.kind]).astype(np.float32).reshape(entry.shape)

    def data_files(self) -> list[Path]:
        """Return the paths of the data files."""
        return [_data_file(self.prefix, shard, self.shards) for shard in range(self.shards)]

    def _bytes(self, name: str, entry: BundleEntry) -> bytes:
        path = _data_file(self.prefix, entry.shard, self.shards)
        if not path.is_file():
            raise SatbenchError(
                f"expected the numbers of the checkpoint in {path}, which is missing"
            )
        with path.open("rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
        if len(data) != entry.size or masked(crc32c(data)) != entry.checksum:
            raise _corrupt(path, f"the checksum of {name} differs")
        return data


def open_bundle(place: Path, drop: tuple[str, ...] = ()) -> TensorBundle:
    """Read the index of a checkpoint; `place` is its prefix, or any one of its files.

    Tensors whose names begin with a text in `drop` are left out.  Raises SatbenchError for a
    checkpoint that is missing, corrupt or of another format.
    """
    prefix = place.with_name(re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", place.name))
    path = prefix.with_name(f"{prefix.name}.index")
    if not path.is_file():
        more = ": it is in the older format V1, one file" if prefix.is_file() else ""
        raise SatbenchError(
            f"expected a TensorFlow checkpoint, {prefix.name}.index and "
            f"{prefix.name}.data-00000-of-00001, in {prefix.parent}{more}"
        )
    try:
        values = dict(_table(path.read_bytes()))
        header = _message(values.pop(b""))
        if _number(header, 2):
            raise SatbenchError(f"{path} was written on a machine with another byte order")
        named = {name.decode(): _entry(_message(value)) for name, value in values.items()}
        entries = {name: entry for name, entry in named.items() if not name.startswith(drop)}
        return TensorBundle(prefix, _number(header, 1), entries)
    except (ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise _corrupt(path, str(error) or type(error).__name__) from None


def _data_file(prefix: Path, shard: int, shards: int) -> Path:
    return prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")


def _corrupt(path: Path, reason: str) -> SatbenchError:
    return SatbenchError(f"the checkpoint {path} is corrupt ({reason}); fetch it again")


def _entry(message: Message) -> BundleEntry:
    shape = tuple(_number(_message(dim), 1) for dim in _message(_text(message, 2)).get(2, []))
    entry = BundleEntry(
        shape=shape,
        kind=_number(message, 1),
        shard=_number(message, 3),
        offset=_number(message, 4),
        size=_number(message, 5),
        checksum=_number(message, 6),
        in_slices=7 in message,
    )
    known = _FLOATS | _OTHERS | {_BFLOAT16: "<u2"}
    if entry.kind in known and not entry.in_slices:
        wanted = math.prod(shape) * np.dtype(known[entry.kind]).itemsize
        if entry.size != wanted or entry.offset < 0:
            raise ValueError(f"{entry.size} bytes for a tensor of the shape {shape}")
    return entry


# LevelDB's table


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table, in order."""
    footer = data[-_FOOTER:]
    if len(footer) < _FOOTER or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("the end of the table is missing")
    at = 0
    for _ in range(2):  # skip the metaindex, which is not needed
        _, at = _varint(footer, at)
    begin, at = _varint(footer, at)
    size, _ = _varint(footer, at)
    for _, handle in _block(data, begin, size):
        begin, after = _varint(handle, 0)
        yield from _block(data, begin, _varint(handle, after)[0])


def _block(data: bytes, begin: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    whole = data[begin : begin + size + _TRAILER]
    if len(whole) != size + _TRAILER:
        raise ValueError("a block lies beyond the end of the file")
    checksum = struct.unpack("<I", whole[-4:])[0]
    if masked(crc32c(whole[:-4])) != checksum:
        raise ValueError("the checksum of a block differs")
    if whole[size]:
        raise ValueError("its blocks are compressed, which TensorFlow does not do")
    entries = size - 4 * (1 + struct.unpack("<I", whole[size - 4 : size])[0])
    key, at = b"", 0
    while at < entries:
        shared, at = _varint(whole, at)
        fresh, at = _varint(whole, at)
        length, at = _varint(whole, at)
        key = key[:shared] + whole[at : at + fresh]
        at += fresh + length
        yield key, whole[at - length : at]


# Protocol buffers


def _message(data: int | bytes) -> Message:
    if isinstance(data, int):
        raise TypeError("expected a message, got a number")
    fields: Message = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value: int | bytes
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
            case 1:
                value, at = struct.unpack_from("<Q", data, at)[0], at + 8
            case 2:
                length, at = _varint(data, at)
                value, at = data[at : at + length], at + length
            case 5:
                value, at = struct.unpack_from("<I", data, at)[0], at + 4
            case kind:
                raise ValueError(f"a field of the unknown kind {kind}")
        if at > len(data):
            raise ValueError("a message ends within a field")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the integer that starts at `at`, and the position after it."""
    value = shift = 0
    while True:
        octet = data[at]
        value |= (octet & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if octet < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("an integer does not end")


def _number(message: Message, field: int) -> int:
    value = message.get(field, [0])[-1]
    if isinstance(value, bytes):
        raise TypeError("expected a number, got a message")
    return value


def _text(message: Message, field: int) -> bytes:
    value = message.get(field, [b""])[-1]
    if isinstance(value, int):
        raise TypeError("expected a message, got a number")
    return value
