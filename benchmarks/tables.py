"""Results as markdown tables.  The same result gives the same bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

Result = dict[str, Any]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a markdown table; the first column is aligned left, the others right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def pgd_table(result: Result) -> str:
    """Return one table per net, kind and number of steps."""
    head = ["", "CPU s", "CPU ratio", "(lowest–highest)", "wall s", "wall ratio"]
    head += ["F / image", "B / image", "survive", "differ"]
    groups: dict[str, list[list[str]]] = {}
    for row in result["rows"]:
        title = (
            f"**{row['net']} net, {row['kind']}** ({row['threat']}), PGD-{row['steps']}, "
            f"{row['images']} images"
        )
        low, high = row["cpu_ratio_range"]
        groups.setdefault(title, []).append(
            [
                row["contestant"],
                f"{row['cpu_seconds']:.2f}",
                f"**{row['cpu_ratio']:.2f}**",
                f"{low:.2f}–{high:.2f}",
                f"{row['wall_seconds']:.2f}",
                f"{row['wall_ratio']:.2f}",
                f"{row['forwards'] / row['images']:.1f}",
                f"{row['backwards'] / row['images']:.1f}",
                str(row["survivors"]),
                str(row["differ"]),
            ]
        )
    shown = [f"{title}\n\n{table(head, rows)}" for title, rows in groups.items()]
    return "\n\n".join([*shown, *aims_of(result)])


class Aim(NamedTuple):
    """The least CPU ratio of a contestant on the nets that match `net` and `kind`; "" is any."""

    text: str
    contestant: str
    net: str
    kind: str
    least: float


AIMS = (
    Aim(
        "1.2 times as fast as torchattacks on robust small nets",
        "torchattacks",
        "small",
        "robust",
        1.2,
    ),
    Aim("as fast as torchattacks everywhere", "torchattacks", "", "", 1.0),
    Aim("4 times as fast as torchattacks on weak nets", "torchattacks", "", "weak", 4.0),
    Aim("at most 1.3 times the early-stopping loop", "early-stopping loop", "", "", 1 / 1.3),
)


def aims_of(result: Result) -> list[str]:
    """Return a sentence for each aim of PGD through `evaluate`: met, or in which cases not."""
    found = []
    for aim in AIMS:
        rows = [
            row
            for row in result["rows"]
            if row["contestant"] == aim.contestant
            and aim.net in ("", row["net"])
            and aim.kind in ("", row["kind"])
        ]
        missed = [
            f"{row['net']} net, {row['kind']}, {row['images']} images: {row['cpu_ratio']:.2f}"
            for row in rows
            if row["cpu_ratio"] < aim.least
        ]
        if rows:
            verdict = f"missed in {len(missed)} of {len(rows)} cases ({'; '.join(missed)})"
            found.append(f"Aim: {aim.text}: {verdict if missed else 'met'}.")
    return found


def before_table(result: Result) -> str:
    """Return a row per benchmark: this checkout compared with an earlier one."""
    head = ["", f"{result['commits']['before']}, CPU s", f"{result['commits']['now']}, CPU s"]
    head += ["ratio", "(lowest–highest)", "peer", "its ratio", "peer / satbench, before", "now"]
    rows = []
    for row in result["rows"]:
        middle, low, high = row["ratio"]
        rows.append(
            [
                row["benchmark"],
                f"{row['before_seconds']:.3g}",
                f"{row['now_seconds']:.3g}",
                f"**{middle:.2f}**",
                f"{low:.2f}–{high:.2f}",
                row["peer"],
                f"{row['peer_ratio'][0]:.2f}",
                f"{row['before_beside_peer']:.2f}",
                f"{row['now_beside_peer']:.2f}",
            ]
        )
    return table(head, rows)


def peak_table(result: Result) -> str:
    """Return the convolutions' rates, then the nets' shares of the best one."""
    shapes = [
        [row["shape"], row["layout"], f"{row['forward']:.1f}", f"{row['backward']:.1f}"]
        for row in result["shapes"]
    ]
    nets = [
        [
            f"{row['net']} net, {row['what']}",
            str(row["images"]),
            f"{row['flop_per_step'] / 1e6:,.1f}",
            f"{row['gflops']:.1f}",
            f"**{row['share']:.0%}**",
        ]
        for row in result["rows"]
    ]
    head = ["PGD, no image leaves", "images", "MFLOP / image and step", "GFLOP/s", "of the peak"]
    return (
        f"Peak: **{result['peak']:.1f} GFLOP/s**, the best of these convolutions.\n\n"
        + table(["convolution", "layout", "forward GFLOP/s", "input gradient GFLOP/s"], shapes)
        + "\n\n"
        + table(head, nets)
    )


def memory_table(result: Result) -> str:
    """Return the peak memory against the number of images."""
    head = ["model, attack", "images", "peak MiB", "growth MiB"]
    head += ["images, float32 MiB", "broken", "witnesses MiB"]
    rows = [
        [
            row["case"],
            f"{row['images']:,}",
            f"{row['peak_mib']:.1f}",
            f"**{row['growth_mib']:+.1f}**",
            f"{row['images_mib']:.1f}",
            f"{row['broken']:,}",
            f"{row['witnesses_mib']:.1f}",
        ]
        for row in result["rows"]
    ]
    return table(head, rows)


def autoattack_table(result: Result) -> str:
    """Return one table per kind of model, with two lines per part."""
    head = ["part", "by", "CPU s", "CPU ratio", "(lowest–highest)", "wall s", "wall ratio"]
    head += ["F / image", "B / image", "survive", "differ"]
    groups: dict[str, list[list[str]]] = {}
    for row in result["rows"]:
        title = f"**Small net, {row['kind']}** ({row['threat']}), {row['images']} images"
        low, high = row["cpu_ratio_range"]
        groups.setdefault(title, []).append(
            [
                row["part"],
                row["contestant"],
                f"{row['cpu_seconds']:.2f}",
                f"**{row['cpu_ratio']:.2f}**",
                f"{low:.2f}–{high:.2f}",
                f"{row['wall_seconds']:.2f}",
                f"{row['wall_ratio']:.2f}",
                f"{row['forwards'] / row['images']:,.1f}",
                f"{row['backwards'] / row['images']:,.1f}",
                str(row["survivors"]),
                str(row["differ"]),
            ]
        )
    return "\n\n".join(f"{title}\n\n{table(head, rows)}" for title, rows in groups.items())


def warm_table(result: Result) -> str:
    """Return a line per activation: by itself, and in a forward and all gradients of a net."""
    shape = "×".join(map(str, result["shape"]))
    head = ["activation", f"by itself, {shape}: before, ms", "after, ms", "ratio"]
    head += [f"in `{result['net']}`: before, ms", "after, ms", "ratio", "same bits"]
    rows = []
    for row in result["rows"]:
        cells = [f"`{row['activation']}`"]
        for cold, warm in zip(row["cold"], row["warm"], strict=True):
            cells += [f"{1e3 * cold:.2f}", f"{1e3 * warm:.2f}", f"**{cold / warm:.2f}**"]
        rows.append([*cells, "yes" if row["same_bits"] else "no"])
    return table(head, rows)


def noise_table(result: Result) -> str:
    """Return a line for each way to draw a step's noise."""
    head = ["", "CPU s a step", "CPU ratio", "(lowest–highest)"]
    rows = []
    for row in result["rows"]:
        low, high = row["cpu_ratio_range"]
        cells = [
            f"{row['cpu_seconds']:.2f}",
            f"**{row['cpu_ratio']:.2f}**",
            f"{low:.2f}–{high:.2f}",
        ]
        rows.append([row["contestant"], *cells])
    return table(head, rows)


def accumulate_table(result: Result) -> str:
    """Return lines for distances of weights and for accuracies; a column is a number of parts."""
    size = result["batch"]
    parts = list(dict.fromkeys(row["parts"] for row in result["rows"]))
    head = ["", f"at once, {size}", *(f"{n} parts of {size // n}" for n in parts)]
    lines: dict[str, list[str]] = {}
    for row in result["rows"]:
        text = f"{row['relative']:.2g} (largest difference {row['greatest']:.2g})"
        lines.setdefault(f"weights after {result['steps']} steps, {row['net']}", ["0"]).append(text)
    for name, title in (("clean", "clean accuracy"), ("pgd10", "accuracy under PGD-10")):
        title = f"{title} after {result['epochs']} epochs, batch-norm"
        lines[title] = [f"{row[name]:.1%}" for row in result["accuracies"]]
    return table(head, [[line, *cells] for line, cells in lines.items()])


def train_table(result: Result) -> str:
    """Return one table per net, with a line per training loop."""
    head = ["", "images / CPU s", "CPU s", "CPU ratio", "(lowest–highest)", "wall s", "wall ratio"]
    head += ["GFLOP/s", "of the peak", "first loss"]
    groups: dict[str, list[list[str]]] = {}
    of: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        title = (
            f"**{row['net'].capitalize()} net** (`{row['architecture']}`, {row['activation']}), "
            f"{row['images']:,} images in batches of {row['batch_size']}, "
            f"{row['flop_per_image'] / 1e6:,.1f} MFLOP / image"
        )
        low, high = row["cpu_ratio_range"]
        of.setdefault(title, []).append(row)
        groups.setdefault(title, []).append(
            [
                row["contestant"],
                f"{row['images_per_cpu_second']:,.4g}",
                f"{row['cpu_seconds']:.2f}",
                f"**{row['cpu_ratio']:.2f}**",
                f"{low:.2f}–{high:.2f}",
                f"{row['wall_seconds']:.2f}",
                f"{row['wall_ratio']:.2f}",
                f"{row['gflops']:.1f}",
                f"{row['share']:.0%}",
                f"{row['loss']:.3f}",
            ]
        )
    tables = "\n\n".join(
        f"{title}\n\n{table(head, rows)}\n\n{_beside(of[title])}" for title, rows in groups.items()
    )
    return f"Peak: **{result['peak']:.1f} GFLOP/s**, as `peak.py` measures it.\n\n{tables}"


def _beside(rows: list[dict[str, Any]]) -> str:
    """Return how much faster satbench is than the loops, in each precision, and the limit."""
    own = {row["contestant"]: row for row in rows if row["contestant"].startswith("satbench")}
    others = [row["cpu_seconds"] for row in rows if row["contestant"] not in own]
    said = [
        f"**{min(others) / row['cpu_seconds']:.2f} to {max(others) / row['cpu_seconds']:.2f} "
        f"times** in {name.partition(', ')[2] or 'float32'}"
        for name, row in own.items()
    ]
    return (
        f"satbench is {', and '.join(said)} as fast as the {len(others)} loops (median CPU "
        "seconds).  A float32 loop that did nothing but convolutions at the peak rate "
        f"would be {1 / own['satbench']['share']:.2f} times as fast as satbench's."
    )


def workers_table(result: Result) -> str:
    """Return a line for each way to run the same evaluations."""
    head = ["", "wall s", "(lowest–highest)", "speed-up"]
    rows = []
    for row in result["rows"]:
        low, high = row["range"]
        rows.append(
            [
                row["way"],
                f"{row['seconds']:.1f}",
                f"{low:.1f}–{high:.1f}",
                f"**{row['speed_up']:.2f}**",
            ]
        )
    return table(head, rows)
