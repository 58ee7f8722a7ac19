"""What the parts of the page are made of; and a part that cannot be shown says why, in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from deployments.status_page import charts, facts
from deployments.status_page.markup import Markup, join, tag


def part(title: str, make: Callable[[], Markup], heading: str = "h3") -> Markup:
    """A part of the page; one that cannot be made says why, and the others stay whole."""
    try:
        return make()
    except facts.BROKEN as error:
        return broken(title, facts.said(error), heading)


def broken(title: str, why: str, heading: str = "h3") -> Markup:
    """What stands where a part cannot be shown."""
    told = tag("p", tag("strong", "This part cannot be shown. "), sentence(why))
    return tag("div", tag(heading, title), told, class_="broken")


def empty(title: str, *inside: Any) -> Markup:
    """What stands where there is nothing to show yet, and what would bring it."""
    return tag("figure", tag("figcaption", tag("h3", title)), tag("p", *inside, class_="empty"))


def figure(title: Any, says: Any, *inside: Any, is_bad: bool = False) -> Markup:
    """A picture under its title and what it says, with what belongs to it below."""
    caption = tag("figcaption", tag("h3", title), tag("p", says, class_="bad" if is_bad else None))
    return tag("figure", caption, *inside)


def link(url: str | None, *inside: Any) -> Markup:
    """A link, or the text alone where there is nothing to lead to."""
    return tag("a", *inside, href=url) if url else join(*inside)


def keys(*signs: tuple[str, str]) -> Markup:
    """What the signs of a picture mean."""
    return tag("ul", (tag("li", charts.key(kind), text) for kind, text in signs), class_="keys")


def words(lines: Iterable[Any]) -> Markup:
    """A list of sentences; nothing where there are none."""
    there = [tag("li", line) for line in lines]
    return tag("ul", there, class_="words") if there else join()


def opened(name: str, title: str, inside: Markup) -> Markup:
    """What is opened by whoever wants it; its name is its identity on the page."""
    return tag("details", tag("summary", title, id=f"{name}-title"), inside, id=name) if inside else join()


def table(name: str, title: str, caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markup:
    """A table, to be opened; by keyboard it can be scrolled where it is too wide."""
    if not rows:
        return join()
    top = tag("thead", tag("tr", (tag("th", text, scope="col") for text in head)))
    body = tag("tbody", (tag("tr", [tag("td", cell) for cell in row]) for row in rows))
    inside = tag("table", tag("caption", caption), top, body)
    return opened(name, title, tag("div", inside, class_="scroll", role="region", aria_label=caption, tabindex=0))


def sentence(text: str) -> str:
    """With a capital, unless it begins with a name, and a full stop."""
    first = text.strip().partition(" ")[0]
    capital = first[:1].upper() + first[1:] if first.rstrip(",:;").isalpha() else first
    return ended(text.strip().replace(first, capital, 1))


def ended(text: str) -> str:
    """With a full stop: what begins with a column's name."""
    return f"{text}{'' if text[-1] in '.!?' else '.'}" if text else ""
