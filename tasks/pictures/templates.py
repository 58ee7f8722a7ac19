"""Templates of HTML, SVG and Markdown, each beside the module that fills it; a missing value is an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from tasks.ground import settings
from tasks.pictures import formatting


def _plain(value: Any) -> Any:
    """As a template writes a value: a coordinate with one decimal, nothing for None."""
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return "" if value is None else value


ENVIRONMENT = Environment(
    loader=FileSystemLoader(settings.OWN),
    autoescape=select_autoescape(("html", "svg")),
    undefined=StrictUndefined,
    finalize=_plain,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
ENVIRONMENT.filters.update({function.__name__: function for function in formatting.FILTERS})


def render(name: str, **values: Any) -> Markup:
    """Fill in a template, which is named by its path in the project.

    Raises:
        TemplateError: a value that it names is missing.
    """
    return Markup(ENVIRONMENT.get_template(name).render(values))  # noqa: S704 - escaped by the template


def markdown(name: str, **values: Any) -> str:
    """As `render`, of a template of Markdown: nothing is escaped."""
    return ENVIRONMENT.get_template(name).render(values).rstrip() + "\n"


def stand_alone(
    title: str, *panels: tuple[str, Markup, float], is_bad: bool = False, notes: Sequence[str] = ()
) -> bytes:
    """An SVG file of pictures below each other, with the style that a page would bring.

    A panel has a caption, a picture and its height; `is_bad` gives the title the colour of trouble; notes stand below.
    """
    values = {"title": title, "panels": panels, "is_bad": is_bad, "notes": notes}
    return render("tasks/pictures/stand_alone.svg", **values).encode()
