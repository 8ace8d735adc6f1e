"""What colours and markers mean, in every figure: a colour is an activation, a marker a recipe.

Colours are Okabe and Ito's, and five more that people with any colour vision tell from them by
lightness; next to a colour there is always a marker, a dash pattern or a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ACTIVATION_COLOURS = {
    "relu": "#0072B2",
    "silu": "#D55E00",
    "gelu": "#009E73",
    "softplus": "#E69F00",
    "elu": "#CC79A7",
    "celu": "#882255",
    "smooth-relu": "#56B4E9",
    "mish": "#000000",
    "leaky-relu": "#6A51A3",
    "parametric-softplus": "#8C6D31",
    "pssilu": "#7F7F7F",
}
"""The colour of each activation, whatever its parameters."""

PALETTE = tuple(ACTIVATION_COLOURS.values())
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">", "p", "h")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


@dataclass(frozen=True)
class Look:
    """How one thing is drawn: the numbers of its marker and dash pattern are those of its recipe.

    `activation` is empty where the colour is only the thing's own.
    """

    colour: str
    kind: int
    activation: str = ""

    @property
    def marker(self) -> str:
        """The marker of the recipe."""
        return MARKERS[self.kind % len(MARKERS)]

    @property
    def dash(self) -> str | tuple[int, tuple[int, ...]]:
        """The dash pattern of the recipe."""
        return DASHES[self.kind % len(DASHES)]


def looks_of(things: Sequence[tuple[str, str]]) -> list[Look]:
    """Return how things are drawn that are an activation and whatever else they are.

    An activation is its spec, such as `celu(alpha=1.5)`.  Where the activations are known and not
    all the same, the colour is the activation's, and things of one colour differ in their markers.
    Else every thing has a colour and a marker of its own, as long as there are some.
    """
    names = [_name(activation) for activation, _ in things]
    if len(set(names)) < 2 or not set(names) <= set(ACTIVATION_COLOURS):
        return [Look(PALETTE[k % len(PALETTE)], k) for k in range(len(things))]
    rests = [f"{activation.partition('(')[2]} {rest}" for activation, rest in things]
    order = list(dict.fromkeys(rests))
    kinds = [order.index(rest) for rest in rests]
    if len(set(names)) == len(things):  # the colours tell all apart
        kinds = [0] * len(things)
    elif len(order) == len(things):  # nothing recurs: count the things of each colour
        kinds = [names[:place].count(name) for place, name in enumerate(names)]
    return [
        Look(ACTIVATION_COLOURS[name], kind, name) for name, kind in zip(names, kinds, strict=True)
    ]


def activation_colour(activation: str) -> str | None:
    """Return the colour of an activation, whatever its parameters; None for an unknown one.

    >>> activation_colour("celu(alpha=1.5)") == activation_colour("CELU")
    True
    """
    return ACTIVATION_COLOURS.get(_name(activation))


def _name(activation: str) -> str:
    """Return the name that a spec, or a text for people such as `SmoothReLU(2)`, is of."""
    plain = _letters(activation.partition("(")[0])
    return next((name for name in ACTIVATION_COLOURS if _letters(name) == plain), plain)


def _letters(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())
