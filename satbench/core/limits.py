"""Limits of sizes of everything that is read or requested, checked before it is read or built.

Each limit is far above what satbench writes and what image benchmarks need, and low enough that no
machine runs out of memory or time. docs/reliability.md lists them.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from satbench.core.errors import SatbenchError

KIB, MIB, GIB = 2**10, 2**20, 2**30

MOST_TEXT_BYTES = 64 * MIB
"""Size of a JSON text file, such as a record; the largest shipped one has 0.2 MiB."""

MOST_TOML_BYTES = 256 * KIB
"""Size of a TOML file: a suite, a board, a recipe."""

MOST_DEPTH = 64
"""Depth of nested lists and objects in JSON and TOML."""

MOST_KEY_PARTS = 8
"""Parts of a dotted name in TOML, `a.b.c`: Python reads them in quadratic time."""

MOST_VALUES = 2_000_000
"""Values in a JSON file: records of a million images; they are read in about two seconds."""

LEAST_NUMBER, MOST_NUMBER = -(2**63), 2**64 - 1
"""Size of whole numbers in JSON and TOML: 64 bits, as for seeds."""

MOST_SPEC_LETTERS = 10_000
"""Letters in the text of an attack, an architecture or an activation."""

MOST_SPEC_NUMBER = 2**32 - 1
"""Size of a whole number in such a text: 32 bits, as for the draws of an audit."""

MOST_SPEC_FLOAT = 1e30
"""Size of a decimal number in such a text, and of a setting of a recipe."""

LEAST_LENGTH, MOST_LENGTH = 1e-30, 1e6
"""Least and greatest length in pixels of [0, 1]: float32 cannot move a pixel by less."""

MOST_LAYERS = 2_000
"""Depth in the text of an architecture; He et al., 2016, tried 1,202."""

MOST_WIDTH = 100_000
"""Any other whole number in the text of an architecture."""

MOST_PARAMETERS = 4 * 10**9
"""Parameters of a network: 16 GB of float32, eight times EfficientNet-L2."""

MOST_CLASSES = 1_000_000
"""Classes of a model: fifty times the 21,841 of ImageNet's largest list."""

MOST_HEADER_BYTES = 100_000_000
"""Size of the header of a safetensors file: the longest that its library reads."""

MOST_UNPACKED_BYTES = 64 * GIB
"""Unpacked size of arrays in a file, `.npz`, `.npy` or `.pt`: 100,000 ImageNet images."""

MOST_EXPANSION, FREE_BYTES = 100, 256 * MIB
"""The largest ratio of unpacked to packed size, above `FREE_BYTES`; images do not reach ten.

Deflate reaches 1,030 with zeros.
"""

MOST_PIXELS = 100_000_000
"""Size of one image in a file: five times the largest of ImageNet."""

MOST_WITNESS_BYTES = 16 * GIB
"""Size of all witnesses of a record: 25,000 images of 3 × 224 × 224."""

MOST_PROOF_BYTES = 8 * GIB
"""Of all proofs of a certificate: slopes of 100 images of a ResNet-18, or of 10,000 small ones."""


def check_archive(archive: zipfile.ZipFile, path: Path, most: int = MOST_UNPACKED_BYTES) -> None:
    """Raise SatbenchError if a zip declares an unpacked size that is too large for it.

    Nothing is unpacked here.  Later, no more is unpacked than the zip declares.
    """
    declared = sum(member.file_size for member in archive.infolist())
    size = path.stat().st_size
    if declared > most or declared > max(FREE_BYTES, MOST_EXPANSION * size):
        raise SatbenchError(
            f"expected at most {most / GIB:.3g} GiB of arrays in {path}, and {MOST_EXPANSION} "
            f"times its size, got {size:,} bytes that unpack to {declared:,}; it is not read"
        )


def check_at_least_one(name: str, thing: object, *fields: str) -> None:
    """Raise SatbenchError unless the whole numbers in `fields`, or in all, are 1 or more.

    `name` is its name in the message.
    """
    for field in fields or vars(thing):
        value = getattr(thing, field)
        if isinstance(value, int) and value < 1:
            raise SatbenchError(f"{name}: expected {field} of 1 or more, got {value}")


def check_seed(seed: int) -> int:
    """Return a seed that every generator accepts. Raises SatbenchError for more than 64 bits."""
    if not -(2**63) <= seed < 2**64:
        raise SatbenchError(
            f"expected a seed of at most 64 bits, got one of {seed.bit_length()}: "
            f"write {seed % 2**64}"
        )
    return seed


def check_timeout(seconds: float | None) -> float | None:
    """Return how long a batch may take, None for no limit.  Raises SatbenchError for 0 or less."""
    if seconds is not None and not 0 < seconds < float("inf"):
        raise SatbenchError(f"expected a timeout above 0 seconds, got {seconds:g}")
    return seconds


def whole_number(text: str) -> int | None:
    """Return the number that digits are; None for any other text, and for more than 18 digits.

    >>> whole_number("224"), whole_number("-1"), whole_number("9" * 6000)
    (224, None, None)
    """
    is_one = text.isascii() and text.isdecimal() and len(text) <= 18
    return int(text) if is_one else None
