"""Entries of RobustBench's model zoo, built and loaded by RobustBench's own code."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

from satbench.core.downloads import cache_folder
from satbench.core.errors import SatbenchError, UnknownNameError
from satbench.models._hub import one_line, torch_hub_file
from satbench.models._loaded import LoadedModel, describe_module, need, strangers_code
from satbench.models._robustbench_shim import check_version

if TYPE_CHECKING:
    from torch import Tensor, nn

# The radii of RobustBench's leaderboards (Croce et al., 2021, arXiv:2010.09670, section 3.2).
_THREATS = {
    ("cifar10", "Linf"): "linf:8/255",
    ("cifar10", "L2"): "l2:0.5",
    ("cifar10", "corruptions"): "",
    ("cifar100", "Linf"): "linf:8/255",
    ("cifar100", "corruptions"): "",
    ("imagenet", "Linf"): "linf:4/255",
    ("imagenet", "corruptions"): "",
}

_CONSTANTS = {"mu", "sigma", "mean", "std"}
"""Last parts of the names of buffers that RobustBench's classes set: the normalisation."""


@dataclass(frozen=True)
class RobustBench:
    """`robustbench:DATASET/THREAT/NAME`, an entry of the zoo of robustbench 1.1.1."""

    text: str
    benchmark: str
    norm: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the name.  Raises SatbenchError; the entry itself is looked up when it is loaded."""
        parts = text.partition(":")[2].split("/")
        if len(parts) != 3 or not all(parts):
            raise SatbenchError(
                "expected robustbench:DATASET/THREAT/NAME such as "
                f"robustbench:cifar10/Linf/Carmon2019Unlabeled, got {text!r}"
            )
        benchmark, norm, name = parts
        known = {f"{one}/{other}" for one, other in _THREATS}
        if (benchmark, norm) not in _THREATS:
            raise UnknownNameError("part of RobustBench", f"{benchmark}/{norm}", known)
        need("robustbench", "robustbench", text)
        check_version()
        return cls(text, benchmark, norm, name)

    @property
    def dataset(self) -> str:
        """Return satbench's name of the data set; ImageNet is a folder of the user."""
        return self.benchmark if self.benchmark != "imagenet" else ""

    @property
    def threat(self) -> str:
        """Return the threat model of the leaderboard."""
        return _THREATS[self.benchmark, self.norm]

    def load(self, classes: int) -> LoadedModel:
        """Build the entry's architecture and load its checkpoint, downloaded if missing.

        Raises SatbenchError for an unknown entry, a checkpoint that cannot be downloaded, is
        corrupt or would run code, and for missing weights.
        """
        from satbench.models._robustbench_shim import import_robustbench

        with strangers_code():
            package = import_robustbench()
            entry = self._entry(package)
            folder = self._folder()
            files = list(self._checkpoints(folder, entry))
            for path, gdrive_id in files:
                _provide(package, path, gdrive_id)
            if not files:
                files = [(_provide_from(self._address(package)), "")]
            module = self._built(package, folder, files[0][0])
        info = describe_module(module, self.text, "robustbench")
        return LoadedModel(module, replace(info, architecture=self.text), None)

    def _entry(self, package: ModuleType) -> Mapping[str, Any]:
        enums, zoo = package.model_zoo.enums, package.model_zoo.model_dicts
        entries: Mapping[str, Mapping[str, Any]]
        entries = zoo[enums.BenchmarkDataset(self.benchmark)][enums.ThreatModel(self.norm)]
        if self.name not in entries:
            where = f"entry of RobustBench's {self.benchmark}/{self.norm}"
            raise UnknownNameError(where, self.name, entries)
        return entries[self.name]

    def _folder(self) -> Path:
        """Return the folder with RobustBench's layout: the chosen one, `./models`, or the cache."""
        if os.environ.get("SATBENCH_ROBUSTBENCH"):
            return Path(os.environ["SATBENCH_ROBUSTBENCH"])
        here = Path("models")  # RobustBench itself looks here
        if any((here / self.benchmark / self.norm).glob(f"{self.name}.pt*")):
            return here
        return cache_folder() / "robustbench"

    def _checkpoints(self, folder: Path, entry: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
        """Yield the path of each file of the entry, and its id at Google Drive."""
        path = folder / self.benchmark / self.norm / f"{self.name}.pt"
        ids = entry["gdrive_id"]
        if isinstance(ids, list):  # an ensemble has a file for each member
            yield from ((path.with_name(f"{path.name}_m{i}.pt"), one) for i, one in enumerate(ids))
        elif ids:  # timm or torchvision downloads others
            yield path, ids

    def _address(self, package: ModuleType) -> str:
        """Return the address of weights that RobustBench downloads through timm or torch.

        Raises SatbenchError for an entry that neither of them knows.
        """
        name = f"{self.name.lower().replace('-', '_')}_{self.benchmark}_{self.norm.lower()}"
        timm = package.utils.timm
        if timm.is_model(name):
            return str(timm.get_pretrained_cfg(name).url)
        if self.name != "Standard_R50":
            raise SatbenchError(f"RobustBench's entry {self.name} has no weights")
        from torchvision.models import ResNet50_Weights

        return str(ResNet50_Weights.IMAGENET1K_V1.url)

    def _built(self, package: ModuleType, folder: Path, file: Path) -> nn.Module:
        try:
            with _strict(package.utils), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecation warnings of RobustBench
                model: nn.Module = package.utils.load_model(
                    model_name=self.name,
                    model_dir=folder,
                    dataset=self.benchmark,
                    threat_model=self.norm,
                )
        except SatbenchError:
            raise
        except Exception as error:  # RobustBench, timm and torch have different errors
            said = f"{type(error).__name__}: {one_line(error)}"
            raise SatbenchError(
                f"RobustBench cannot load {self.name} from {file} ({said})"
            ) from error
        model.eval()
        return model


def _provide(package: ModuleType, path: Path, gdrive_id: str) -> None:
    """Download a checkpoint as RobustBench does, if missing, and check that it is only data."""
    from satbench.model_zoo.checkpoints import check_kind, read_pickle

    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch: Callable[[str, Path], None] = package.utils.download_gdrive_new
        try:
            fetch(gdrive_id, path)
            reason = "the download is empty"
        except Exception as error:  # gdown and requests have different errors
            reason = one_line(error)
        if not path.is_file():
            raise SatbenchError(
                f"the checkpoint {path} is missing and cannot be downloaded ({reason}): download "
                f"https://drive.google.com/file/d/{gdrive_id} in a browser and put it there"
            )
    check_kind(path)
    read_pickle(path)


def _provide_from(url: str) -> Path:
    """Download weights to the caches of timm and torchvision, and check that they are data."""
    from satbench.model_zoo.checkpoints import check_kind, read_pickle

    path = torch_hub_file(url)
    check_kind(path)
    read_pickle(path)
    return path


@contextmanager
def _strict(utils: ModuleType) -> Iterator[None]:
    """Make RobustBench require every weight of the architecture.

    For some entries it accepts a checkpoint without the constants of the normalisation, and then
    any other weight may be missing too.  Here only the constants may be missing.
    """
    lenient = utils._safe_load_state_dict

    def load(
        model: nn.Module, name: str, state: Mapping[str, Tensor], dataset: object
    ) -> nn.Module:
        lacking = sorted(
            key
            for key in model.state_dict().keys() - state.keys()
            if key.rpartition(".")[2] not in _CONSTANTS
        )
        if lacking:
            raise SatbenchError(
                f"the checkpoint of {name} does not fit RobustBench's architecture: it lacks "
                f"{len(lacking)} weights, such as {', '.join(lacking[:4])}"
            )
        loaded: nn.Module = lenient(model, name, state, dataset)
        return loaded

    utils._safe_load_state_dict = load  # type: ignore[attr-defined]
    try:
        yield
    finally:
        utils._safe_load_state_dict = lenient  # type: ignore[attr-defined]
