"""The gate's record: each check with its value, its threshold and its reason; as JSON, as a table, as text.

It holds no time, no host and no path: the same pair on the same holdout gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

NO_CHAMPION = "no champion yet"


NOT_JUDGED = "not judged: "
"""How the reason of a check begins that passes because nothing can be said."""


@dataclass(frozen=True)
class Check:
    """One question, and its answer."""

    name: str
    value: float | None
    threshold: float | None
    passed: bool
    reason: str
    interval: tuple[float, float] | None = None

    @property
    def outcome(self) -> bool | None:
        """Whether it passed; None where nothing could be judged, which keeps no candidate back."""
        return None if self.passed and self.reason.startswith(NOT_JUDGED) else self.passed


@dataclass(frozen=True)
class Moves:
    """How far the challenger's answers lie from the champion's, on the rows that were compared.

    The distance of two answers is half the sum of the differences of their probabilities, which for two classes is the
    difference of either; or the absolute difference of two values. `most` counts some rows a second time: as they
    are answered when a source fails, and every feature is missing that may be.
    """

    rows: int
    mean: float
    most: float

    def __add__(self, other: Moves) -> Moves:
        """One move after another: no answer lies further away than both together."""
        return Moves(min(self.rows, other.rows), self.mean + other.mean, self.most + other.most)

    def __str__(self) -> str:
        return f"answers move by {self.mean:.4g} on average and by {self.most:.4g} at most, over {self.rows:,} rows"


@dataclass(frozen=True)
class Verdict:
    """The gate's record."""

    id: str
    model: str
    challenger: str
    champion: str | None
    promoted: bool
    summary: str
    checks: tuple[Check, ...]
    rule: Mapping[str, Any]
    rule_digest: str
    holdout: Mapping[str, Any]
    """digest; rows: in the holdout; compared: those that neither was trained on; days, from, until; blocks: what was
    resampled, a day or a group of rows."""
    resamples: int
    seed: int
    moves: Moves | None = None
    """What a rollout is to expect. None: there is no champion, or its answers cannot be compared."""

    def to_json(self) -> str:
        """The record; equal verdicts give equal text."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Read a record back.

        Raises:
            ValueError: the text is not a whole verdict.
        """
        return cls.from_value(json.loads(text))

    @classmethod
    def from_value(cls, fields: dict[str, Any]) -> Verdict:
        """Read a record back from its JSON values.

        Raises:
            ValueError: these are not a whole verdict.
        """
        try:
            spans = [tuple(check["interval"]) if check["interval"] else None for check in fields["checks"]]
            checks = tuple(Check(**{**c, "interval": s}) for c, s in zip(fields["checks"], spans, strict=True))
            moves = Moves(**fields["moves"]) if fields.get("moves") else None
            return cls(**{**fields, "checks": checks, "moves": moves})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a verdict: {error}") from None

    def basis(self) -> str:
        """How much the verdict rests on, for a person."""
        rows = self.holdout
        over = f" over {rows['days']} days ({rows['from'][:10]} to {rows['until'][:10]})" if "from" in rows else ""
        unit = "whole days" if rows.get("blocks", "day") == "day" else "groups of rows"
        return (
            f"{rows['compared']:,} of {rows['rows']:,} holdout rows{over}; {self.rule['confidence']:.0%} intervals "
            f"from {self.resamples:,} resamples of {unit}; rule: {self.rule['rule']} in {loss_words(self.rule['loss'])}"
        )

    def _repr_markdown_(self) -> str:
        """As a notebook shows it."""
        return self.to_markdown()

    def to_markdown(self) -> str:
        """For a person, in a browser."""
        lines = [
            f"# {mark(self.promoted)} {self.model}: {'promoted' if self.promoted else 'refused'}",
            "",
            cell(self.summary) + ".",
            "",
            f"{self.basis()}{f'; {self.moves}' if self.moves else ''}. Verdict `{self.id}`.",
            "",
            "| | check | value | threshold | interval | reason |",
            "| --- | --- | ---: | ---: | --- | --- |",
        ]
        for check in worst_first(self.checks):
            numbers = [_number(check.value), _number(check.threshold), span(check.interval) if check.interval else ""]
            cells = [mark(check.outcome), f"`{check.name}`", *numbers, check.reason]
            lines.append("| " + " | ".join(map(cell, cells)) + " |")
        return "\n".join(lines) + "\n"

    def to_text(self) -> str:
        """For a person, in a terminal: a line per check; slices that passed share one."""
        passed_slices = [c for c in self.checks if c.passed and c.name.startswith("slice:") and "=" in c.name]
        lines: list[tuple[bool | None, str, str]] = [
            (c.outcome, c.name, c.reason) for c in worst_first(self.checks) if c not in passed_slices
        ]
        if passed_slices:
            worst = max(passed_slices, key=lambda c: float("-inf") if c.value is None else c.value)
            detail = NO_CHAMPION if worst.value is None else f"the worst is {worst.name[6:]}: {worst.reason}"
            lines.append((True, "slices", f"{len(passed_slices)} slices passed; {detail}"))
        width = max(len(name) for _, name, _ in lines)
        result = "promoted" if self.promoted else "refused"
        against = f"against champion {self.champion}" if self.champion else NO_CHAMPION
        head = [
            f"{self.model}: challenger {self.challenger} {result} ({against})",
            f"  {self.basis()}{f'; {self.moves}' if self.moves else ''}",
        ]
        return "\n".join([*head, *(f"  {mark(passed)} {name:<{width}}  {reason}" for passed, name, reason in lines)])


def worst_first(checks: Iterable[Check]) -> list[Check]:
    """Those that failed before those that passed; slices that failed after the rest, the one furthest beyond first."""

    def place(check: Check) -> tuple[bool, bool, float]:
        if check.passed or not check.name.startswith("slice:"):
            return check.passed, False, 0.0
        return False, True, (check.threshold or 0.0) - (check.value or 0.0)

    return sorted(checks, key=place)


def loss_words(loss: str) -> str:
    """What is compared, of which less is better."""
    return f"1 - {loss}" if loss == "average_precision" else loss


def span(interval: tuple[float, float]) -> str:
    """An interval in words."""
    return f"{interval[0]:+.4g} to {interval[1]:+.4g}"


def mark(passed: bool | None) -> str:
    """A result as a sign; None: nothing was judged."""
    return "–" if passed is None else "✓" if passed else "✗"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.4g}"


def cell(text: str) -> str:
    """A text in a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())
