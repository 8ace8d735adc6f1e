"""The colours and markers of all figures: a colour is an activation, a marker is a recipe.

Colours are Okabe and Ito's, and five more that differ from them in lightness, which suits any
colour vision.  Next to a colour there is always a marker, a dash pattern or a name.
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
    """How one item is drawn: its recipe's number selects its marker and its dash pattern.

    `activation` is empty if the colour does not stand for an activation.
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
    """Return the looks of items, each given as an activation and the rest of its description.

    An activation is its spec, such as `celu(alpha=1.5)`.  If the activations are known and not all
    the same, the colour is the activation's, and items of one colour differ in their markers.
    Otherwise every item has its own colour and marker, until there are no more.
    """
    names = [_name(activation) for activation, _ in things]
    if len(set(names)) < 2 or not set(names) <= set(ACTIVATION_COLOURS):
        return [Look(PALETTE[k % len(PALETTE)], k) for k in range(len(things))]
    rests = [f"{activation.partition('(')[2]} {rest}" for activation, rest in things]
    order = list(dict.fromkeys(rests))
    kinds = [order.index(rest) for rest in rests]
    if len(set(names)) == len(things):  # the colours are enough
        kinds = [0] * len(things)
    elif len(order) == len(things):  # no recipe recurs: number the items of each colour
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
    """Return the activation's name in a spec, or in a text for people such as `SmoothReLU(2)`."""
    plain = _letters(activation.partition("(")[0])
    return next((name for name in ACTIVATION_COLOURS if _letters(name) == plain), plain)


def _letters(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())
