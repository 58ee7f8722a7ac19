"""The gate's record: each check with its value, its threshold and its reason; as JSON, as a table, as text.

It holds no time, no host and no path: the same pair on the same holdout gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

NO_CHAMPION = "no champion yet"


@dataclass(frozen=True)
class Check:
    """One question, and its answer."""

    name: str
    value: float | None
    threshold: float | None
    passed: bool
    reason: str
    interval: tuple[float, float] | None = None


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
        said = json.loads(text)
        try:
            spans = [tuple(check["interval"]) if check["interval"] else None for check in said["checks"]]
            checks = tuple(Check(**{**c, "interval": s}) for c, s in zip(said["checks"], spans, strict=True))
            moves = Moves(**said["moves"]) if said.get("moves") else None
            return cls(**{**said, "checks": checks, "moves": moves})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a verdict: {error}") from None

    def basis(self) -> str:
        """How much the verdict rests on, for a person."""
        rows = self.holdout
        over = f" over {rows['days']} days ({rows['from'][:10]} to {rows['until'][:10]})" if "from" in rows else ""
        unit = "whole days" if rows.get("blocks", "day") == "day" else "groups of rows"
        return (
            f"{rows['compared']:,} of {rows['rows']:,} holdout rows{over}; {self.rule['confidence']:.0%} intervals "
            f"from {self.resamples:,} resamples of {unit}; rule: {self.rule['rule']} in {self.rule['loss']}"
        )

    def to_markdown(self) -> str:
        """For a person, in a browser."""
        return _markdown(self)

    def to_text(self) -> str:
        """For a person, in a terminal."""
        return _text(self)


def worst_first(checks: Iterable[Check]) -> list[Check]:
    """Those that failed before those that passed; slices that failed after the rest, the one furthest beyond first."""

    def place(check: Check) -> tuple[bool, bool, float]:
        if check.passed or not check.name.startswith("slice:"):
            return check.passed, False, 0.0
        return False, True, (check.threshold or 0.0) - (check.value or 0.0)

    return sorted(checks, key=place)


def span(interval: tuple[float, float]) -> str:
    """An interval in words."""
    return f"{interval[0]:+.4g} to {interval[1]:+.4g}"


# ── for people ────────────────────────────────────────────────────────────────────────────────────


def _moves(verdict: Verdict) -> str:
    return f"; {verdict.moves}" if verdict.moves else ""


def _mark(passed: bool) -> str:
    return "✓" if passed else "✗"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.4g}"


def _markdown(verdict: Verdict) -> str:
    lines = [
        f"# {_mark(verdict.promoted)} {verdict.model}: {'promoted' if verdict.promoted else 'refused'}",
        "",
        _cell(verdict.summary) + ".",
        "",
        f"{verdict.basis()}{_moves(verdict)}. Verdict `{verdict.id}`.",
        "",
        "| | check | value | threshold | interval | reason |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    for check in worst_first(verdict.checks):
        numbers = [_number(check.value), _number(check.threshold), span(check.interval) if check.interval else ""]
        cells = [_mark(check.passed), f"`{check.name}`", *numbers, check.reason]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _text(verdict: Verdict) -> str:
    """A line per check; slices that passed share one."""
    quiet = [c for c in verdict.checks if c.passed and c.name.startswith("slice:") and "=" in c.name]
    lines = [(c.passed, c.name, c.reason) for c in worst_first(verdict.checks) if c not in quiet]
    if quiet:
        worst = max(quiet, key=lambda c: float("-inf") if c.value is None else c.value)
        said = NO_CHAMPION if worst.value is None else f"the worst is {worst.name[6:]}: {worst.reason}"
        lines.append((True, "slices", f"{len(quiet)} slices passed; {said}"))
    width = max(len(name) for _, name, _ in lines)
    against = f"against champion {verdict.champion}" if verdict.champion else NO_CHAMPION
    said = "promoted" if verdict.promoted else "refused"
    basis = f"  {verdict.basis()}{_moves(verdict)}"
    head = [f"{verdict.model}: challenger {verdict.challenger} {said} ({against})", basis]
    return "\n".join([*head, *(f"  {_mark(passed)} {name:<{width}}  {reason}" for passed, name, reason in lines)])
