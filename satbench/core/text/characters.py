"""Active characters: control codes, marks of writing direction, joiners."""

from __future__ import annotations

import unicodedata

_ACTIVE = {
    "Cc",  # control codes: escape, bell, backspace, carriage return, …
    "Cf",  # marks of writing direction, joiners, soft hyphens, byte order marks, tags
    "Cs",  # halves of a surrogate pair, which cannot be written to a file
    "Zl",  # line separator
    "Zp",  # paragraph separator
}


def visible(text: str, *, keep: str = "") -> str:
    r"""Return text whose active characters are escaped as in a Python string.

    Those in `keep` are not, such as line ends if the text has several lines.

    >>> visible("net\x1b[31m\u202etxt")
    'net\\x1b[31m\\u202etxt'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode()
        if unicodedata.category(letter) in _ACTIVE and letter not in keep
        else letter
        for letter in text
    )
