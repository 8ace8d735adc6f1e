"""The page of `gpu.py`: docs/gpu.md.  The same result gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tables import table

Rows = list[dict[str, Any]]

GAIN = 1.1
"""How many times as fast as float32 a way of searching must be to be the default."""

INTRODUCTION = (
    "# On a GPU\n\n"
    "`make gpu` runs all of this on a machine with a GPU, in at most eight minutes. Each step is a "
    "process with a limit of time. If a step fails or takes too long, the page says so, and the "
    "other steps run. The results are in `build/gpu`. To publish them: "
    "`cp build/gpu/gpu.json benchmarks/results/`, then `python benchmarks/gpu.py --write`. That "
    "writes this page, and the way of searching that is the default on this GPU "
    "(`satbench/engine/machine/allowed.json`). torchattacks needs its own environment "
    "(`benchmarks/README.md`): `make gpu VENV=.venv-bench`.\n"
)

NOT_RUN = (
    "\n**None of this has been run on a GPU yet.** No GPU was at hand. "
    "`python benchmarks/gpu.py --device cpu --size tiny` rehearses every step on the processor. "
    "That shows that the steps work, and nothing about a GPU. Whoever has a GPU is asked to run "
    "`make gpu` and to commit what it says. Until then every search on a GPU is in float32.\n\n"
    "| step | what it runs |\n| --- | --- |\n"
)

ABOUT = {
    "tests": "the tests that need a GPU (`pytest -m gpu`)",
    "agreement": "evaluations of three shipped nets and a ResNet-18 on the GPU and on the "
    "processor: the verdicts are compared image by image",
    "deterministic": "two equal evaluations, with torch's deterministic algorithms and without: "
    "their verdicts and witnesses are compared",
    "ways": "searches without a fast copy, in each memory layout, by CUDA graphs, in TF32, "
    "bfloat16 and float16, each with the judge in float32: they are compared with searches in "
    "float32 image by image",
    "training": "`satbench train` for two epochs, and the same on the processor",
    "peers": "PGD by satbench, torchattacks and a loop written by hand; parts of AutoAttack by "
    "satbench and pyautoattack",
}
"""What each step does."""


def page(result: dict[str, Any] | None) -> str:
    """Return the page of a result; None for no result."""
    if result is None:
        lines = [f"| {name} | {about} |" for name, about in ABOUT.items()]
        return INTRODUCTION + NOT_RUN + "\n".join(lines) + "\n"
    return "\n".join([INTRODUCTION, *_sections(result)])


def allowed(result: dict[str, Any] | None) -> dict[str, str]:
    """Return the way of searching that is to be the default, by the name of the GPU.

    It lost no image on any net, was nowhere given up for float32, and was the fastest of those and
    `GAIN` times as fast as float32.  Only a full run on a GPU allows anything.
    """
    if not result or not is_on_gpu(result) or result["size"] != "full":
        return {}
    machine = _rows(result, "tests", "machine")
    if result["steps"].get("ways", {}).get("status") != "done" or not machine:
        return {}
    rows = _rows(result, "ways", "ways")
    seconds = {
        way: sum(row["seconds"] for row in rows if row["way"] == way)
        for way in dict.fromkeys(row["way"] for row in rows)
        if loses_nothing([row for row in rows if row["way"] == way])
    }
    base = seconds.pop("float32", 0.0)
    fastest = min(seconds, key=seconds.__getitem__, default="")
    if not fastest or base < GAIN * seconds[fastest]:
        return {}
    return {machine[0]["gpu"]: fastest}


def loses_nothing(rows: Rows) -> bool:
    """Return whether a way of searching found all that float32 did, and was used throughout."""
    return all("error" not in row and not row["weaker"] and _was_used(row) for row in rows)


def _was_used(row: dict[str, Any]) -> bool:
    precision = row["way"].split("+")[0]
    return precision == "float32" or row["searched"] == [precision]


def is_on_gpu(result: dict[str, Any]) -> bool:
    """Return whether the result is of a GPU, and not of a rehearsal."""
    return str(result["device"]).startswith("cuda")


def _sections(result: dict[str, Any]) -> list[str]:
    parts = [_head(result)]
    for name, about in ABOUT.items():
        step = result["steps"].get(name)
        if step is None:
            continue
        parts.append(f"## {name.capitalize()}\n\nThis step runs {about}.\n")
        if step["status"] != "done":
            parts.append(
                f"**This step did not end well: {step['status']}** after {step['seconds']:.0f} of "
                f"{step['limit']:.0f} s. The rows below are those until then.\n"
            )
        parts += [f"{text}\n" for text in _TABLES[name](step["rows"]) if text]
        if step["told"]:
            parts.append(f"```text\n{step['told']}\n```\n")
    return parts


def _head(result: dict[str, Any]) -> str:
    steps = result["steps"].values()
    done = sum(step["status"] == "done" for step in steps)
    text = f"{done} of {len(steps)} steps ended well, in {result['seconds']:.0f} s.\n"
    if machine := _rows(result, "tests", "machine"):
        told = machine[0]
        text += (
            f"\n{told['gpu']}, CUDA {told['cuda']}, cuDNN {told['cudnn']}; {told['cpu']}, "
            f"{told['threads']} of {told['cores']} cores; torch {told['torch']}, "
            f"python {told['python']}, {told['finished'][:10]}.\n"
        )
    if not is_on_gpu(result) or result["size"] != "full":
        text = (
            f"**This is a rehearsal on `{result['device']}` of size `{result['size']}`. It says "
            "nothing about a GPU.**\n\n" + text
        )
    ways = allowed(result)
    default = ", ".join(f"`{way}`" for way in ways.values()) or "float32, as without this table"
    return text + f"\nThe default way of searching on this GPU: {default}.\n"


def _rows(result: dict[str, Any], step: str, name: str) -> Rows:
    found: Rows = result["steps"].get(step, {}).get("rows", {}).get(name, [])
    return found


def _tests(rows: dict[str, Rows]) -> Sequence[str]:
    for row in rows.get("tests", []):
        if "collected" in row:
            return [f"{row['collected']} tests need a GPU; none was run."]
        failed = "".join(f"\n- failed: `{name}`" for name in row["failed"])
        told = f"{row['tests']} tests, {row['failures'] + row['errors']} failed"
        return [f"{told}, {row['skipped']} skipped.{failed}"]
    return []


def _agreement(rows: dict[str, Rows]) -> Sequence[str]:
    head = ["net", "images", "survive: CPU", "GPU", "differ: only CPU breaks", "only GPU breaks"]
    head += ["broken elsewhere", "CPU s", "GPU s", "CPU / GPU"]
    lines = [
        [
            row["net"],
            str(row["images"]),
            str(row["cpu_survive"]),
            str(row["device_survive"]),
            _places(row["weaker"]),
            _places(row["stronger"]),
            str(row["other_stage"]),
            f"{row['cpu_seconds']:.1f}",
            f"{row['device_seconds']:.1f}",
            f"{row['cpu_seconds'] / row['device_seconds']:.2f}",
        ]
        for row in rows.get("agreement", [])
    ]
    return [_table(head, lines)]


def _deterministic(rows: dict[str, Rows]) -> Sequence[str]:
    head = ["net", "algorithms", "same verdicts", "same witnesses", "s"]
    lines = []
    for row in rows.get("deterministic", []):
        mode = "deterministic" if row["deterministic"] else "torch's choice"
        answers = [row.get("same_verdicts"), row.get("same_witnesses")]
        told = [row["error"] if one is None else "yes" if one else "no" for one in answers]
        lines.append([row["net"], mode, *told, _number(row, "seconds")])
    return [_table(head, lines)]


def _ways(rows: dict[str, Rows]) -> Sequence[str]:
    head = ["net", "way", "searched", "survive", "weaker", "stronger", "s", "float32 / this"]
    lines = []
    for row in rows.get("ways", []):
        if "error" in row:
            lines.append([row["net"], row["way"], row["error"], *["–"] * 5])
            continue
        lines.append(
            [
                row["net"],
                row["way"],
                ", ".join(row["searched"]),
                f"{row['survive']} of {row['images']}",
                _places(row["weaker"]),
                _places(row["stronger"]),
                f"{row['seconds']:.2f}",
                f"{row['ratio']:.2f}",
            ]
        )
    told = (
        "**weaker**: images that survive this way and not float32. A way with such an image is no "
        "default. **searched**: what the record says; float32 is `folded` or `plain`."
    )
    return [_table(head, lines), told]


def _training(rows: dict[str, Rows]) -> Sequence[str]:
    head = ["run", "epoch", "loss", "train accuracy", "held out", "under PGD-10", "images / s"]
    lines = [
        [
            row["run"],
            str(epoch["epoch"]),
            f"{epoch['loss']:.5f}",
            f"{epoch['train_accuracy']:.4f}",
            f"{epoch['held_out_clean']:.4f}",
            f"{epoch['held_out_pgd10']:.4f}",
            f"{epoch['images_per_second']:.0f}",
        ]
        for row in rows.get("training", [])
        for epoch in row["epochs"]
    ]
    apart = [
        f"The weights are {row['distance']:.2g} apart, relative to their length."
        for row in rows.get("weights", [])
    ]
    return [_table(head, lines), *apart]


def _peers(rows: dict[str, Rows]) -> Sequence[str]:
    head = ["net", "attack", "by", "s", "this / satbench", "survive", "differ"]
    lines = [
        [
            row["net"],
            row["attack"],
            row["contestant"],
            f"{row['wall_seconds']:.3f}",
            f"{row['ratio']:.2f}",
            f"{row['survive']} of {row['images']}",
            str(row["differ"]),
        ]
        for row in rows.get("peers", [])
    ]
    missing = ""
    if lines and not any("torchattacks" in line for line in lines):
        missing = "torchattacks was not installed."
    return [_table(head, lines), missing]


_TABLES: dict[str, Callable[[dict[str, Rows]], Sequence[str]]] = {
    "tests": _tests,
    "agreement": _agreement,
    "deterministic": _deterministic,
    "ways": _ways,
    "training": _training,
    "peers": _peers,
}


def _table(head: list[str], lines: list[list[str]]) -> str:
    return table(head, lines) if lines else ""


def _number(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.2f}" if key in row else "–"


def _places(places: Sequence[int]) -> str:
    if not places:
        return "0"
    shown = ", ".join(map(str, places[:5]))
    return f"{len(places)} (image {shown}{', …' if len(places) > 5 else ''})"
