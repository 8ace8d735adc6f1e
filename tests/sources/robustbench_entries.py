"""Load every entry of RobustBench 1.1.1 by its own code and by satbench, and compare them.

    python tests/sources/robustbench_entries.py [--only TEXT] [--again] [--results FILE]

Each entry runs in its own process, so that one network at a time is in memory.  Its files are
written with random weights in the layout that RobustBench's loader expects.  Both load them, and
both compute the logits of one image of the size of the entry.  The initial weights of all networks
are NaN, so finite logits show that the weights came from the file.  An entry with a result in FILE
is not run again, so a stopped run continues where it stopped.  `--table` writes
`docs/robustbench.md`, the page of the results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_suffix(".json")

State = dict[str, Any]


def compare(name: str, folder: Path) -> dict[str, Any]:
    """Load one entry both ways from files in `folder`; -> its result.

    `result` is `equal`, `different`, `refused` (by satbench alone) or `cannot be built` (by
    RobustBench's own loader), the last three with a `reason`.
    """
    import torch

    from satbench.models import load_model, request_model
    from satbench.models._loaded import strangers_code
    from satbench.models._robustbench_shim import import_robustbench

    benchmark, norm, entry = name.split("/")
    os.environ["SATBENCH_ROBUSTBENCH"] = str(folder / "models")
    torch.hub.set_dir(str(folder / "hub"))
    package = import_robustbench()
    if entry != "Kang2021Stable":  # their weights must lie on a manifold
        draw_nothing()
    try:
        with strangers_code():
            told = write_files(package, name, folder)
            theirs = package.utils.load_model(entry, folder / "models", benchmark, norm)
    except Exception as error:
        told = {"result": "cannot be built", "reason": said(error)}
        if "NVIDIA" not in told["reason"]:
            return told
        # What it would be with a device: the same on the CPU, its calls of cuda() left out.
        torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
        again = compare(name, folder / "again")
        kept = {key: again[key] for key in ("files", "parameters", "images") if key in again}
        return told | kept | {"without_cuda": again["result"]}
    x = torch.rand(1, *told["images"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.eval()(x)
    del theirs
    try:
        module = load_model(request_model(f"robustbench:{name}"), 10).module
        with torch.no_grad():
            got = module(x)
    except Exception as error:
        return told | {"result": "refused", "reason": said(error)}
    if not expected.isfinite().all() or expected.std() == 0:
        return told | {"result": "different", "reason": "the logits say nothing"}
    if not torch.equal(got, expected):
        return told | {"result": "different", "reason": f"by {(got - expected).abs().max():.3g}"}
    return told | {"result": "equal", "classes": expected.shape[1]}


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


# The files


def write_files(package: Any, name: str, folder: Path) -> dict[str, Any]:
    """Write the files of an entry, their weights random; -> its parameters and images."""
    import torch

    benchmark, norm, entry = name.split("/")
    zoo = package.model_zoo
    told = zoo.model_dicts[zoo.enums.BenchmarkDataset(benchmark)][zoo.enums.ThreatModel(norm)][
        entry
    ]
    timm_name = f"{entry.lower().replace('-', '_')}_{benchmark}_{norm.lower()}"
    by_timm = package.utils.timm.is_model(timm_name)
    if by_timm:
        classes = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}[benchmark]
        network = package.utils.timm.create_model(timm_name, num_classes=classes)
    elif told["gdrive_id"] == "":
        network = torch.nn.Sequential()
        network.add_module("model", __import__("torchvision").models.resnet50())
    else:
        network = told["model"]()
    fill(network)
    if by_timm or told["gdrive_id"] == "":
        inner = network if not hasattr(network, "model") else network.model
        write_to_hub(inner.state_dict(), timm_name if by_timm else "", folder)
        count = 1
    else:
        place = folder / "models" / benchmark / norm
        place.mkdir(parents=True)
        contents = layouts(network, benchmark, entry, told["gdrive_id"])
        for file, content in contents:
            torch.save(content, place / file)
        count = len(contents)
    crop = re.search(r"Crop(\d+)|Res(\d+)$", str(told.get("preprocessing")))
    size = 32 if benchmark != "imagenet" else int(crop[1] or crop[2]) if crop else 224
    parameters = sum(p.numel() for p in network.parameters())
    return {"files": count, "parameters": parameters, "images": [3, size, size]}


def draw_nothing() -> None:
    """Make initial weights NaN in this process: this is fast, and unloaded weights show."""
    import torch

    def poison(tensor: Any, *_: Any, **__: Any) -> Any:
        return tensor.fill_(float("nan"))

    torch.Tensor.normal_ = torch.Tensor.uniform_ = poison  # type: ignore[method-assign,assignment]


def fill(network: Any) -> None:
    """Give a network random weights by their names, so that its logits are finite and vary."""
    import torch

    pool = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))
    for name, tensor in network.state_dict().items():
        last = name.rpartition(".")[2]
        if not tensor.is_floating_point() or last in CONSTANTS or "parametrizations" in name:
            continue
        if last == "threshold":  # of MeanSparse, which does nothing at 0
            tensor.fill_(0.2)
        if tensor.numel() == 1:
            continue
        begin = zlib.crc32(name.encode()) % len(pool)
        times = 1 + (begin + tensor.numel()) // len(pool)
        drawn = pool.repeat(times)[begin : begin + tensor.numel()].view(tensor.shape)
        if tensor.dim() > 1:
            drawn = drawn * (tensor.shape[0] / tensor.numel()) ** 0.5
        elif last in ("bias", "running_mean"):
            drawn = drawn * 0.1
        else:  # a scale or a variance
            drawn = drawn.abs().clamp(0.5, 1.5)
        tensor.copy_(drawn)


def layouts(network: Any, benchmark: str, entry: str, ids: Any) -> list[tuple[str, Any]]:
    """Return the files of an entry: their names, and what torch.save gets."""
    if not isinstance(ids, list):
        return [(f"{entry}.pt", single(network.state_dict(), benchmark, entry))]
    if entry.startswith("Bai2023Improving"):
        mixed = network.comp_model
        parts: list[Any] = [model.state_dict() for model in mixed.models]
        parts.append({"model": mixed.policy_net.state_dict(), "bn": mixed.bn.state_dict()})
    elif entry.startswith("Bai2024MixedNUTS"):
        robust = network.rob_model.state_dict()
        swin = benchmark == "imagenet"
        parts = [network.std_model.state_dict(), old_swin(bare(robust)) if swin else robust]
    else:
        parts = [{"state_dict": prefixed(model.state_dict())} for model in network.models]
    return [(f"{entry}.pt_m{i}.pt", part) for i, part in enumerate(parts)]


def single(state: State, benchmark: str, entry: str) -> Any:
    """Return the content of an entry's one file, as `load_model` of RobustBench reads it."""
    if benchmark == "imagenet" and any(key.startswith("model.") for key in state):
        state = bare(state)
        return old_swin(state) if re.search("(Liu|Mo|Rodriguez).*Swin", entry) else state
    if any(one in entry for one in LACK_CONSTANTS):
        state = {k: v for k, v in state.items() if k.rpartition(".")[2] not in CONSTANTS}
    if "Diffenderfer2021Winning_LRR" in entry:  # the scores of its pruning are in the file too
        state |= {"conv1.scores": state["conv1.weight"]}
    if "Kireev2021Effectiveness" in entry or entry == "Andriushchenko2020Understanding":
        return {"last": state, "best": {}}
    if entry in ("Carmon2019Unlabeled", "Chen2020Efficient"):
        return {"state_dict": prefixed(state, "module." if entry[1] == "a" else "model.")}
    return state


CONSTANTS = {"mu", "sigma", "mean", "std"}
LACK_CONSTANTS = (
    *("Andriushchenko2020", "Augustin2020", "Engstrom2019", "Rice2020", "Rony2019", "Wong2020"),
    *("Hendrycks2020AugMix", "Kireev2021", "Chen2020Efficient", "Wu2020Adversarial"),
)


def prefixed(state: State, prefix: str = "module.") -> State:
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def bare(state: State) -> State:
    """Return the weights of the network after a normalisation, by its own names."""
    return {k.partition(".")[2]: v for k, v in state.items() if k.startswith("model.")}


def old_swin(state: State) -> State:
    """Return a Swin transformer's weights by the names of timm before 0.9."""
    renamed = {}
    for key, tensor in state.items():
        if stage := re.match(r"layers\.(\d)\.downsample", key):
            key = key.replace(stage[0], f"layers.{int(stage[1]) - 1}.downsample")
        renamed[key.replace("head.fc.", "head.")] = tensor
    return renamed


def write_to_hub(state: State, timm_name: str, folder: Path) -> None:
    """Write weights to torch's own cache, under a name with their digest if needed."""
    import timm
    import torch
    from torchvision.models import ResNet50_Weights

    place = folder / "hub" / "checkpoints"
    place.mkdir(parents=True)
    torch.save(state, place / "w")
    name = "resnet50-"
    if timm_name:
        config = timm.models._registry._model_pretrained_cfgs[timm_name]
        name = config.url.rpartition("/")[2]
    if not timm_name or re.search(r"-[0-9a-f]{8}\.", name):
        digest = hashlib.sha256((place / "w").read_bytes()).hexdigest()
        name = f"{name.rpartition('-')[0]}-{digest[:8]}.pth"
        if timm_name:
            config.url = f"https://download.pytorch.org/models/{name}"
        else:
            weights = ResNet50_Weights.IMAGENET1K_V1
            object.__setattr__(weights.value, "url", f"https://download.pytorch.org/models/{name}")
    (place / "w").rename(place / name)


# All of them


def names() -> list[str]:
    """Return the names of all entries, `DATASET/THREAT/NAME`, in RobustBench's order."""
    from satbench.models._robustbench_shim import import_robustbench

    return [
        f"{benchmark.value}/{norm.value}/{entry}"
        for benchmark, threats in import_robustbench().model_zoo.model_dicts.items()
        for norm, entries in threats.items()
        for entry in entries
    ]


def run_one(name: str, limit: float) -> dict[str, Any]:
    """Compare one entry in a process of its own; -> its result, with seconds and peak memory.

    The process is a fork of this one, which has imported everything already.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        process = get_context("fork").Process(target=_compare, args=(name, Path(folder), result))
        begin = time.monotonic()
        process.start()
        process.join(limit)
        if process.is_alive():
            process.kill()
            process.join()
            return {"result": "not compared", "reason": f"took more than {limit:.0f} s"}
        if process.exitcode:
            return {"result": "not compared", "reason": f"exit code {process.exitcode}"}
        told: dict[str, Any] = json.loads(result.read_text())
        return told | {"seconds": round(time.monotonic() - begin, 1)}


def _compare(name: str, folder: Path, result: Path) -> None:
    told = compare(name, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    result.write_text(json.dumps(told | {"peak_mib": peak}))


def run_all(chosen: Iterator[str], results: Path, again: bool, limit: float) -> None:
    """Compare entry after entry and write each result at once."""
    for name in chosen:
        known = json.loads(results.read_text()) if results.is_file() else {}
        if name in known and not again:
            continue
        known[name] = run_one(name, limit)
        write(known, results)
        sys.stderr.write(f"{name}: {known[name]}\n")


def page(known: dict[str, Any]) -> str:
    """Return the page of the results, in markdown."""
    equal = sum(told["result"] == "equal" for told in known.values())
    lines = [
        *_HEAD.format(count=len(known), equal=equal, rest=len(known) - equal).splitlines(),
        *("", "| board | entries | equal | cannot be built here |", "|---|---|---|---|"),
    ]
    boards = dict.fromkeys(name.rpartition("/")[0] for name in known)
    for board in boards:
        results = [told["result"] for name, told in known.items() if _board(name) == board]
        counts = (results.count("equal"), results.count("cannot be built"))
        lines.append(f"| {board} | {len(results)} | {counts[0]} | {counts[1]} |")
    lines += ["", _REASONS, "", "## Entry by entry"]
    for board in boards:
        lines += ["", f"### {board}", "", "| entry | parameters | images | files | result |"]
        lines += ["|---|---|---|---|---|"]
        lines += [_row(name, told) for name, told in known.items() if _board(name) == board]
    return "\n".join(lines) + "\n"


_HEAD = (
    "# The entries of RobustBench 1.1.1, one by one\n\n"
    "Written by `python tests/sources/robustbench_entries.py --table docs/robustbench.md`, from "
    "`tests/sources/robustbench_entries.json`, which the same program makes without `--table`.\n\n"
    "Each entry gets a file of weights with random numbers, in the layout that RobustBench's "
    "loader expects; an ensemble gets several. RobustBench's own loader and satbench load it, each "
    "into a network whose weights are NaN before. Both then classify one image of the entry's "
    "size.\nEqual means: the same logits to the bit. Of {count} entries {equal} are equal; {rest} "
    "cannot be built by RobustBench itself on a machine without a CUDA device.\n"
    "The published weights were not available, so they are not part of this test."
)

_REASONS = (
    "The three mixtures of Bai et al., 2023, cannot be built here: they call `.cuda()` while they "
    "are built, which needs an NVIDIA driver. Without this call they load, and are equal."
)


def _board(name: str) -> str:
    return name.rpartition("/")[0]


def _row(name: str, told: dict[str, Any]) -> str:
    result = told["result"]
    if told.get("without_cuda"):
        result += f": needs an NVIDIA driver; {told['without_cuda']} without the call of `.cuda()`"
    millions = f"{told['parameters'] / 1e6:,.1f} M" if "parameters" in told else "–"
    size = "×".join(map(str, told.get("images", ["–"])))
    return (
        f"| {name.rpartition('/')[2]} | {millions} | {size} | {told.get('files', '–')} | {result} |"
    )


def write(known: dict[str, Any], results: Path) -> None:
    temporary = results.with_suffix(".part")
    temporary.write_text(json.dumps(known, indent=1) + "\n")
    temporary.replace(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", default="", help="entries whose name matches this pattern")
    parser.add_argument("--table", type=Path, help="write the page of the results, compare nothing")
    parser.add_argument("--again", action="store_true", help="also those that have a result")
    parser.add_argument("--limit", type=float, default=1800, help="seconds an entry may take")
    chosen = parser.parse_args()
    if chosen.table:
        chosen.table.write_text(page(json.loads(chosen.results.read_text())), encoding="utf-8")
        return
    fitting = (name for name in names() if re.search(chosen.only, name))
    run_all(fitting, chosen.results, chosen.again, chosen.limit)


if __name__ == "__main__":
    main()
