"""Text in LaTeX and BibTeX: names without commands."""

from __future__ import annotations

import re

from satbench.core.text.characters import visible

_LETTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def latex(text: str) -> str:
    r"""Return text from a file for LaTeX, escaped so that it runs nothing.

    >>> latex(r"\input{/etc/passwd} 5%")
    '\\textbackslash{}input\\{/etc/passwd\\} 5\\%'
    """
    return "".join(_LETTERS.get(letter, letter) for letter in visible(" ".join(text.split())))


def bibtex(text: str) -> str:
    r"""Return text from a file for a field of BibTeX, which counts escaped braces too.

    >>> bibtex("a {b")
    'a \\textbraceleft{}b'
    """
    words = {r"\{": r"\textbraceleft{}", r"\}": r"\textbraceright{}"}
    return "".join(words.get(part, part) for part in re.split(r"(\\[{}])", latex(text)))
