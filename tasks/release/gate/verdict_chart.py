"""The picture of a verdict: differences of the loss with their intervals, against 0 and the margins."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from tasks.pictures import axes, templates
from tasks.pictures.formatting import loss_name
from tasks.release.gate.verdict import Check, Verdict, loss_words

MOST_SLICES = 40
"""A picture file shows no more slices than this: those nearest to refusal."""

ROW = 19.0
"""The height of a row, in units of the picture."""


def picture(verdict: Verdict) -> bytes:
    """An SVG file for MLflow and Prefect."""
    shown, hidden = drawn(verdict.checks, has_champion=bool(verdict.champion), most=MOST_SLICES)
    title = f"{verdict.model}: challenger {verdict.challenger} {'promoted' if verdict.promoted else 'refused'}"
    failed = sum(not check.passed for check in verdict.checks)
    title += f" by {failed} check{'s'[: failed - 1]}" if failed else ""
    against = f"champion {verdict.champion}" if verdict.champion else "trivial baseline"
    notes = [*verdict.basis().split("; "), *([f"{hidden} slices further from refusal are not shown"] if hidden else [])]
    caption = (
        f"{loss_name(loss_words(verdict.rule['loss']))}: challenger − {against}"
        if shown
        else "Nothing could be compared"
    )
    chart = draw(shown, verdict.rule["loss"], has_champion=bool(verdict.champion)) if shown else Markup()
    panel = (caption, chart, height(shown))
    return templates.stand_alone(title, panel, is_bad=not verdict.promoted, notes=notes)


def drawn(checks: Sequence[Check], *, has_champion: bool, most: int) -> tuple[list[Check], int]:
    """The checks that have a difference to draw, the overall one first, then the slices nearest to refusal.

    Returns:
        Those that are drawn, and how many slices are left out.
    """
    overall = "improvement" if has_champion else "beats_baseline"
    slices = [check for check in checks if check.name.startswith("slice:") and check.value is not None]
    slices.sort(key=lambda check: (check.value or 0.0) - (check.threshold or 0.0), reverse=True)
    first = [check for check in checks if check.name == overall and check.value is not None]
    return first + slices[:most], max(len(slices) - most, 0)


def height(checks: Sequence[Check]) -> float:
    """Of a picture of these checks."""
    return 40 + ROW * len(checks)


def draw(checks: Sequence[Check], loss: str, *, has_champion: bool) -> Markup:
    """A row per check: its difference, its interval, and a small line where the threshold is. Left of 0 is better."""
    values = [check.value or 0.0 for check in checks]
    ends = [end for check in checks for end in (*(check.interval or ()), check.threshold) if end is not None]
    low, high = axes.extent([0.0, *values], [0.0, *values, *ends])
    left, right = 112.0, axes.WIDTH - 56.0

    def x(value: float) -> float:
        return left + (right - left) * (min(max(value, low), high) - low) / (high - low)

    return templates.render(
        "tasks/release/gate/verdict_chart.svg",
        rows=[(8 + ROW * (row + 0.5), label(check), check) for row, check in enumerate(checks)],
        x=x,
        ticks=[(x(value), f"{value:+g}" if value else "0") for value in axes.ticks(low, high)],
        left=left,
        right=right,
        bottom=8 + ROW * len(checks),
        height=height(checks),
        words=_words(checks, loss, has_champion),
    )


def label(check: Check) -> str:
    """The text beside a check's row."""
    return check.name.removeprefix("slice:") if check.name.startswith("slice:") else "all rows"


def _words(checks: Sequence[Check], loss: str, has_champion: bool) -> str:
    against = "the champion's" if has_champion else "the baseline's"
    rows = [f"{loss_name(loss_words(loss))} less {against}; below 0 is better."]
    for check in checks:
        between = f", {check.interval[0]:+.3g} to {check.interval[1]:+.3g}" if check.interval else ""
        rows.append(f"{label(check)}: {check.value:+.3g}{between}, {'passed' if check.passed else 'failed'}.")
    return " ".join(rows)
