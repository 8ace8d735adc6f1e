"""Fill the templates of generated pages, which lie in `satbench/templates` (jinja2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def fill(
    template: str,
    values: Mapping[str, object],
    filters: Mapping[str, Callable[..., str]] | None = None,
) -> str:
    """Return a template of `satbench/templates`, filled with `values`.

    `filters` are functions that the template may apply to a value, by name.  A name that the
    template uses and nobody gave raises jinja2.UndefinedError.
    """
    environment = _environment().overlay()
    environment.filters = {**environment.filters, **(filters or {})}
    return environment.get_template(f"{template}.jinja").render(values)


@cache
def _environment() -> Environment:
    # Imported here: it costs 40 ms, and most commands write no page.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("satbench", "templates"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 (pages are markdown; `markdown.cell` escapes what is foreign)
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
