"""Files of weights by their path: those that say what they are, and those that have to be told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from satbench.core.errors import SatbenchError
from satbench.model_zoo.card import Card, card_of_digest, card_within, read_card
from satbench.model_zoo.known import card_of_weights, is_safetensors
from satbench.models._file_options import FileOptions
from satbench.models._foreign import build_for
from satbench.models._loaded import LoadedModel, describe_module
from satbench.models.carded import card_info, check_agrees


def card_of_file(text: str, told: bool = False) -> Card | None:
    """Return the card of `PATH` or `PATH#COPY`: the one within it, else that of its weights.

    Weights of the shipped models and of the user's are known by their digest.  It imports torch for
    pickles, and leaves these to `load_file` where the user has `told` what they are.  Raises
    SatbenchError for a card that is malformed, and for a pickle that cannot be read.
    """
    place, _, copy = text.partition("#")
    path = Path(place)
    if card := card_within(path):
        return card
    return None if told and not is_safetensors(path) else card_of_weights(path, copy)


def card_of_run(folder: Path) -> tuple[Card, Path]:
    """Return the card that a finished run of `satbench train` left in its folder, and its weights.

    Raises SatbenchError for a folder of something else, and for a run that goes on.
    """
    cards = [path for path in sorted(folder.glob("*.json")) if path.name != "config.json"]
    stems = {path.stem for path in cards}
    # Of one run, the cards of its best and its last epoch stand beside that of what it handed on.
    cards = [path for path in cards if _without_epoch(path.stem) not in stems]
    named = [path for path in cards if path.stem == folder.resolve().name]
    if len(found := named or cards) == 1:
        card = read_card(found[0])
        return card, folder / card.weights
    if found:
        shown = ", ".join(path.name for path in found)
        raise SatbenchError(f"the folder {folder} holds several cards ({shown}): name one of them")
    if (best := folder / "best.safetensors").is_file():
        raise SatbenchError(
            f"the run in {folder} has not come to its end: train it to the end, or name the best "
            f"weights so far, {best}"
        )
    raise SatbenchError(
        f"expected the folder of a run of `satbench train` with its card, got {folder}, which has "
        "none"
    )


def _without_epoch(stem: str) -> str:
    """Return `NAME` of `NAME-best` or `NAME-last`, nothing of others."""
    name, _, epoch = stem.rpartition("-")
    return name if epoch in ("best", "last") else ""


def load_file(text: str, options: FileOptions, classes: int, exactly: bool = True) -> LoadedModel:
    """Build the network that `options` tell of and load `PATH` or `PATH#COPY` into it, strictly.

    Unless `exactly`, the file says how many classes there are, at least `classes`.  What neither
    the file nor the options tell is assumed, and told in `ModelInfo.assumed`.  Raises SatbenchError
    for unknown parts, weights that are missing, corrupt, unsafe, or that do not fit, and where the
    weights are known to be of another network.
    """
    from satbench.model_zoo.checkpoints import picked, read_state
    from satbench.model_zoo.weights import digest_weights

    place, _, copy = text.partition("#")
    path = Path(place)
    state = picked(read_state(path, copy), options.keys, options.drop_keys, path)
    built = build_for(state, options, path, classes, exactly)
    name = path.stem + (f"#{copy}" if copy else "")
    if known := card_of_digest(digest_weights(built.module)):
        spec = built.architecture.partition(" normalised by ")[0]
        check_agrees(known, FileOptions(spec, built.activation), text)
        return LoadedModel(built.module, card_info(known, "file"), known)
    info = replace(
        describe_module(built.module, name, "file"),
        architecture=built.architecture,
        activation=built.activation,
        assumed=built.assumed,
    )
    return LoadedModel(built.module, info, None)
