"""What a backtest found: a table per model, a picture, a page.

Colours are those of Okabe and Ito (2008), which people with a colour vision deficiency can tell apart.
"""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.ground import params
    from tasks.lifecycle.backtest_result import BacktestRequest, BacktestResult
    from tasks.lifecycle.policy_simulator import PolicyOutcome

COLORS = {
    "never": "#6B6B6B",
    "always": "#0072B2",
    "monthly": "#56B4E9",
    "drift": "#009E73",
    "quality": "#CC79A7",
    "configured": "#D55E00",
}
INK, PALE = "#222222", "#E3E3E3"


def table(found: BacktestResult) -> str:
    """Markdown: a row per policy."""
    lines = [
        f"**{found.name}**, configured: {in_words(found.configured)}",
        "",
        f"| policy | {found.loss} | gain kept | trainings | promoted | refused | drift alarms | CPU s | regret |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for replay in found.replays:
        kept = found.kept(replay)
        cells = [
            f"**{replay.policy}**" if replay.policy == "configured" else replay.policy,
            f"{replay.mean_loss:.4f}",
            "" if kept is None else f"{kept:.1%}",
            *(str(replay.count(what)) for what in ("trained", "promoted", "refused", "alarms")),
            f"{replay.seconds:.0f}",
            f"{replay.regret:.4f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def in_words(policy: params.Retrain) -> str:
    """A retrain policy on one line, as params.yaml has it."""
    lines = (", ".join(f"{name}: {limit:g}" for name, limit in line.given()) for line in policy.when)
    when = ", ".join(f"{{{line}}}" for line in lines)
    return f"`{{gap_days: {policy.gap_days:g}, when: [{when}]}}`"


def page(found: Sequence[BacktestResult], asked: BacktestRequest, jobs: int) -> str:
    """docs/benchmarks/backtest.md."""
    from importlib.metadata import version

    ledger = found[0].replays[0].ledger
    first, last = (f"{datetime.fromisoformat(line['at']):%d %B %Y}" for line in (ledger[0], ledger[-1]))
    head = f"""# The retrain policies, lived through

Made by `evergreen backtest`: {first} to {last}, a decision a week, {len(ledger)} of them. Known at each
are the rows whose labels came (all but the last day's); the newest four weeks of these are the holdout, the others are
what is learned from. Trained by the step `train`, judged by the gate of `params.yaml` (latency and size apart: no
release is packaged), and whoever is champion then answers the next week. How: `tasks/lifecycle/backtest_history.py`,
`tasks/lifecycle/policy_simulator.py`. Which policy follows from it, and how far that can be believed: [the
decision](../decisions/policy.md).

*Gain kept* is the share of what «always» gains in loss over «never». *Regret* is how much better, per row, it would
have been to have the best in hindsight: each week, of all models that could have been there by then, the one that did
best. *CPU s* are of the trainings and verdicts that a policy asked for; shared ones are computed once.

![Quality over time, trainings and regret of each policy](../pictures/backtest.png)
"""
    packages = ", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "pandas", "numpy"))
    system = f"{platform.system()}, Python {platform.python_version()}"
    foot = f"History: {asked.source}. {os.cpu_count()} cores, {jobs} processes; {system}; {packages}."
    return "\n\n".join([head.rstrip(), *(table(one) for one in found), foot]) + "\n"


# ── the picture ───────────────────────────────────────────────────────────────────────────────────


def picture(found: Sequence[BacktestResult]) -> bytes:
    """PNG: a column per model; quality over time, what was gained over «never», trainings, regret."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    plain = {**mpl.rcParamsDefault, "text.parse_math": False}
    with mpl.rc_context({**plain, "font.size": 9, "axes.edgecolor": INK, "text.color": INK}):
        figure = Figure(figsize=(7.2 * len(found), 9.6), dpi=100, layout="constrained", facecolor="white")
        parts = figure.subfigures(1, len(found), squeeze=False, wspace=0.03)[0]
        for part, one in zip(parts, found, strict=True):
            _column(part, one)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _column(part: Any, found: BacktestResult) -> None:
    chosen = found.of("configured") or found.replays[-1]
    kept, always = found.kept(chosen), found.of("always")
    title = f"{chosen.count('trained')} trainings" + (f" instead of {always.count('trained')}" if always else "")
    title += f" keep {kept:.0%} of the gain" if kept is not None else f", {found.loss} {chosen.mean_loss:.4f}"
    part.suptitle(f"{found.name}: {title}", fontsize=12, weight="bold")
    rows = part.add_gridspec(3, 2, height_ratios=[2.2, 2.8, 1.7])
    _quality(part.add_subplot(rows[0, :]), found)
    _gain(part.add_subplot(rows[1, :]), found)
    _bars(
        part.add_subplot(rows[2, 0]),
        found,
        "trainings (dark: promoted)",
        [r.count("trained") for r in found.replays],
        [r.count("promoted") for r in found.replays],
    )
    _bars(
        part.add_subplot(rows[2, 1]), found, "regret against the best in hindsight", [r.regret for r in found.replays]
    )


def _words(loss: str) -> str:
    return {"poisson": "Poisson deviance"}.get(loss, loss.replace("_", " "))


def _days(replay: PolicyOutcome) -> list[datetime]:
    return [datetime.fromisoformat(line["at"]) for line in replay.ledger]


def _quality(axes: Any, found: BacktestResult) -> None:
    """The loss of each week: what never and always would have had, and the configured policy with its trainings."""
    shown = [r for name in ("never", "always", "configured") if (r := found.of(name))] or list(found.replays)
    for replay in shown:
        axes.plot(
            _days(replay),
            replay.loss,
            color=COLORS[replay.policy],
            linewidth=2.2 if replay.policy == "configured" else 1.3,
        )
    axes.set_title(f"mean {_words(found.loss)} of each week (lower is better)", loc="left", fontsize=9)
    _label_ends(axes, [(r.policy, r.loss[-1], COLORS[r.policy]) for r in shown])
    _frame(axes)


def _gain(axes: Any, found: BacktestResult) -> None:
    """What each policy has gained over never so far, per row of the whole history; a mark where it trained."""
    import numpy as np

    never = found.of("never") or found.replays[0]
    ends = []
    for replay in found.replays:
        gained = np.cumsum((never.loss - replay.loss) * replay.rows) / replay.rows.sum()
        color, chosen = COLORS[replay.policy], replay.policy == "configured"
        axes.plot(_days(replay), gained, color=color, linewidth=2.4 if chosen else 1.2, zorder=3 if chosen else 2)
        ends.append((replay.policy, gained[-1], color))
        if replay.policy == "always":  # a mark everywhere says nothing
            continue
        for promoted, face in ((True, color), (False, "white")):
            at = [k for k, line in enumerate(replay.ledger) if line["trained"] and line["promoted"] == promoted]
            axes.scatter(
                [_days(replay)[k] for k in at],
                gained[at],
                s=34 if chosen else 16,
                color=face,
                edgecolors=color,
                zorder=4,
            )
    axes.set_title(
        f"{_words(found.loss)} gained over «{never.policy}» so far (● trained and promoted, ○ trained and refused)",
        loc="left",
        fontsize=9,
    )
    _label_ends(axes, ends)
    _frame(axes)


def _bars(
    axes: Any, found: BacktestResult, title: str, values: Sequence[float], dark: Sequence[float] | None = None
) -> None:
    names = [replay.policy for replay in found.replays]
    colors = [COLORS[name] for name in names]
    axes.barh(names, values, color=colors, alpha=0.45 if dark is not None else 0.8, height=0.7)
    if dark is not None:
        axes.barh(names, dark, color=colors, height=0.7)
    for row, value in enumerate(values):
        axes.text(value, row, f" {value:d}" if isinstance(value, int) else f" {value:.4f}", va="center", fontsize=8)
    axes.set_title(title, loc="left", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.22)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _label_ends(axes: Any, ends: list[tuple[str, float, str]]) -> None:
    """Each line's name at its end, moved apart where they would lie on each other."""
    low, high = axes.get_ylim()
    apart = (high - low) * 0.062
    ends = sorted(ends, key=lambda end: end[1])
    places = [value for _, value, _ in ends]
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + apart)
    places[-1] = min(places[-1], high)  # and down again, what was pushed out above
    for k in reversed(range(len(places) - 1)):
        places[k] = min(places[k], places[k + 1] - apart)
    for (name, _, color), place in zip(ends, places, strict=True):
        weight = "bold" if name == "configured" else "normal"
        where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
        axes.annotate(f" {name}", (1, place), color=color, fontsize=8.5, weight=weight, **where)


def _frame(axes: Any) -> None:
    from matplotlib.dates import DateFormatter, MonthLocator

    axes.xaxis.set_major_locator(MonthLocator())  # type: ignore[no-untyped-call] # matplotlib's dates have no types
    axes.xaxis.set_major_formatter(DateFormatter("%b"))  # type: ignore[no-untyped-call]
    axes.margins(x=0)
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=3, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
