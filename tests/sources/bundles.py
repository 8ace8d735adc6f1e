"""Write checkpoints in TensorFlow's format without TensorFlow, for tests."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from satbench.core.crc32c import crc32c, masked
from satbench.model_zoo.tensorflow_names import layout_of

KINDS = {"float32": 1, "float64": 2, "int64": 9, "float16": 19}


def to_tensorflow(network: nn.Module, scope: str = "") -> dict[str, NDArray[Any]]:
    """Return a network's weights by TensorFlow's names, in its layout."""
    arrays: dict[str, NDArray[Any]] = {f"{scope}global_step": np.array(3, np.int64)}
    state = network.state_dict()
    for ours, (theirs, _) in layout_of(network).origins.items():
        array = state[ours].numpy()
        if array.ndim == 4:
            each = theirs.endswith("depthwise_kernel")
            array = array.transpose(2, 3, 0, 1) if each else array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            array = array.T
        elif "tpu_batch" in theirs:
            array = array.reshape(1, 1, 1, 1, -1)
        arrays[scope + theirs] = np.ascontiguousarray(array)
    return arrays


def write_bundle(
    prefix: Path,
    arrays: Mapping[str, NDArray[np.generic]],
    header: bytes = b"\x08\x01\x1a\x02\x08\x01",
) -> None:
    """Write `arrays` by name as PREFIX.index and PREFIX.data-00000-of-00001."""
    data, entries = bytearray(), {b"": header}
    for name in sorted(arrays):
        octets = arrays[name].tobytes()
        shape = b"".join(field(2, field(1, int(size))) for size in arrays[name].shape)
        entries[name.encode()] = b"".join(
            (
                field(1, KINDS[str(arrays[name].dtype)]),
                field(2, shape),
                field(4, len(data)),
                field(5, len(octets)),
                b"\x35" + struct.pack("<I", masked(crc32c(octets))),
            )
        )
        data += octets
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(entries))


def table(entries: Mapping[bytes, bytes]) -> bytes:
    """Return a table of LevelDB with one block."""
    body = block(entries)
    meta = block({})
    index = block({max(entries): varint(0) + varint(len(body) - 5)})
    handles = varint(len(body)) + varint(len(meta) - 5)
    handles += varint(len(body) + len(meta)) + varint(len(index) - 5)
    return body + meta + index + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def block(entries: Mapping[bytes, bytes], kind: bytes = b"\0") -> bytes:
    """Return a block without shared key prefixes, followed by its kind and checksum."""
    content, starts = b"", []
    for key, value in entries.items():
        starts.append(len(content))
        content += varint(0) + varint(len(key)) + varint(len(value)) + key + value
    content += struct.pack(f"<{max(len(starts), 1)}I", *(starts or [0]))
    content += struct.pack("<I", max(len(starts), 1)) + kind
    return content + struct.pack("<I", masked(crc32c(content)))


def field(number: int, value: int | bytes) -> bytes:
    """Return a field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    octets = []
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*octets, value])
