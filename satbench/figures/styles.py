"""The colours and markers of all figures: a colour is an activation, a marker is a recipe.

Things that are no activation, such as attacks, are told apart by markers, dashes or lightness, in
`NEUTRAL` or in the colour of their activation.  Colours are Okabe and Ito's, and five more that
differ from them in lightness, which suits any colour vision.  Next to a colour there is always a
marker, a dash pattern or a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hls_to_rgb, rgb_to_hls
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

NEUTRAL = "#4A5560"
"""The colour of what has no activation, or one that is not known."""

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

    An activation is its spec, such as `celu(alpha=1.5)`.  The colour is the activation's, or
    `NEUTRAL` for an unknown one, and items of one colour differ in their markers.  If all items
    have one activation, each has its own shade of that colour, too.  If no activation is known,
    colours have no meaning: each of several items has its own, until there are no more.
    """
    told = [_name(activation) for activation, _ in things]
    names = [name if name in ACTIVATION_COLOURS else "" for name in told]
    if not any(names):
        if len(things) == 1:
            return [Look(NEUTRAL, 0)]
        return [Look(PALETTE[k % len(PALETTE)], k) for k in range(len(things))]
    if len(set(names)) == 1:
        shades = shades_of(ACTIVATION_COLOURS[names[0]], len(things))
        return [Look(shade, k, names[0]) for k, shade in enumerate(shades)]
    rests = [
        f"{activation.partition('(')[2] if name else activation} {rest}"
        for name, (activation, rest) in zip(names, things, strict=True)
    ]
    order = list(dict.fromkeys(rests))
    kinds = [order.index(rest) for rest in rests]
    if len(set(names)) == len(things):  # the colours are enough
        kinds = [0] * len(things)
    elif len(order) == len(things):  # no recipe recurs: number the items of each colour
        kinds = [names[:place].count(name) for place, name in enumerate(names)]
    return [
        Look(ACTIVATION_COLOURS.get(name, NEUTRAL), kind, name)
        for name, kind in zip(names, kinds, strict=True)
    ]


def shades_of(colour: str, n: int) -> list[str]:
    """Return `n` shades of a colour, from dark to light; for one, the colour itself.

    >>> shades_of("#0072B2", 1), len(set(shades_of("#0072B2", 12)))
    (['#0072B2'], 12)
    """
    if n == 1:
        return [colour]
    hue, _, saturation = rgb_to_hls(*(int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)))
    rgbs = [hls_to_rgb(hue, 0.16 + 0.48 * k / (n - 1), saturation) for k in range(n)]
    return ["#" + "".join(f"{round(255 * one):02x}" for one in rgb) for rgb in rgbs]


def tint_of(colour: str) -> str:
    """Return a pale tint of a colour, two thirds white.

    >>> tint_of("#000000")
    '#aaaaaa'
    """
    return "#" + "".join(f"{(int(colour[k : k + 2], 16) + 510) // 3:02x}" for k in (1, 3, 5))


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
