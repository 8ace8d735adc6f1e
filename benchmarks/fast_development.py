"""Develop the next version of `fast`: on nets and images that no table reports.

python benchmarks/fast_development.py nets       trains the development nets, of seeds 21 and 22
python benchmarks/fast_development.py greedy     chooses parts by marginal breaks per pass
python benchmarks/fast_development.py compare SUITE …   whole suites, part by part
python benchmarks/fast_development.py held-out   AutoAttack beside the new suite, on unseen nets

All of it goes on where it stopped: trainings, units of searches and records lie in --out.  Greedy
choice by breaks per pass is how Liu et al., 2023, build ensembles (AutoAE, arXiv:2211.12713).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from harness import finish, log, parser
from nets import DATASET, Net, Subject, development_nets, held_out_nets, trained
from rivals import Where, add_options, compared, page, records_of, rivals, settings_of

from satbench.attacks import attack_spec
from satbench.attacks.suites.suite_file import SuiteFile, SuitePart
from satbench.attacks.suites.suite_parts import noise_name, parts_of
from satbench.core.digests import digest_json
from satbench.data import Dataset, load_dataset
from satbench.engine.journal import RunStore
from satbench.engine.runner import BatchResult, Context
from satbench.engine.stage import Stage
from satbench.engine.suite_run import run_suite
from satbench.records.record import Record

FIRST = 5000  # of the development images; tables are about the first two thousand

CANDIDATES = (
    SuitePart("gama", "cosine-pgd(loss=gama,steps=20,start=corner)"),
    SuitePart("gama-softplus2", "cosine-pgd(loss=gama,steps=20,start=corner,backward=softplus(2))"),
    SuitePart("gama-softplus5", "cosine-pgd(loss=gama,steps=20,start=corner,backward=softplus(5))"),
    SuitePart("mifpe", "cosine-pgd(loss=mifpe,steps=20)"),
    SuitePart("mifpe-softplus5", "cosine-pgd(loss=mifpe,steps=20,backward=softplus(5))"),
    SuitePart("mifpe-best", "cosine-pgd(loss=mifpe,steps=20,step=eps/2,start=best)"),
    SuitePart("dlr", "cosine-pgd(loss=dlr,steps=20)"),
    SuitePart("dlr-best", "cosine-pgd(loss=dlr,steps=20,step=eps/2,start=best)"),
    SuitePart("margin", "cosine-pgd(loss=margin,steps=20)"),
    SuitePart("margin-best", "cosine-pgd(loss=margin,steps=20,step=eps/2,start=best)"),
    SuitePart("pma", "pma(steps=20,restarts=1)"),
    SuitePart("malt2", "malt(targets=2,steps=20)"),
    SuitePart("malt2-softplus10", "malt(targets=2,steps=20,backward=softplus(10))"),
    SuitePart("malt4", "malt(targets=4,steps=20)"),
    SuitePart("apgd-t", "apgd-t(targets=3)", weakest=0.05),
    SuitePart("square", "square-from-best(queries=400)", weakest=0.1),
    SuitePart("square-flagged", "square-flagged(queries=1000)"),
)


@dataclass
class Chain:
    """A journal of stages that were run one after the other, each in a folder of its own.

    The last stage is written to `store`; those before it are in `before` and are not run again.
    """

    before: Sequence[RunStore]
    store: RunStore

    def finished(self) -> Iterator[BatchResult]:
        """Return the units of all stages."""
        for store in (*self.before, self.store):
            yield from store.finished()

    def write(self, result: BatchResult) -> None:
        """Write a unit of the last stage down."""
        self.store.write(result)


@dataclass
class Search:
    """The greedy choice on some nets: `seeds` of noise each, on the same images."""

    subjects: Sequence[Subject]
    images: Dataset
    where: Where
    seeds: Sequence[int]
    candidates: Sequence[SuitePart]
    chosen: list[SuitePart] = field(default_factory=list)

    def step(self) -> dict[str, Any] | None:
        """Try every candidate behind the chosen parts; choose the one of most breaks per pass.

        None where no candidate breaks an image.
        """
        tried = {one.name: self._tried(one) for one in self.candidates}
        best = max(tried, key=lambda name: (tried[name]["breaks_per_kilopass"], name))
        if not tried[best]["broken"]:
            return None
        self.chosen.append(next(one for one in self.candidates if one.name == best))
        log(f"{len(self.chosen)}: {best}, {tried[best]['broken']} images")
        return {"chosen": best, "candidates": tried}

    def _tried(self, candidate: SuitePart) -> dict[str, Any]:
        by_net: dict[str, list[int]] = {}
        for subject in self.subjects:
            for seed in self.seeds:
                broken, passes = self._run(subject, seed, candidate)
                before = by_net.get(subject.info.name, [0, 0])
                by_net[subject.info.name] = [before[0] + broken, before[1] + passes]
        broken, passes = (sum(counts) for counts in zip(*by_net.values(), strict=True))
        return {
            "broken": broken,
            "passes": passes,
            "breaks_per_kilopass": 1000 * broken / max(passes, 1),
            "by_net": by_net,
        }

    def _run(self, subject: Subject, seed: int, candidate: SuitePart) -> tuple[int, int]:
        """Return how many images a candidate breaks of what is left of a net, and its passes."""
        parts = [*self.chosen, candidate]
        stages = _stages(parts)
        stores = [self._store(subject, seed, parts[:count]) for count in range(len(parts) + 1)]
        journal = Chain(stores[:-1], stores[-1])
        if len(parts) == 1:  # the clean pass
            run_suite(subject.module, (), self._context(Chain((), stores[0]), seed))
        run_suite(subject.module, stages, self._context(journal, seed))
        own = list(stores[-1].finished())
        broken = sum(int(one.broken.sum()) for one in own)
        return broken, sum(one.forwards + one.backwards for one in own)

    def _context(self, journal: Chain, seed: int) -> Context:
        return Context(self.images, self.where.threat, journal, seed=seed)

    def _store(self, subject: Subject, seed: int, parts: Sequence[SuitePart]) -> RunStore:
        what = {
            "net": subject.info.weights_digest,
            "images": self.images.digest,
            "threat": str(self.where.threat),
            "seed": seed,
            "parts": [[one.name, one.attack, one.weakest, one.sample] for one in parts],
        }
        store = RunStore(self.where.out / "greedy", digest_json(what), self.images.images.shape)
        store.folder.mkdir(parents=True, exist_ok=True)
        return store


def _stages(parts: Sequence[SuitePart]) -> list[Stage]:
    """Return parts as stages; the noise of each is keyed by its place too."""
    named = [replace(one, name=f"{number}-{one.name}") for number, one in enumerate(parts, 1)]
    made = parts_of("greedy", SuiteFile(1, "greedy", named), {})
    return [Stage("greedy", name, noise_name(name, attack), attack) for name, attack in made]


def marginal(record: Record) -> list[dict[str, Any]]:
    """Return what each stage of a suite that attacked an image broke and spent."""
    rows = []
    for stage in record.stages:
        spent = stage.forwards + stage.backwards + stage.source_forwards + stage.source_backwards
        if stage.attacked:
            rows.append(
                {
                    "part": stage.part,
                    "attacked": stage.attacked,
                    "broken": stage.broken,
                    "passes": spent,
                    "breaks_per_kilopass": 1000 * stage.broken / max(spent, 1),
                }
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    made = parser(__doc__ or "")
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("what", choices=("nets", "greedy", "compare", "held-out"))
    made.add_argument("suites", nargs="*", help="names or FILE.toml, for compare and held-out")
    made.add_argument("--nets", type=int, default=0, metavar="K", help="only K nets; 0: all")
    made.add_argument("--only", default="", metavar="TEXT", help="nets with TEXT in their names")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of noise")
    made.add_argument("--parts", type=int, default=8, help="that greedy chooses at most")
    made.add_argument("--candidates", nargs="+", metavar="NAME", help="of greedy; default: all")
    add_options(made, 0, "runs/fast-development")
    options = made.parse_args(arguments)
    for suite in options.suites:
        attack_spec(suite)
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = {
        "nets": _train,
        "greedy": _choose,
        "compare": _compare,
        "held-out": _hold_out,
    }[options.what](options)
    shown = {"what": options.what, "n": options.n, "settings": settings_of(options)}
    finish(rows, options.json, **shown)


def _train(options: argparse.Namespace) -> list[dict[str, Any]]:
    return [
        {"net": subject.info.name, "kind": subject.kind, "weights": subject.info.weights_digest}
        for subject in _subjects(_development(options), options)
    ]


def _choose(options: argparse.Namespace) -> list[dict[str, Any]]:
    names = options.candidates or [one.name for one in CANDIDATES]
    known = {one.name: one for one in CANDIDATES}
    if unknown := sorted(set(names) - known.keys()):
        raise SystemExit(f"expected candidates of {', '.join(known)}, got {unknown[0]}")
    where = _where(options)
    search = Search(
        list(_subjects(_development(options), options)),
        where.images,
        where,
        options.seeds,
        [known[name] for name in names],
    )
    steps: list[dict[str, Any]] = []
    while len(steps) < options.parts and (step := search.step()):
        steps.append(step)
        if options.json:  # so that a long search can be read on its way
            finish(steps, options.json, what="greedy", n=len(where.images))
    for step in steps:
        found = step["candidates"][step["chosen"]]
        print(f"{step['chosen']}: {found['broken']} images, {found['passes']:,} passes")
    return steps


def _compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    suites = options.suites or ["fast(version=2)", "fast"]
    rows = []
    for subject in _subjects(_development(options), options):
        for seed in options.seeds:
            records = records_of(subject, suites, replace(_where(options), seed=seed))
            about = {"net": subject.info.name, "kind": subject.kind, "seed": seed}
            for row, record in zip(compared(records), records.values(), strict=True):
                rows.append({**about, **row, "parts": marginal(record)})
                left, spent = row["robust"], row["passes"] / record.n
                print(
                    f"{subject.info.name}, seed {seed}: {row['suite']} {left}, {spent:,.0f} passes"
                )
    print(page(rows))
    return rows


def _hold_out(options: argparse.Namespace) -> list[dict[str, Any]]:
    suites = ["autoattack", *(options.suites or ["fast"])]
    images = load_dataset(DATASET, "test", options.n or 2000)
    where = Where(images, options.threat, options.out, options.seed)
    nets = _named(held_out_nets(options.nets or 5), options.only)
    rows = rivals(_subjects(nets, options), suites, where)
    print(page(rows))
    return rows


def _development(options: argparse.Namespace) -> list[Net]:
    nets = _named(development_nets(), options.only)
    return nets[: options.nets] if options.nets else nets


def _named(nets: Sequence[Net], only: str) -> list[Net]:
    chosen = [net for net in nets if only in net.name]
    if not chosen:
        raise SystemExit(f"expected --only as a part of a net's name, got {only!r}")
    return chosen


def _subjects(nets: Sequence[Net], options: argparse.Namespace) -> Iterator[Subject]:
    for net in nets:
        log(f"training or finding {net.name}")
        yield trained(net, options.out / "nets", **settings_of(options))


def _where(options: argparse.Namespace) -> Where:
    """Return the development images: those from `FIRST` on."""
    n = options.n or 500
    images = load_dataset(DATASET, "test", FIRST + n)
    rows = np.arange(FIRST, FIRST + n)
    return Where(images.taken(rows), options.threat, options.out, options.seed)


if __name__ == "__main__":
    main()
