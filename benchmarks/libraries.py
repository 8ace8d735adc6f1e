"""Libraries compared with satbench's own code; the numbers of decision 15.

`python benchmarks/libraries.py` prints a line for each: the average of weights
(torch.optim.swa_utils, in use), the folding of batch-norms (torch.fx.experimental.optimization),
the points of a run on disk (np.memmap), an interrupted download (pooch, huggingface_hub).
"""

from __future__ import annotations

import http.server
import json
import tempfile
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from satbench.core.downloads import download, sha256_check
from satbench.core.errors import SatbenchError
from satbench.engine.fast_copy import fast_copy
from satbench.engine.memory import Points
from satbench.networks.build import build_network
from satbench.recipes import load_recipe
from satbench.training.update.averaging import Average

RUNS = 5


def best_of(call: Callable[[], object], times: int = 1) -> float:
    """Return the seconds of the fastest of some runs, for one call."""
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        for _ in range(times):
            call()
        seconds.append((time.perf_counter() - started) / times)
    return min(seconds)


def averages() -> dict[str, object]:
    """Compare 20 steps of a moving average of a WideResNet-28-10's weights with a manual loop.

    A loop over state_dict averages weights that layers share, such as PSSiLU's, several times.
    """
    torch.manual_seed(0)
    net = build_network("wide-resnet(depth=28,widen=10)", "relu", 10).train()
    held = deepcopy(net).requires_grad_(False)
    average = Average(replace(load_recipe("fmnist-sat"), ema_decay=0.999), net)

    def by_hand(past: int) -> None:
        share, theirs = 1 - min(0.999, (1 + past) / (10 + past)), net.state_dict()
        for name, own in held.state_dict().items():
            if own.is_floating_point():
                own.lerp_(theirs[name], share)
            else:
                own.copy_(theirs[name])

    for step in range(1, 21):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=1e-3)
        average.after_step(net)
        by_hand(step)
    ours, other = average.network.state_dict(), held.state_dict()
    return {
        "equal to the byte": all(torch.equal(ours[name], other[name]) for name in ours),
        "AveragedModel, s a step": round(best_of(lambda: average.after_step(net)), 4),
        "by hand, s a step": round(best_of(lambda: by_hand(30)), 4),
    }


def foldings() -> dict[str, object]:
    """Compare the fast copy with torch's own fusion, on a ResNet and on a module with a hook."""
    torch.manual_seed(0)
    net = build_network("resnet(depth=18)", "silu", 10).eval().requires_grad_(False)
    x = torch.rand(8, 3, 64, 64)

    def seconds(module: nn.Module) -> float:
        def passes() -> None:
            images = x.clone().requires_grad_()
            module(images).sum().backward()

        passes()
        return round(best_of(passes, 3), 3)

    found: dict[str, object] = {"plain, s": seconds(net)}
    ours = fast_copy(net)
    assert ours is not None
    found["fast copy, s"] = seconds(ours)
    try:
        theirs = fuse(deepcopy(net))
        found["torch.fx fuse, s"] = seconds(theirs)
        left = sum(type(one) is nn.BatchNorm2d for one in theirs.modules())
        found["batch-norms left by fuse"] = left
    except Exception as error:
        found["torch.fx fuse"] = f"{type(error).__name__}: {str(error)[:80]}"
    hooked = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval().requires_grad_(False)
    cast(Tensor, hooked[1].running_mean).fill_(1)
    hooked[0].register_forward_hook(lambda module, given, answer: 2 * answer)
    wanted = hooked(x)
    copied = fast_copy(hooked)
    folded = fuse(deepcopy(hooked))
    found["off with a hook: fast copy"] = (
        "the model itself" if copied is None else float((copied(x) - wanted).abs().max())
    )
    found["off with a hook: fuse"] = round(float((folded(x) - wanted).abs().max()), 3)
    return found


def points() -> dict[str, object]:
    """Compare our files of 2,000 points of 3×32×32 with a memory map."""
    n, shape = 2000, (3, 32, 32)
    rng = np.random.default_rng(0)
    images = rng.random((n, *shape), dtype=np.float32)
    rows = np.arange(n)
    result = cast(
        Any,
        SimpleNamespace(
            stage=1, indices=rows, broken=np.zeros(n, bool), margins=np.ones(n, "f4"), points=images
        ),
    )

    def ours() -> None:
        held = Points((n, *shape))
        held.offer(result)
        assert np.array_equal(held.read(rows), images)
        held.close()

    def mapped() -> None:
        with tempfile.TemporaryFile() as file:
            held = np.memmap(file, np.float32, "w+", shape=(n, *shape))
            held[rows] = images
            assert np.array_equal(held[rows], images)

    return {"ours, s": round(best_of(ours), 3), "np.memmap, s": round(best_of(mapped), 3)}


DATA = bytes(range(256)) * 4096


class _Breaking(http.server.BaseHTTPRequestHandler):
    """Serves 1 MiB, and interrupts every transfer after a quarter of it."""

    sent = 0

    def do_GET(self) -> None:
        range_ = self.headers.get("Range", "")
        start = int(range_.removeprefix("bytes=").split("-")[0]) if range_ else 0
        self.send_response(206 if range_ else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        if range_:
            self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        self.end_headers()
        part = DATA[start : start + len(DATA) // 4]
        type(self).sent += len(part)
        self.wfile.write(part)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def downloads() -> dict[str, object]:
    """Download 1 MiB from a server that interrupts, by each installed library."""
    import hashlib

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Breaking)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, digest = f"http://127.0.0.1:{server.server_port}/w.bin", hashlib.sha256(DATA).hexdigest()
    found: dict[str, object] = {}

    def attempt(name: str, fetch: Callable[[Path], object]) -> None:
        _Breaking.sent = 0
        with tempfile.TemporaryDirectory() as folder:
            try:
                fetch(Path(folder))
                whole = any(
                    path.read_bytes() == DATA for path in Path(folder).iterdir() if path.is_file()
                )
                end = "whole" if whole else "broken file kept"
            except (Exception, SatbenchError) as error:
                end = type(error).__name__
            found[name] = f"{end}, {_Breaking.sent / len(DATA):.2f} of the file sent"

    attempt("ours", lambda folder: download(url, folder / "w.bin", sha256_check(digest)))

    def by_pooch(folder: Path) -> object:
        import pooch

        pooch.get_logger().setLevel("CRITICAL")
        downloader = pooch.HTTPDownloader(timeout=5)
        return pooch.retrieve(url, digest, "w.bin", folder, downloader=downloader)

    def by_hub(folder: Path) -> object:
        from huggingface_hub.file_download import http_get

        with (folder / "w.bin").open("wb") as file:
            return http_get(url, file, expected_size=len(DATA))

    attempt("pooch", by_pooch)
    attempt("huggingface_hub", by_hub)
    server.shutdown()
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    for measure in (averages, foldings, points, downloads):
        print(f"{measure.__name__}: {json.dumps(measure())}", flush=True)
