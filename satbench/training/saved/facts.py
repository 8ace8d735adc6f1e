"""The facts of a run that its bits depend on, besides its config: data, device, processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import satbench
from satbench.core.digests import digest_file, digest_json
from satbench.core.errors import SatbenchError
from satbench.core.files import sweep, write_text
from satbench.core.noise import generator_for
from satbench.core.schema import convert, parse_object, read_text
from satbench.data import ImageTree
from satbench.recipes import TrainConfig
from satbench.training.images.training_set import TrainingSet
from satbench.training.own import NOTHING, Own
from satbench.training.ranks import Ranks
from satbench.training.saved.checkpoint import BEFORE, STATE, has_checkpoint

CONFIG = "config.json"
_KEY = "run"
_FILES_READ = 64


@dataclass(frozen=True)
class Facts:
    """The data and the machine of a run.

    `data` is the digest of the whole training set, even if only a part of it is used; `device` is
    the kind of processor or the GPU's name.  For a folder of images, `data` covers only names and
    sizes, and `files` is the digest of the contents of some files.  `own` describes the user's own
    parts, and `weights` is the digest of the given initial weights.
    """

    data: str
    threads: int
    processes: int
    device: str
    torch: str
    satbench: str
    files: str = ""
    own: str = ""
    weights: str = ""


def facts_of(opened: TrainingSet, device: torch.device, ranks: Ranks, own: Own = NOTHING) -> Facts:
    """Return the facts of a run that starts or continues now."""
    return Facts(
        data=opened.digest,
        threads=torch.get_num_threads(),
        processes=ranks.world,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        torch=str(torch.__version__),
        satbench=satbench.__version__,
        files=_some_files(opened.data) if isinstance(opened.data, ImageTree) else "",
        own=own.described(),
        weights=own.weights(),
    )


def open_run(folder: Path, config: TrainConfig, now: Facts, leftovers: tuple[str, ...]) -> Facts:
    """Claim `folder` for a run; return the facts from the start of the run.

    Removes half-written files.  Raises SatbenchError if the folder has a run with another config or
    other data.
    """
    path = folder / CONFIG
    for name in (CONFIG, STATE, BEFORE, *leftovers):
        sweep(folder / name)
    began = now
    if path.exists():
        found = _read(path)
        _check_config(folder, found, config)
        if has_checkpoint(folder):
            began = _facts(found, now, str(path))
            _check_data(folder, began, now)
            _check_own(folder, began, now)
    write_text(path, json.dumps({**config.to_dict(), _KEY: asdict(began)}, indent=2) + "\n")
    return began


def difference(began: Facts, now: Facts) -> str:
    """Return a sentence on changes that make the bits of a resumed run differ, else nothing."""
    changed = [
        f"{name} {new} for {old}"
        for name, (old, new) in _pairs(began, now)
        if name not in ("data", "files", "own", "weights") and old != new
    ]
    if not changed:
        return ""
    return (
        f"goes on with {', '.join(changed)}: the weights may differ in their last bits from those "
        "of a run in one go"
    )


def other_start(began: Facts, now: Facts) -> str:
    """Return a sentence if the given initial weights are not those of the run, else nothing."""
    if began.weights == now.weights:
        return ""
    return (
        "continues from its checkpoint, which started from other weights than the given ones; to "
        "start a run from these, give another name="
    )


def _pairs(began: Facts, now: Facts) -> Iterator[tuple[str, tuple[str | int, str | int]]]:
    new = asdict(now)
    for name, old in asdict(began).items():
        yield name, (old, new[name])


def _read(path: Path) -> dict[str, object]:
    try:
        return parse_object(read_text(path, "config"), "config", str(path))
    except SatbenchError as error:
        raise SatbenchError(
            f"{error}: the config is corrupt; choose another --out or remove that folder"
        ) from None


def _check_config(folder: Path, found: dict[str, object], config: TrainConfig) -> None:
    wanted = config.to_dict()
    keys = (found.keys() | wanted.keys()) - {_KEY}
    names = [key for key in sorted(keys) if found.get(key) != wanted.get(key)]
    if names:
        raise SatbenchError(
            f"{folder} holds a run with another {', '.join(names)}; choose another --name or "
            "--out, or remove that folder"
        )


def _facts(found: dict[str, object], now: Facts, where: str) -> Facts:
    """Return the facts in a config; a config of an older satbench has none, so use those of now."""
    kept = found.get(_KEY)
    if not isinstance(kept, dict):
        return now
    return convert({**asdict(now), **kept}, Facts, "config", f"{where}, {_KEY}")


def _check_data(folder: Path, began: Facts, now: Facts) -> None:
    if (began.data, began.files) == (now.data, now.files):
        return
    what = f"SHA-256 {began.data[:12]}…, now {now.data[:12]}…"
    if began.data == now.data:
        what = "the same names and sizes, other bytes"
    raise SatbenchError(
        f"{folder} holds a run that began on other training data ({what}); give it the same data, "
        "choose another --name or --out, or remove that folder"
    )


def _check_own(folder: Path, began: Facts, now: Facts) -> None:
    if began.own != now.own:
        raise SatbenchError(
            f"{folder} holds a run with {began.own or 'all parts of the recipe'}, now "
            f"{now.own or 'all parts of the recipe'}; choose another name= or out=, or remove "
            "that folder"
        )


def _some_files(tree: ImageTree) -> str:
    """Return the digest of the contents of some files, spread over the classes."""
    order = generator_for("files read", tree.digest).permutation(len(tree.files))
    names = sorted(tree.files[row] for row in order[:_FILES_READ])
    return digest_json([(name, digest_file(tree.folder / name)) for name in names])
