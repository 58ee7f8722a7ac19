"""Report of a backtest: a table per model, a picture, a page."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib.dates import DateFormatter, MonthLocator
from matplotlib.figure import Figure

from tasks.ground import files, params, paths
from tasks.lifecycle.backtest import BacktestRequest, BacktestResult, run
from tasks.lifecycle.policy_simulator import PolicyOutcome
from tasks.pictures import formatting, templates
from tasks.pictures.axes import spread
from tasks.pictures.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, png, styled

COLORS = {
    "never": GREY,
    "always": BLUE,
    "monthly": SKY,
    "drift": GREEN,
    "quality": PURPLE,
    "configured": ORANGE,
}


def compare(
    names: Sequence[str],
    config: params.Params,
    request: BacktestRequest,
    jobs: int | None,
    page_path: Path | None = None,
    picture_path: Path | None = None,
) -> None:
    """Run the backtests of some models, print the tables, draw the picture, and write the page.

    None named are all whose rows have a loss each: of anomalies only all together have one.

    Raises:
        DataMissing: as `backtest.run`.
    """
    comparable = [name for name, model in config.models.items() if model.task != "anomaly"]
    chosen = names or comparable or list(config.models)
    results = run(chosen, config, request, jobs, tell=lambda line: print(line, flush=True))
    picture_path = picture_path or paths.backtests() / "backtest.png"
    with files.replacing(picture_path) as beside:
        beside.write_bytes(picture(results))
    for result in results:
        print(f"\n{table(result)}")
    if page_path:
        files.write_text(page_path, page(results, request, jobs))
    print(f"\ndrawn: {picture_path}; every decision with its reasons: {paths.backtests()}/<model>/ledger.jsonl")


def table(result: BacktestResult) -> str:
    """Markdown: a row per policy."""
    lines = [
        f"**{result.name}**, configured: {in_words(result.configured)}",
        "",
        f"| policy | {result.loss} | gain kept | trainings | promoted | refused | drift alarms | CPU s | regret |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for outcome in result.outcomes:
        kept = result.kept(outcome)
        cells = [
            f"**{outcome.policy}**" if outcome.policy == "configured" else outcome.policy,
            f"{outcome.mean_loss:.4f}",
            "" if kept is None else f"{kept:.1%}",
            *(str(outcome.count(what)) for what in ("trained", "promoted", "refused", "alarms")),
            f"{outcome.seconds:.0f}",
            f"{outcome.regret:.4f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def in_words(policy: params.Retrain) -> str:
    """A retrain policy on one line, as params.yaml has it."""
    lines = (", ".join(f"{name}: {limit:g}" for name, limit in line.given()) for line in policy.when)
    when = ", ".join(f"{{{line}}}" for line in lines)
    return f"`{{gap_days: {policy.gap_days:g}, when: [{when}]}}`"


def page(results: Sequence[BacktestResult], request: BacktestRequest, jobs: int | None) -> str:
    """docs/benchmarks/backtest.md."""
    times = _times(results[0].outcomes[0])
    return templates.markdown(
        "tasks/lifecycle/backtest_page.md",
        first=f"{times[0]:%d %B %Y}",
        last=f"{times[-1]:%d %B %Y}",
        weeks=len(times),
        tables=[table(result) for result in results],
        source=request.source,
        cores=os.cpu_count(),
        jobs=jobs,
        system=f"{platform.system()}, Python {platform.python_version()}",
        packages=", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "pandas", "numpy")),
    )


# ── the picture ───────────────────────────────────────────────────────────────────────────────────


def picture(results: Sequence[BacktestResult]) -> bytes:
    """PNG: a column per model; quality over time, what was gained over «never», trainings, regret."""
    with styled({"font.size": 9, "axes.edgecolor": INK, "axes.titlesize": 9, "grid.linewidth": 0.8}):
        figure = Figure(figsize=(7.2 * len(results), 9.6), dpi=100, layout="constrained", facecolor="white")
        columns = figure.subfigures(1, len(results), squeeze=False, wspace=0.03)[0]
        for column, result in zip(columns, results, strict=True):
            _column(column, result)
        return png(figure)


def _column(column: Any, result: BacktestResult) -> None:
    chosen = result.of("configured") or result.outcomes[-1]
    kept, always = result.kept(chosen), result.of("always")
    title = f"{chosen.count('trained')} trainings" + (f" instead of {always.count('trained')}" if always else "")
    title += f" keep {kept:.0%} of the gain" if kept is not None else f", {result.loss} {chosen.mean_loss:.4f}"
    column.suptitle(f"{result.name}: {title}", fontsize=12, weight="bold")
    rows = column.add_gridspec(3, 2, height_ratios=[2.2, 2.8, 1.7])
    _quality(column.add_subplot(rows[0, :]), result)
    _gain(column.add_subplot(rows[1, :]), result)
    trained, promoted = ([outcome.count(what) for outcome in result.outcomes] for what in ("trained", "promoted"))
    regret = [outcome.regret for outcome in result.outcomes]
    _bars(column.add_subplot(rows[2, 0]), result, "trainings (dark: promoted)", trained, promoted)
    _bars(column.add_subplot(rows[2, 1]), result, "regret against the best in hindsight", regret)


def _times(outcome: PolicyOutcome) -> list[datetime]:
    return [datetime.fromisoformat(line["at"]) for line in outcome.ledger]


def _quality(axes: Any, result: BacktestResult) -> None:
    """The loss of each week: what never and always would have had, and the configured policy."""
    shown = [r for name in ("never", "always", "configured") if (r := result.of(name))] or list(result.outcomes)
    for outcome in shown:
        width = 2.2 if outcome.policy == "configured" else 1.3
        axes.plot(_times(outcome), outcome.loss, color=COLORS[outcome.policy], linewidth=width)
    axes.set_title(f"{formatting.loss_name(result.loss)}, mean of each week (lower is better)")
    _label_ends(axes, [(outcome.policy, outcome.loss[-1]) for outcome in shown])
    _frame(axes)


def _gain(axes: Any, result: BacktestResult) -> None:
    """What each policy has gained over never so far, per row of the whole history; a mark where it trained."""
    never, ends = result.of("never") or result.outcomes[0], []
    for outcome in result.outcomes:
        gained = ((never.loss - outcome.loss) * outcome.rows).cumsum() / outcome.rows.sum()
        color, chosen = COLORS[outcome.policy], outcome.policy == "configured"
        axes.plot(_times(outcome), gained, color=color, linewidth=2.4 if chosen else 1.2, zorder=3 if chosen else 2)
        ends.append((outcome.policy, gained[-1]))
        if outcome.policy != "always":  # a mark everywhere says nothing
            _mark_trainings(axes, outcome, gained, size=34 if chosen else 16)
    so_far = f"{formatting.loss_name(result.loss)} gained over «{never.policy}» so far"
    axes.set_title(f"{so_far} (● trained and promoted, ○ trained and refused)")
    _label_ends(axes, ends)
    _frame(axes)


def _mark_trainings(axes: Any, outcome: PolicyOutcome, gained: Any, size: int) -> None:
    times, color = _times(outcome), COLORS[outcome.policy]
    for promoted, face in ((True, color), (False, "white")):
        at = [k for k, line in enumerate(outcome.ledger) if line["trained"] and line["promoted"] == promoted]
        axes.scatter([times[k] for k in at], gained[at], s=size, color=face, edgecolors=color, zorder=4)


def _bars(
    axes: Any, result: BacktestResult, title: str, values: Sequence[float], dark: Sequence[float] | None = None
) -> None:
    names = [outcome.policy for outcome in result.outcomes]
    colors = [COLORS[name] for name in names]
    axes.barh(names, values, color=colors, alpha=0.45 if dark is not None else 0.8, height=0.7)
    if dark is not None:
        axes.barh(names, dark, color=colors, height=0.7)
    for row, value in enumerate(values):
        axes.text(value, row, f" {value:d}" if isinstance(value, int) else f" {value:.4f}", va="center", fontsize=8)
    axes.set_title(title)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.22)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)


def _label_ends(axes: Any, ends: list[tuple[str, float]]) -> None:
    """Each line's policy at its end, moved apart where they would lie on each other."""
    low, high = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end[1])
    places = spread([value for _, value in ends], (high - low) * 0.062, low, high)
    where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
    for (name, _), place in zip(ends, places, strict=True):
        weight = "bold" if name == "configured" else "normal"
        axes.annotate(f" {name}", (1, place), color=COLORS[name], fontsize=8.5, weight=weight, **where)


def _frame(axes: Any) -> None:
    axes.xaxis.set_major_locator(MonthLocator())  # type: ignore[no-untyped-call] # matplotlib's dates have no types
    axes.xaxis.set_major_formatter(DateFormatter("%b"))  # type: ignore[no-untyped-call]
    axes.margins(x=0)
    axes.grid(axis="y")
    axes.tick_params(length=3, color=INK)
