"""Text in LaTeX: names that can be read as no command."""

from __future__ import annotations

from satbench.core.text.characters import visible

_LETTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def latex(text: str) -> str:
    r"""Return text from a file such that LaTeX sets it and runs nothing.

    >>> latex(r"\input{/etc/passwd} 5%")
    '\\textbackslash{}input\\{/etc/passwd\\} 5\\%'
    """
    return "".join(_LETTERS.get(letter, letter) for letter in visible(" ".join(text.split())))
