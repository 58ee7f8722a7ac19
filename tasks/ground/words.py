"""Words of messages: counts with their noun, lists that end, and what a library raised on one line."""

from __future__ import annotations

from collections.abc import Iterable


def many(count: float, what: str, plural: str = "") -> str:
    """1 partition, 2 partitions, 1,200 rows."""
    return f"{count:,.0f} {what if count == 1 else plural or what + 's'}"


def listed(names: Iterable[object], most: int = 10, what: str = "") -> str:
    """a, b and 3 more; the rest may be named: and 3 more partitions."""
    every = [str(name) for name in names]
    rest = len(every) - most
    of_rest = f" {what if rest == 1 else what + 's'}" if what else ""
    return ", ".join(every[:most]) + (f" and {rest:,} more{of_rest}" if rest > 0 else "")


def one_line(error: BaseException | str, most: int | None = None) -> str:
    """What an error says, without line breaks, and no longer than so many characters."""
    return " ".join(str(error).split())[:most]
