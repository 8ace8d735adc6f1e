"""What the README says of the studies is what their pages say."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "### Smooth activations, at this scale", "### The studies"
EFFECT = re.compile(r"[+−]\d+\.\d \[[+−]\d+\.\d, [+−]\d+\.\d\]")


def test_every_effect_in_the_summary_stands_on_the_page_that_it_names() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    summary = readme[readme.index(BEGIN) : readme.index(END)]
    said = 0
    for point in summary.split("\n- ")[1:]:
        pages = [ROOT / page for page in re.findall(r"\((docs/studies/[\w-]+\.md)\)", point)]
        text = "".join(page.read_text(encoding="utf-8") for page in pages)
        effects = EFFECT.findall(point)
        assert pages
        assert [] == [effect for effect in effects if effect not in text]
        said += len(effects)

    assert said > 10
