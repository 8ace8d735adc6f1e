"""The treatment of image files that their name states: rule for pixels and numbering of classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from satbench.data.image_files.classes import BY_NAME, BY_PLACE, Classes
from satbench.data.image_files.options import PathOptions
from satbench.data.image_files.pixels import KEYS, ResizeCrop


@dataclass(frozen=True)
class Treatment:
    """The rule for pixels, None if not stated, and the numbering of classes."""

    rule: ResizeCrop | None = None
    classes: Classes = BY_NAME

    @classmethod
    def of(cls, options: PathOptions) -> Treatment:
        """Read the treatment from the options of a data set. Raises SatbenchError."""
        has_rule = options.word or options.values.keys() & set(KEYS)
        rule = ResizeCrop.of(options) if has_rule else None
        return cls(rule, Classes(options.values.get("classes", "")))

    def like(self, other: Treatment) -> Treatment:
        """Return the same, completed by `other`."""
        classes = self.classes if self.classes.text else other.classes
        return Treatment(self.rule or other.rule, classes)

    def numbered_by_place(self) -> Treatment:
        """Return the same, with classes numbered by their places unless it states how."""
        return self if self.classes.text else replace(self, classes=BY_PLACE)

    @property
    def name(self) -> str:
        """The rule and the numbering of classes, for the name of a data set.

        Numbering by places is left out, because a number of classes other than 1000 implies it.
        """
        classes = "" if self.classes == BY_PLACE else Path(self.classes.text).name
        return ",".join(filter(None, (str(self.rule or ""), classes and f"classes={classes}")))

    @property
    def text(self) -> str:
        """The treatment as options of a data set; empty if nothing is stated."""
        classes = f"classes={self.classes.text}" if self.classes.text else ""
        return ",".join(filter(None, (str(self.rule or ""), classes)))


TOLD = (*KEYS, "classes")
"""The keys of a treatment."""
