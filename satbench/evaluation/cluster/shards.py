"""Shards: independent parts of a command, for the job arrays of a batch system.

The images of each model are cut into pieces, and a shard does every N-th piece.  It runs all stages
on its images, up to the first stage that selects among all images.  Its units are those of any run.
`merge_shards` collects them, does the remaining stages, and writes the records.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from satbench.attacks import expand, is_own_attack
from satbench.core.console import BarProgress
from satbench.core.errors import SatbenchError
from satbench.core.files import copy_file, remove_folder, sweep, write_text
from satbench.core.limits import whole_number
from satbench.core.progress.receiver import Progress
from satbench.core.schema import convert, parse_object, read_text
from satbench.core.threat import show_fraction
from satbench.engine.claims import ConcludedElsewhere, Member
from satbench.engine.contract import Selective
from satbench.engine.stage import Stage
from satbench.evaluation.api import evaluate_config
from satbench.evaluation.config import DEFAULT_BATCH, EvalConfig, eval_config
from satbench.evaluation.named_in_files import refuse_foreign, request_known
from satbench.evaluation.run import Finished
from satbench.evaluation.workers import Workers, helped
from satbench.models import FileOptions

FOLDER = ".shards"
"""Subfolder of the results, with a file for each finished shard."""

_SCHEMA = 1
_MOST = 100_000  # shards of one command at most


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `3/64`.  Raises SatbenchError for anything else.

        >>> Shard.parse("3/64")
        Shard(number=3, count=64)
        """
        number, slash, count = text.partition("/")
        one, all_of_them = whole_number(number), whole_number(count)
        if not slash or not one or not all_of_them or not one <= all_of_them <= _MOST:
            raise SatbenchError(
                f"expected --shard K/N with K from 1 to N, such as 3/64, and N at most {_MOST:,}; "
                f"got {text!r}"
            )
        return cls(one, all_of_them)


class InShard(Member):
    """A process that does the pieces of its shard, for model number `place` of the command."""

    concludes = False

    def __init__(self, shard: Shard, place: int, batch_size: int) -> None:
        self.shard, self.place, self.batch_size = shard, place, batch_size

    def stages(self, suite: Sequence[Stage]) -> Sequence[Stage]:
        """Return the stages before the first one that selects among all images."""
        for number, stage in enumerate(suite):
            if isinstance(stage.attack, Selective):
                return suite[:number]
        return suite

    def spans(self, suite: Sequence[Stage], n: int) -> Iterator[slice]:
        """Yield the pieces of this shard: whole blocks of images, and whole batches."""
        blocks = [stage.block for stage in suite if stage.block]
        size = math.lcm(*blocks) if blocks else self.batch_size
        pieces = -(-n // size)
        for piece in range(pieces):
            if (self.place * pieces + piece) % self.shard.count == self.shard.number - 1:
                yield slice(piece * size, min((piece + 1) * size, n))


@dataclass(frozen=True)
class ShardedModel:
    """The options of one evaluation of a sharded command."""

    model: str
    dataset: str
    norm: str
    eps: str
    attacks: list[str]
    n_examples: int | None
    seed: int
    batch_size: int
    device: str
    data_dir: str | None
    bpda: list[str]
    timeout: float | None
    allow_training_data: bool
    architecture: str | None = None
    activation: str | None = None
    preset: str | None = None
    normalize: str | None = None
    keys: str = ""
    drop_keys: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ShardFile:
    """The file of a finished shard: which shard it is, and of which command."""

    schema: int
    number: int
    count: int
    models: list[ShardedModel]


def run_shard(
    configs: Sequence[EvalConfig], shard: Shard, progress: Progress | None = None
) -> tuple[Path, list[Finished]]:
    """Do one shard of `configs`; return its file, and the records that already existed.

    The same call continues a stopped shard.  Raises SatbenchError for --until-interval, for
    --again, and for what an evaluation refuses.
    """
    for config in configs:
        if config.until is not None or config.fresh:
            raise SatbenchError(
                "--shard cuts the images into fixed parts: give it without --until-interval and "
                "--again"
            )
    found = []
    for place, config in enumerate(configs):
        try:
            member = InShard(shard, place, config.batch_size or DEFAULT_BATCH)
            found.append(evaluate_config(config, progress, shared=member))
        except ConcludedElsewhere:
            continue
    done = ShardFile(_SCHEMA, shard.number, shard.count, [_described(config) for config in configs])
    path = configs[0].out / FOLDER / f"{shard.number:06d}-of-{shard.count:06d}.json"
    write_text(path, json.dumps(asdict(done), indent=1) + "\n")
    return path, found


def merge_shards(
    folders: Sequence[Path],
    out: Path | None = None,
    workers: Workers | None = None,
    trust: Collection[str] = (),
    quiet: bool = False,
) -> list[Finished]:
    """Merge the shards in `folders` into `out`, by default the first; return the records.

    Stages that select among all images run here, by `workers`, because no shard can run them.
    Only `out` changes.  Names in the files of shards run no code and download nothing unless they
    are among `trust`.  Raises SatbenchError if a shard is missing or if the shards belong to
    different commands.
    """
    out = out or folders[0]
    sweep(out / FOLDER)
    shards = _whole(folders)
    configs = [_config(model, out, trust) for model in shards[0].models]
    for folder in folders:
        if folder.resolve() != out.resolve():
            _bring(folder, out)
    tasks = [(evaluate_config, (config,)) for config in configs]
    with helped(tasks, workers or Workers(None), quiet) as shared, BarProgress(quiet) as progress:
        finished = []
        for config in configs:
            progress.model(config.model.text)
            finished.append(evaluate_config(config, progress, shared=shared))
    if not any((out / ".runs" / one.record.identity[:16]).exists() for one in finished):
        remove_folder(out / FOLDER)  # else the same command again removes what the disk kept
    return finished


def _whole(folders: Sequence[Path]) -> list[ShardFile]:
    """Return the files of all shards.  Raises SatbenchError unless they belong to one command."""
    paths = [path for folder in folders for path in sorted((folder / FOLDER).glob("*.json"))]
    if not paths:
        raise SatbenchError(
            f"expected folders of `satbench eval … --shard K/N`, got none in "
            f"{', '.join(map(str, folders))}"
        )
    shards = [_read(path) for path in paths]
    first = shards[0]
    for path, shard in zip(paths, shards, strict=True):
        if (shard.count, shard.models) != (first.count, first.models):
            raise SatbenchError(
                f"expected shards of one command, got two commands: {paths[0]} and {path}"
            )
    missing = sorted(set(range(1, first.count + 1)) - {shard.number for shard in shards})
    if missing:
        more = ", …" if len(missing) > 10 else ""
        raise SatbenchError(
            f"{len(missing)} of {first.count} shards are missing, "
            f"{', '.join(map(str, missing[:10]))}{more}: run the same command with --shard "
            f"{missing[0]}/{first.count}"
        )
    return shards


def _read(path: Path) -> ShardFile:
    values = parse_object(read_text(path, "shard"), "shard", str(path))
    shard = convert(values, ShardFile, "shard", str(path))
    if shard.schema != _SCHEMA or not shard.models or not 1 <= shard.number <= shard.count <= _MOST:
        raise SatbenchError(f"expected a shard of schema {_SCHEMA}, got another in {path}")
    return shard


def _bring(folder: Path, out: Path) -> None:
    """Copy the units of runs to `out`, each atomically; existing ones are kept."""
    for path in sorted((folder / ".runs").rglob("*")):
        to = out / path.relative_to(folder)
        if path.suffix not in (".npz", ".json") or to.exists():
            continue
        copy_file(path, to)


def _described(config: EvalConfig) -> ShardedModel:
    file = config.model.options
    return ShardedModel(
        model=config.model.text,
        dataset=config.dataset,
        norm=config.threat.norm,
        eps=show_fraction(config.threat.eps),
        attacks=list(config.attacks),
        n_examples=config.n_examples,
        seed=config.seed,
        batch_size=config.batch_size,
        device=config.device,
        data_dir=str(config.data_dir) if config.data_dir else None,
        bpda=list(config.bpda),
        timeout=config.timeout,
        allow_training_data=config.allow_training_data,
        architecture=file.architecture,
        activation=file.activation,
        preset=file.preset,
        normalize=file.normalize,
        keys=file.keys,
        drop_keys=list(file.drop_keys),
    )


def _config(described: ShardedModel, out: Path, trust: Collection[str]) -> EvalConfig:
    """Return the config that a shard's file describes; names that would run code need trust."""
    request_known(described.model, "", trust)
    if described.dataset not in trust:
        refuse_foreign(described.dataset)
    for text in {*described.attacks, *described.bpda} - set(trust):
        own = text.endswith("=identity") if text in described.bpda else is_own_attack(expand(text))
        if not own:
            raise SatbenchError(
                f"a shard names {text!r}, which does not come with satbench: if you want it, give "
                "--trust with this name"
            )
    file = FileOptions(
        described.architecture,
        described.activation,
        described.preset,
        described.normalize,
        described.keys,
        tuple(described.drop_keys),
    )
    return eval_config(
        described.model,
        file=file,
        dataset=described.dataset,
        norm=described.norm,
        eps=described.eps,
        attacks=described.attacks,
        n_examples=described.n_examples,
        seed=described.seed,
        batch_size=described.batch_size,
        device=described.device,
        data_dir=Path(described.data_dir) if described.data_dir else None,
        out=out,
        bpda=described.bpda,
        timeout=described.timeout,
        allow_training_data=described.allow_training_data,
    )
