"""Fill the templates of generated pages in `satbench/templates` (jinja2).

`fill` is for markdown and plain text, `fill_html` for HTML, in which every value is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from satbench.core.text.characters import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def fill(
    template: str,
    values: Mapping[str, object],
    filters: Mapping[str, Callable[..., str]] | None = None,
) -> str:
    """Return a template of `satbench/templates`, filled with `values`.

    `filters` are functions that the template may apply to a value, by name.  A missing value raises
    jinja2.UndefinedError.
    """
    return _filled(_environment(), template, values, filters)


def fill_html(
    template: str,
    values: Mapping[str, object],
    filters: Mapping[str, Callable[..., object]] | None = None,
) -> str:
    """Return an HTML template of `satbench/templates`, filled with `values`; otherwise as `fill`.

    Every value is text: it is escaped for an element or a quoted attribute, and active characters
    are escaped too.  Only the template's own text, and `markupsafe.Markup` from a filter, is
    markup.
    """
    return _filled(_environment(is_html=True), template, values, filters)


def _filled(
    environment: Environment,
    template: str,
    values: Mapping[str, object],
    filters: Mapping[str, Callable[..., object]] | None,
) -> str:
    if filters:  # an overlay reads its templates again
        environment = environment.overlay()
        environment.filters = {**environment.filters, **filters}
    return environment.get_template(f"{template}.jinja").render(values)


@cache
def _environment(is_html: bool = False) -> Environment:
    # Imported here, because it costs 40 ms and most commands write no page.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("satbench", "templates"),
        undefined=StrictUndefined,
        # In markdown pages, `markdown.cell` escapes foreign text.
        autoescape=is_html,  # noqa: S701
        finalize=_as_text if is_html else None,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _as_text(value: object) -> object:
    from markupsafe import Markup

    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
