"""What the name of a set of image files says of them: the rule for pixels, and the classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from satbench.data.image_files.classes import BY_NAME, BY_PLACE, Classes
from satbench.data.image_files.options import PathOptions
from satbench.data.image_files.pixels import KEYS, ResizeCrop


@dataclass(frozen=True)
class Treatment:
    """What is done to the pixels, None where nobody says, and how the classes are numbered."""

    rule: ResizeCrop | None = None
    classes: Classes = BY_NAME

    @classmethod
    def of(cls, options: PathOptions) -> Treatment:
        """Read what is said among the options of a data set.  Raises SatbenchError."""
        told = options.word or options.values.keys() & set(KEYS)
        rule = ResizeCrop.of(options) if told else None
        return cls(rule, Classes(options.values.get("classes", "")))

    def like(self, other: Treatment) -> Treatment:
        """Return the same with what `other` says where this one says nothing."""
        classes = self.classes if self.classes.text else other.classes
        return Treatment(self.rule or other.rule, classes)

    def numbered_by_place(self) -> Treatment:
        """Return the same, its classes numbered by their places unless it says how."""
        return self if self.classes.text else replace(self, classes=BY_PLACE)

    @property
    def name(self) -> str:
        """What was done, for the name of a data set: the rule, and how classes were numbered.

        Places of folders are not told, for a count of classes other than 1000 tells them.
        """
        classes = "" if self.classes == BY_PLACE else Path(self.classes.text).name
        return ",".join(filter(None, (str(self.rule or ""), classes and f"classes={classes}")))

    @property
    def text(self) -> str:
        """What is said, as options of a data set; empty if nothing is."""
        classes = f"classes={self.classes.text}" if self.classes.text else ""
        return ",".join(filter(None, (str(self.rule or ""), classes)))


TOLD = (*KEYS, "classes")
"""The keys of what may be said."""
