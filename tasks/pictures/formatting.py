"""Numbers, times and sentences as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from markupsafe import Markup, escape

from tasks.ground.words import many

LOSSES = {"poisson": "Poisson deviance", "brier": "Brier score", "roc_auc": "ROC AUC", "mae": "MAE", "rmse": "RMSE"}

Entry = Mapping[str, Any]
"""{value, low, high} of a metric; low and high may be missing or None."""


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 10_000 else f"{value:.4g}"


def short(value: float) -> str:
    """Three significant digits: for the ends of an interval, and beside a picture."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


def interval(entry: Entry | None) -> str:
    """0.378 (0.344 to 0.412)."""
    if entry is None or entry.get("value") is None:
        return "unknown"
    return f"{short(entry['value'])}{f' ({ends(entry)})' if ends(entry) else ''}"


def ends(entry: Entry) -> str:
    """0.344 to 0.412; empty where there is no interval."""
    low, high = entry.get("low"), entry.get("high")
    return "" if low is None or high is None else f"{short(low)} to {short(high)}"


def loss_name(loss: str) -> str:
    """A loss or metric at the beginning of a sentence."""
    return LOSSES.get(loss, loss.replace("_", " ").capitalize())


def exponent(value: float) -> str:
    """A whole number in superscript."""
    return f"{value:.0f}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


# ── times ─────────────────────────────────────────────────────────────────────────────────────────


def read_time(text: str) -> datetime:
    """Parse a time; one without a zone is taken as UTC, so that all can be compared.

    Raises:
        ValueError: it is no time.
    """
    parsed = datetime.fromisoformat(text)
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def day(when: str | date | datetime) -> str:
    """21 Nov 2026."""
    parsed = read_time(when) if isinstance(when, str) else when
    return f"{parsed.day} {parsed:%b %Y}"


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


def moment(when: str | datetime) -> Markup:
    """21 Nov 2026, 06:31 UTC; a text that is no time stays as it is."""
    try:
        parsed = read_time(when) if isinstance(when, str) else when
    except ValueError:
        return escape(when or "an unknown time")
    shown = f"{day(parsed)}, {parsed:%H:%M} UTC"
    return Markup('<time datetime="{}">{}</time>').format(f"{parsed:%Y-%m-%dT%H:%M:%SZ}", shown)


def day_or_moment(text: str) -> Markup:
    """A day where the time is midnight, else a moment."""
    if read_time(text).time() != time():
        return moment(text)
    return Markup('<time datetime="{}">{}</time>').format(text[:10], day(text))


# ── sentences ─────────────────────────────────────────────────────────────────────────────────────


def sentence(text: str) -> str:
    """With a capital, unless it begins with a name, and a full stop."""
    first = text.strip().partition(" ")[0]
    capital = first[:1].upper() + first[1:] if first.rstrip(",:;").isalpha() else first
    return ended(text.strip().replace(first, capital, 1))


def ended(text: str) -> str:
    """With a full stop, and its first letter as it is: for a text that begins with a column's name."""
    return f"{text}{'' if text[-1] in '.!?' else '.'}" if text else ""


def cut(text: str, most: int) -> str:
    """A text that fits where there is room for `most` letters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


FILTERS = (number, short, many, interval, ends, loss_name, day, days, moment, day_or_moment, sentence, ended, cut)
"""What templates may call."""
