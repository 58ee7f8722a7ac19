"""Parts of the page: each is filled in by itself, and one that cannot be shown says why in its place."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from jinja2 import TemplateError
from markupsafe import Markup

from deployments.status_page import facts
from tasks.pictures import templates

P = ParamSpec("P")

FOLDER = "deployments/status_page/templates"


def fill(name: str, **values: Any) -> Markup:
    """Fill in a template of the page."""
    return templates.render(f"{FOLDER}/{name}", **values)


def part(title: str, heading: str = "h3") -> Callable[[Callable[P, Markup]], Callable[P, Markup]]:
    """Decorate a function that makes a part: what its facts break is shown under this title instead."""

    def decorate(make: Callable[P, Markup]) -> Callable[P, Markup]:
        @wraps(make)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> Markup:
            try:
                return make(*args, **kwargs)
            except (*facts.BROKEN, TemplateError) as error:
                return broken(title, facts.reason(error), heading)

        return guarded

    return decorate


def empty(title: str, text: str) -> Markup:
    """What stands where there is nothing to show yet."""
    return fill("empty.html", title=title, text=text)


def broken(title: str, why: str, heading: str = "h3") -> Markup:
    """What stands where a part cannot be shown."""
    return fill("broken.html", title=title, why=why, heading=heading)
