"""The activation of every entry of RobustBench 1.1.1, found in its own architecture code.

    python tests/sources/robustbench_activations.py [--only TEXT] [--table FILE]

Each network is built without weights (torch's meta device) and gets one image.  The program notes
the activation of each layer and the count of its numbers.  The activation with the most numbers is
that of the entry; the others are listed next to it.  `--table` writes the table of names that
`satbench leaderboard import robustbench` reads.  Nothing is downloaded.  An entry that cannot be
built is not guessed; it is left out of the table.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from robustbench_entries import draw_nothing, names, said
from torch.utils._python_dispatch import TorchDispatchMode

OPS = {
    "relu": "relu",
    "silu": "silu",
    "gelu": "gelu",
    "leaky_relu": "leaky-relu",
    "elu": "elu",
    "softplus": "softplus",
    "mish": "mish",
    "hardtanh": "hardtanh",
    "tanh": "tanh",
    "threshold": "threshold",
}
# Modules that compute an activation from other operations, by the name of their class.
CLASSES = {"Swish": "silu", "PSSiLU": "pssilu"}
# The same for layers with jumps, before an activation.
JUMPS = {"MeanSparse": "mean-sparse", "MeanSparse_imagenet": "mean-sparse"}

MAIN = 0.9
"""An entry's activation has at least this share of the numbers; else the entry has none."""


class Watch(TorchDispatchMode):
    """Count the numbers that go through each activation, and the code files that call it."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[torch.nn.Module] = []
        self.numbers: Counter[str] = Counter()
        self.files: dict[str, set[str]] = {}
        self.jumps: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Note the activation that an operation is, if it is one."""
        name = func._schema.name.rpartition("::")[2].rstrip("_")
        if name in OPS and not any(type(one).__name__ in CLASSES for one in self.stack):
            self.note(OPS[name], args[0].numel())
        return func(*args, **(kwargs or {}))

    def note(self, activation: str, numbers: int) -> None:
        """Note an activation, and the file of the innermost module that is not torch's own."""
        self.numbers[activation] += numbers
        own = [type(one).__module__ for one in self.stack]
        own = [one for one in own if not one.startswith(("torch.", "timm.layers.activations"))]
        if own:
            self.files.setdefault(activation, set()).add(own[-1].replace(".", "/") + ".py")

    def enter(self, module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        """Enter a module, before its forward pass."""
        self.stack.append(module)
        name = type(module).__name__
        self.jumps |= {JUMPS[name]} if name in JUMPS else set()
        activation = CLASSES.get(name)
        if activation:
            self.note(activation, inputs[0].numel())

    def leave(self, *_: object) -> None:
        """Leave the module."""
        self.stack.pop()


@contextmanager
def watched() -> Iterator[Watch]:
    """Watch all forward passes."""
    watch = Watch()
    hooks = torch.nn.modules.module
    before = hooks.register_module_forward_pre_hook(watch.enter)
    after = hooks.register_module_forward_hook(watch.leave)
    with watch:
        yield watch
    before.remove()
    after.remove()


def trace(name: str, device: str) -> Watch:
    """Build an entry on a device, `meta` for one without weights, and pass one image through it."""
    from satbench.models._robustbench_shim import import_robustbench

    package = import_robustbench()
    benchmark, norm, entry = name.split("/")
    zoo = package.model_zoo
    threats = zoo.model_dicts[zoo.enums.BenchmarkDataset(benchmark)]
    told = threats[zoo.enums.ThreatModel(norm)][entry]
    crop = re.search(r"Crop(\d+)|Res(\d+)$", str(told.get("preprocessing")))
    size = 32 if benchmark != "imagenet" else int(crop[1] or crop[2]) if crop else 224
    timm_name = f"{entry.lower().replace('-', '_')}_{benchmark}_{norm.lower()}"
    with torch.device(device), torch.no_grad():
        if package.utils.timm.is_model(timm_name):
            network = package.utils.timm.create_model(timm_name)
        elif told["gdrive_id"] == "":
            network = __import__("torchvision").models.resnet50()
        else:
            network = told["model"]()
        if hasattr(network, "comp_model") or hasattr(network, "rob_model"):
            raise ValueError("a mixture of two networks")
        network = network.eval().to(device)
        with watched() as watch:
            network(torch.rand(1, 3, size, size))
    return watch


def row(name: str, watch: Watch) -> str:
    """Return an entry's line of the table; empty if there is no main activation."""
    total = sum(watch.numbers.values())
    ordered = [one for one, _ in watch.numbers.most_common()]
    if not total or watch.numbers[ordered[0]] < MAIN * total:
        return ""
    dataset = name.partition("/")[0]
    files = sorted(watch.files.get(ordered[0], ()))
    source = ", ".join([f"robustbench/model_zoo/{dataset}.py", *files])
    others = [*ordered[1:], *sorted(watch.jumps)]
    beside = f", beside = {others!r}".replace("'", '"') if others else ""
    return f'"{name}" = {{ activation = "{ordered[0]}"{beside}, source = "{source}" }}'


def main() -> None:
    """Trace all entries, or those whose name contains a text."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", metavar="TEXT")
    parser.add_argument("--table", type=Path, metavar="FILE")
    given = parser.parse_args()
    draw_nothing()
    # Questions for a number, and for a device, that weights which are not there cannot answer.
    torch.Tensor.__bool__ = lambda tensor: True  # type: ignore[method-assign]
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
    lines = []
    for name in names():
        if given.only not in name:
            continue
        watch = None
        for device in ("meta", "cpu"):  # the latter for networks that read their own weights
            try:
                watch = watch or trace(name, device)
            except Exception as error:
                sys.stderr.write(f"{name} on {device}: {said(error)}\n")
        if watch is None:
            continue
        line = row(name, watch)
        sys.stderr.write(f"{line or name + ': no main one'} {dict(watch.numbers)}\n")
        lines += [line] if line else []
    if given.table:
        given.table.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


HEAD = """\
# The activation of entries of RobustBench, by DATASET/THREAT/NAME: the one that at least 90 % of
# the numbers in a forward pass go through; `beside` names those of smaller parts, and operators
# that jump.  Each line's source is the code of RobustBench 1.1.1 (or of the timm or torchvision
# that it builds the network with): where its zoo names the network, and where the network calls
# the activation.  Mixtures of two networks have none.  An entry that is not here is not known:
# most of those have no code in that release.
# Written by `python tests/sources/robustbench_activations.py --table FILE`.
schema = 1
origin = "robustbench 1.1.1, timm 1.0.9"

[entries]
"""

if __name__ == "__main__":
    main()
