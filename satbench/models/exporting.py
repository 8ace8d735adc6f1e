"""Exports of a model: files that load without satbench, and the Hugging Face Hub's layout."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path, write_bytes, write_text
from satbench.core.markdown import cell, code
from satbench.core.templates import fill
from satbench.core.text.terminal import one_line
from satbench.model_zoo.card import CARD_KEY
from satbench.model_zoo.timm_names import timm_model_name, timm_state
from satbench.models import LoadedModel

AGREE = 1e-4
"""Largest difference between logits of an export and the model, relative to the largest logit."""


@dataclass(frozen=True)
class Exported:
    """An export: its files, and the code that loads it."""

    files: list[Path]
    load_with: str


def export_model(model: LoadedModel, form: str, folder: Path) -> Exported:
    """Write a model in one of `FORMS` to `folder`.

    If the export can be run here, its logits are compared with the model's.  Raises SatbenchError
    for an unknown form, a missing package, and logits that differ by more than rounding.
    """
    if form not in FORMS:
        raise SatbenchError(f"expected one of the forms {', '.join(FORMS)}, got {form!r}")
    if model.card is None:
        raise SatbenchError(
            "expected a model with a card, which has the shape of its images: "
            "make one with satbench models card"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return FORMS[form](model, folder)


def load_code(file: str, how: str) -> str:
    """Return five lines of plain PyTorch that load an exported file."""
    code = {
        "torch-export": f'model = torch.export.load("{file}").module()',
        "torchscript": f'model = torch.jit.load("{file}")',
        "onnx": f'session = onnxruntime.InferenceSession("{file}")',
    }[how]
    if how == "onnx":
        run = 'logits = session.run(None, {"x": images})[0]'
        return f"import numpy, onnxruntime\n{code}\n# images: (N, C, H, W) float32 in [0, 1]\n{run}"
    call = "with torch.no_grad():\n    logits = model(images)"
    return f"import torch\n{code}\n# images: (N, C, H, W) float32 in [0, 1]\n{call}"


def _torch_export(model: LoadedModel, folder: Path) -> Exported:
    path = folder / f"{model.info.name}.pt2"
    batch = torch.export.Dim("batch", min=1, max=65_536)
    example = _images(model)
    with torch.no_grad():
        program = torch.export.export(model.module, (example,), dynamic_shapes=({0: batch},))
    held = io.BytesIO()  # torch's own writer ends the process on a full disk
    torch.export.save(program, held)
    write_bytes(path, held.getvalue())
    _check(model, torch.export.load(str(path)).module(), path)
    return Exported([path], load_code(path.name, "torch-export"))


def _torchscript(model: LoadedModel, folder: Path) -> Exported:
    path = folder / f"{model.info.name}.torchscript.pt"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but the user wants it
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            model.module, _images(model), check_trace=False
        )
        held = io.BytesIO()  # torch's own writer ends the process on a full disk
        torch.jit.save(traced, held)
        write_bytes(path, held.getvalue())
        _check(model, torch.jit.load(str(path)), path)  # type: ignore[no-untyped-call]
    return Exported([path], load_code(path.name, "torchscript"))


def _onnx(model: LoadedModel, folder: Path) -> Exported:
    path = folder / f"{model.info.name}.onnx"
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ImportError:
        raise SatbenchError(
            "an export to ONNX needs onnx, onnxscript and onnxruntime: pip install 'satbench[onnx]'"
        ) from None
    batch = torch.export.Dim("batch", min=1, max=65_536)
    with warnings.catch_warnings(), atomic_path(path) as temporary:
        warnings.simplefilter("ignore")  # the exporter's warnings about itself
        torch.onnx.export(
            model.module,
            (_images(model),),
            str(temporary),
            input_names=["x"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])

    _check(model, run, path)
    return Exported([path], load_code(path.name, "onnx"))


def _hub(model: LoadedModel, folder: Path) -> Exported:
    """Write a folder in the layout of the Hugging Face Hub: model card, config, weights."""
    card = model.card
    assert card is not None  # noqa: S101 (`export_model` has checked)
    program = _torch_export(model, folder)
    timm_name = timm_model_name(card.architecture, card.activation)
    state: Mapping[str, Tensor] = model.module.state_dict()
    config: dict[str, object] = {
        "architecture": timm_name or card.architecture,
        "num_classes": card.classes,
        "satbench": card.to_dict(),
    }
    if timm_name:
        mean, std = (state[f"normalize.{part}"].flatten().tolist() for part in ("mean", "std"))
        config["pretrained_cfg"] = {
            "input_size": list(card.input_shape),
            "mean": mean,
            "std": std,
            "num_classes": card.classes,
        }
        state = timm_state(card.architecture, state)
    weights, settings, page = (
        folder / name for name in ("model.safetensors", "config.json", "README.md")
    )
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    # safetensors' own writer raises no OSError on a full disk.
    write_bytes(weights, save(plain, {"format": "pt", CARD_KEY: card.to_json()}))
    write_text(settings, json.dumps(config, indent=2) + "\n")
    load_with = _timm_code(timm_name, card.classes) if timm_name else program.load_with
    values = {"card": card, "load": load_with, "timm": timm_name, "plain": program.load_with}
    write_text(page, fill("hub-card.md", values, {"cell": cell, "code": code, "line": one_line}))
    return Exported([*program.files, weights, settings, page], load_with)


def _timm_code(name: str, classes: int) -> str:
    return (
        "import timm\nfrom safetensors.torch import load_file\n"
        f'model = timm.create_model("{name}", num_classes={classes}).eval()\n'
        'model.load_state_dict(load_file("model.safetensors"))\n'
        "# images: (N, C, H, W) float32, normalised by the mean and std of config.json\n"
        "logits = model(images)"
    )


def push_to_hub(folder: Path, repository: str) -> str:
    """Upload an exported folder to `ORG/NAME` on the Hugging Face Hub; return its address.

    The environment variable HF_ENDPOINT selects another server with the same interface.

    Raises SatbenchError if huggingface_hub is missing or the Hub refuses.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise SatbenchError("pushing needs huggingface_hub: pip install 'satbench[timm]'") from None
    api = HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder))
    except Exception as error:  # errors of the network, the token, the name
        said = str(error).strip().splitlines()
        raise SatbenchError(
            f"cannot push to {repository} ({type(error).__name__}: {said[0] if said else ''}): "
            "log in with `hf auth login`, and check the name ORG/NAME"
        ) from None
    return f"{api.endpoint}/{repository}"


def _images(model: LoadedModel) -> Tensor:
    """Return two random images of the model's shape: (2, C, H, W) in [0, 1]."""
    assert model.card is not None  # noqa: S101 (`export_model` has checked)
    return torch.rand(2, *model.card.input_shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _check(model: LoadedModel, exported: Callable[[Tensor], Tensor], path: Path) -> None:
    """Raise SatbenchError, and remove the file, if an export gives other logits."""
    # Three images, because the export was made with another number.
    x = torch.cat([_images(model), _images(model)[:1].flip(-1)])
    expected, got = model.module(x), exported(x)
    apart = float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    if not apart <= AGREE:
        path.unlink(missing_ok=True)
        raise SatbenchError(
            f"the logits of the export {path.name} differ from the model's by {apart:.2g} of the "
            "largest logit; it was removed: use another form"
        )


FORMS: Mapping[str, Callable[[LoadedModel, Path], Exported]] = {
    "torch-export": _torch_export,
    "torchscript": _torchscript,
    "onnx": _onnx,
    "hub": _hub,
}
"""The forms of an export by name; each function writes files to a folder and checks them."""
