"""HTML and SVG made of functions: a text is escaped wherever it is put, unless it is markup already."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from html import escape
from typing import Any

VOID = {"br", "link", "meta"}


class Markup(str):
    """HTML that is ready, and is not escaped again."""

    __slots__ = ()


def tag(name: str, /, *inside: Any, **attributes: Any) -> Markup:
    """An element. `class_` is class, `aria_label` is aria-label; an attribute that is None or False is left out."""
    given = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{name}{given}>" if name in VOID else f"<{name}{given}>{join(*inside)}</{name}>")


def join(*parts: Any) -> Markup:
    """Texts, numbers, markup, and lists of them, one after the other; None is nothing."""
    return Markup("".join(_pieces(parts)))


def _pieces(parts: Iterable[Any]) -> Iterable[str]:
    for part in parts:
        if isinstance(part, Markup):
            yield str(part)
        elif isinstance(part, str):
            yield escape(part, quote=False)
        elif isinstance(part, Iterable):
            yield from _pieces(part)
        elif part is not None:
            yield escape(_plain(part), quote=False)


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _plain(value: Any) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


# ── numbers and times, as a person reads them ─────────────────────────────────────────────────────


def number(value: float) -> str:
    """Four digits that count."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 10_000 else f"{value:.4g}"


def short(value: float) -> str:
    """Three digits that count: for the ends of an interval, and beside a picture."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def many(count: float, what: str, plural: str = "") -> str:
    """1 row, 2 rows."""
    return f"{count:,.0f} {what if count == 1 else plural or what + 's'}"


def read_time(text: str) -> datetime:
    """A time as it was written down; one without a zone is taken as UTC, so that all can be compared.

    Raises:
        ValueError: it is no time.
    """
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def day(when: str | date | datetime) -> str:
    """21 Nov 2026."""
    found = read_time(when) if isinstance(when, str) else when
    return f"{found.day} {found:%b %Y}"


def days(since: str, until: str) -> str:
    """7 to 13 Oct 2013. A window that ends at midnight ends with the day before."""
    first, last = read_time(since), read_time(until)
    if last > first and last.time() == time():
        last -= timedelta(microseconds=1)
    if first.date() == last.date():
        return day(first)
    if first.year != last.year:
        return f"{day(first)} to {day(last)}"
    return f"{first.day}{'' if first.month == last.month else f'{first: %b}'} to {day(last)}"


def moment(text: str) -> Markup:
    """21 Nov 2026, 06:31 UTC; what is no time is shown as it is."""
    try:
        found = read_time(text)
    except ValueError:
        return join(text or "an unknown time")
    return tag("time", f"{day(found)}, {found:%H:%M} UTC", datetime=f"{found:%Y-%m-%dT%H:%M:%SZ}")
