"""The certificate: the images of a run that no adversary can break, with proofs.  No torch.

The certificate is JSON; the proofs are next to it, `NAME.proofs.npz`, like the witnesses of a
record.  `satbench verify` computes the bounds of the proofs again.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from satbench.core.digests import digest_arrays, digest_json
from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path, file_stem, open_plain, write_text
from satbench.core.limits import MOST_PROOF_BYTES, check_archive
from satbench.core.schema import Number, check_count, convert, parse_schema, read_text
from satbench.core.stats.intervals import wilson_interval
from satbench.core.threat import Threat
from satbench.records.record import DatasetInfo, Environment, ModelInfo, leave_out_unknown
from satbench.records.witnesses import MOST_HEADER, read_header

CERTIFICATE_SCHEMA = 1

KIND = "certificate"

BOUNDS = 1
"""Raised by every change of the program that can lower a bound: then older proofs may fail.

1: the bounds of the first release with certification.
"""

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown", "bab")
"""The methods of proof, the cheapest first; each also tries those before it.

`ibp` propagates an interval through the network; `crown-ibp` propagates the margins back, with
lines on those intervals; `crown` bounds every neuron so; `alpha-crown` searches for better lines;
`bab` is branch and bound with these.
"""

WRONG_CLEAN, CERTIFIED, OPEN = 0, 1, -1
"""The verdicts: wrong without an attack, certified, neither shown nor refuted."""

MARGIN_STEP = 1e-6
"""Margins are rounded down to a multiple of this."""


@dataclass(frozen=True)
class Certificate:
    """The images of a data set that a model has right against every adversary of a threat model.

    `verdicts` has one per image: `CERTIFIED`, `OPEN` or `WRONG_CLEAN`.  `margins` has, for a
    certified image, the least margin of the label's logit over another's that its proof shows,
    rounded down; for an open image the largest that was shown, at most 0, or None if there was
    none; None for a wrong image.  Images went through the methods up to `method`, each for at most
    `seconds` (None: no limit), and for `out_of_time` of them that was not enough.  `proofs_digest`
    is the SHA-256 of the proofs next to the certificate.
    """

    identity: str
    model: ModelInfo
    dataset: DatasetInfo
    norm: str
    eps: str
    method: str
    seconds: Number | None
    verdicts: list[int]
    margins: list[Number | None]
    out_of_time: int
    proofs_digest: str
    environment: Environment
    bounds: int = BOUNDS
    kind: str = KIND
    schema: int = CERTIFICATE_SCHEMA

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.verdicts)

    @property
    def clean_correct(self) -> int:
        """The number of images that the model gets right without an attack."""
        return self.n - self.verdicts.count(WRONG_CLEAN)

    @property
    def certified(self) -> int:
        """The number of certified images."""
        return self.verdicts.count(CERTIFIED)

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % Wilson interval of the share of certified images."""
        return wilson_interval(self.certified, self.n)

    @property
    def threat(self) -> Threat:
        """The threat model."""
        return Threat.of(self.norm, self.eps)

    def to_json(self) -> str:
        """Return the certificate as JSON text; `parse_certificate` is its inverse."""
        values = asdict(self)
        leave_out_unknown(values["environment"])
        lines = {name: values.pop(name) for name in ("verdicts", "margins")}
        for name in lines:
            values[name] = f"@{name}@"
        text = json.dumps(values, indent=1, allow_nan=False)
        for name, numbers in lines.items():  # one line for each, so that a diff can be read
            told = json.dumps(numbers, separators=(",", ":"), allow_nan=False)
            text = text.replace(f'"@{name}@"', told)
        return text + "\n"


@dataclass(frozen=True)
class Proofs:
    """The proofs of a certificate's images, as arrays.

    `indices` (M,) int64 are places in the data set, ascending, and `methods` (M,) uint8 places in
    `METHODS`.  Slopes are those of (image, class), `slope_of` (P, 2) int64: `slopes` (P, 2,
    neurons) float16.  Trees are those of `tree_of` (Q, 2) int64, one after the other in `nodes` (R,
    2) int32, `points` (R,) float32 and `betas` (S,) float32; `tree_ends` (Q, 2) int64 has the ends
    of the nodes and of the multipliers of each.
    """

    indices: NDArray[np.int64]
    methods: NDArray[np.uint8]
    slope_of: NDArray[np.int64]
    slopes: NDArray[np.float16]
    tree_of: NDArray[np.int64]
    tree_ends: NDArray[np.int64]
    nodes: NDArray[np.int32]
    points: NDArray[np.float32]
    betas: NDArray[np.float32]

    @property
    def digest(self) -> str:
        """SHA-256 of all arrays."""
        return digest_arrays(*vars(self).values())


_FORMS: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "indices": ("<i8", (None,)),
    "methods": ("|u1", (None,)),
    "slope_of": ("<i8", (None, 2)),
    "slopes": ("<f2", (None, 2, None)),
    "tree_of": ("<i8", (None, 2)),
    "tree_ends": ("<i8", (None, 2)),
    "nodes": ("<i4", (None, 2)),
    "points": ("<f4", (None,)),
    "betas": ("<f4", (None,)),
}
"""The type and the shape of each array of a file of proofs; None for any length."""


def certificate_identity(
    model: ModelInfo, dataset: DatasetInfo, threat: Threat, method: str, seconds: float | None
) -> str:
    """Return the identity of a certificate: the SHA-256 of its inputs."""
    inputs = {
        "kind": KIND,
        "bounds": BOUNDS,
        "weights": model.weights_digest,
        "answers": model.answers_digest,
        "architecture": model.architecture,
        "activation": model.activation,
        "dataset": dataset.digest,
        "threat": str(threat),
        "method": method,
        "seconds": seconds,
    }
    return digest_json(inputs)


def certificate_stem(model: str, dataset: str, threat: Threat, identity: str) -> str:
    """Name the file of a certificate."""
    told = str(threat).replace(":", "-").replace("/", "over")
    return file_stem((model, dataset, told, KIND, identity[:8]))


def parse_certificate(text: str, where: str) -> Certificate:
    """Read a certificate from JSON text.  Raises SatbenchError naming `where` and what is wrong."""
    values = parse_schema(text, KIND, where, (CERTIFICATE_SCHEMA,), KIND)
    certificate = convert(values, Certificate, KIND, where)
    if fault := next(_faults(certificate), ""):
        raise SatbenchError(f"the certificate {where} is wrong: {fault}")
    return certificate


def _faults(told: Certificate) -> Iterator[str]:
    """Yield what is wrong with a certificate besides the types of its fields."""
    try:
        threat = told.threat
    except SatbenchError as error:
        yield f"the threat model is not one: {error}"
        return
    if told.method not in METHODS:
        yield f"method: expected one of {', '.join(METHODS)}"
        return
    if not 1 <= told.bounds <= BOUNDS:
        yield f"bounds: expected 1 to {BOUNDS}"
    if not told.n == len(told.margins) == told.dataset.n or told.n < 1:
        yield f"expected a verdict and a margin for each of {told.dataset.n} images, 1 or more"
    if not set(told.verdicts) <= {WRONG_CLEAN, CERTIFIED, OPEN}:
        yield "verdicts: expected 1, 0 and -1"
    if not 0 <= told.out_of_time <= told.n:
        yield "out_of_time: expected a number of images"
    if told.seconds is not None and not told.seconds > 0:
        yield "seconds: expected a time above 0"
    for index, (verdict, margin) in enumerate(zip(told.verdicts, told.margins, strict=False)):
        fits = {
            CERTIFIED: margin is not None and margin >= 0,
            OPEN: margin is None or margin <= 0,
            WRONG_CLEAN: margin is None,
        }
        if not fits.get(verdict):
            yield f"margins[{index}]: {margin} does not go with the verdict {verdict}"
            break
    expected = certificate_identity(told.model, told.dataset, threat, told.method, told.seconds)
    if told.bounds == BOUNDS and told.identity != expected:
        yield "the identity is not that of the inputs: one of them was changed"


def is_certificate(text: str) -> bool:
    """Return whether JSON text is that of a certificate; false if it is no JSON, or too large."""
    try:
        check_count(text, KIND, "")
        values = json.loads(text)
    except (SatbenchError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("kind") == KIND


def read_certificate(path: Path) -> Certificate:
    """Read a certificate from a file.  Raises SatbenchError for a missing or malformed one."""
    return parse_certificate(read_text(path, KIND), str(path))


def read_certificates(folder: Path, left_out: list[str] | None = None) -> list[Certificate]:
    """Read the certificates of a folder, ordered by file name; none if there is no folder.

    Raises SatbenchError for a bad one; with a list `left_out`, it is left out instead, and the list
    gets a sentence.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(read_certificate(path))
        except SatbenchError as error:
            if left_out is None:
                raise
            left_out.append(str(error))
    return found


def write_certificate(certificate: Certificate, path: Path) -> None:
    """Write a certificate atomically."""
    write_text(path, certificate.to_json())


def proofs_path(path: Path) -> Path:
    """Return the path of the proofs of a certificate: next to it, `NAME.proofs.npz`."""
    return path.with_name(path.name.removesuffix(".json") + ".proofs.npz")


def write_proofs(proofs: Proofs, path: Path) -> None:
    """Write proofs atomically; `read_proofs` is the inverse."""
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive,
    ):
        for name, array in vars(proofs).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def read_proofs(path: Path, most: int) -> Proofs:
    """Read the proofs of at most `most` images.

    Raises SatbenchError for a missing or corrupt file, and, before anything is unpacked, for one
    that declares more than `MOST_PROOF_BYTES`.
    """
    try:
        with open_plain(path) as file, zipfile.ZipFile(file) as archive:
            check_archive(archive, path, MOST_PROOF_BYTES)
            for name, (kind, form) in _FORMS.items():
                _check_declared(archive, name, kind, form)
            arrays: dict[str, Any] = {}
            for name in _FORMS:
                with archive.open(f"{name}.npy") as member:
                    arrays[name] = npy.read_array(
                        member, allow_pickle=False, max_header_size=MOST_HEADER
                    )
        proofs = Proofs(**arrays)
        _check_lengths(proofs, most)
        return proofs
    except FileNotFoundError:
        raise SatbenchError(f"expected proofs at {path}, which are missing") from None
    except Exception as error:  # a zip file with a flipped byte can raise any error
        raise SatbenchError(f"the proofs {path} are corrupt ({str(error)[:200]})") from None


def _check_declared(
    archive: zipfile.ZipFile, name: str, kind: str, form: tuple[int | None, ...]
) -> None:
    with archive.open(f"{name}.npy") as member:
        shape, found = read_header(member)
        declared = archive.getinfo(f"{name}.npy").file_size - member.tell()
    fits = len(shape) == len(form) and all(
        wanted in (None, side) for wanted, side in zip(form, shape, strict=True)
    )
    if found != np.dtype(kind) or not fits:
        raise ValueError(f"{name} is of the wrong type or shape")
    if declared != int(np.prod(shape, dtype=object)) * found.itemsize:
        raise ValueError(f"{name} of shape {shape} does not have {declared:,} bytes")


def _check_lengths(proofs: Proofs, most: int) -> None:
    images = proofs.indices
    if len(images) > most or len(proofs.methods) != len(images):
        raise ValueError(f"expected the proofs of at most {most} images, and a method for each")
    if len(images) and (images.min() < 0 or images.max() >= most or (np.diff(images) <= 0).any()):
        raise ValueError("expected the places of images, ascending")
    if len(proofs.slope_of) != len(proofs.slopes) or len(proofs.tree_of) != len(proofs.tree_ends):
        raise ValueError("there are slopes or trees of no image")
    if len(proofs.points) != len(proofs.nodes):
        raise ValueError("there are not as many points as nodes")
    ends = np.vstack([np.zeros((1, 2), np.int64), proofs.tree_ends])
    last = (len(proofs.nodes), len(proofs.betas))
    # Ends within the arrays have differences that do not overflow.
    is_within = (ends >= 0).all() and (ends <= last).all()
    if not is_within or (np.diff(ends, axis=0) < 0).any() or tuple(ends[-1].tolist()) != last:
        raise ValueError("the trees do not end where their nodes do")
    for name in ("slope_of", "tree_of"):
        rows = getattr(proofs, name)
        if len(np.unique(rows, axis=0)) != len(rows) or not np.isin(rows[:, 0], images).all():
            raise ValueError(f"{name} names an image twice, or one without a proof")
