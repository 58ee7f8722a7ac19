"""Report of a study: a page, a table for a terminal, a page for Prefect."""

from __future__ import annotations

import json
from statistics import fmean
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tasks.pictures import axes, templates
from tasks.pictures.formatting import loss_name, short
from tasks.training.tuning import lead
from tasks.training.tuning.lead import Lead
from tasks.training.tuning.space import CLASS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from tasks.lifecycle.tune_result import TuneResult
    from tasks.training.tuning.study import StudyTrial

SHOWN = 20
"""So many trials, the best first, and slices are in tables; all are in study.json."""

HEIGHT, ROW = 200.0, 19.0
"""Of the picture of trials, and of a row of the picture of importances; in their own units."""


def page(result: TuneResult) -> str:
    """The whole page, in one file."""
    return str(
        templates.render(
            "tasks/lifecycle/tune_page.html",
            result=result,
            loss=loss_name(result.loss),
            verdict=verdict(result),
            trials=[(*row, _state(row[0])) for row in _rows(result)],
            pictures=[_trials_picture(result), *_importance_picture(result.study.importances)],
            slices=lead.slices(result.study)[:SHOWN] if result.study.best.number else [],
            costs=_costs(result),
        )
    )


def verdict(result: TuneResult) -> list[str]:
    """What came of it, a sentence each."""
    study, confidence = result.study, f"{result.model.gate.confidence:.0%}"
    if not study.best.number:
        return ["No trial has a lower loss than the present parameters. Nothing is proposed."]
    chosen, fair = result.chosen_lead, result.fair_lead
    biased = f"on the folds that it was chosen by: too good, as it is the best of {len(study.trials) - 1}"
    lines = [
        f"Trial {study.best.number} differs by {_lead(chosen)} from the present parameters (less is better), {biased}.",
        f"Chosen on the other folds each time, the difference is {_lead(fair)} ({confidence}, paired by fold).",
    ]
    if fair.is_beyond_doubt:
        return [*lines, "That is more than the folds differ by."]
    return [*lines, "That may be chance: the present parameters may be as good. The gate judges on rows that none saw."]


def _lead(each: Lead) -> str:
    return f"{each.mean:+.3g} ({each.interval[0]:+.3g} to {each.interval[1]:+.3g})"


def _rows(result: TuneResult) -> Iterator[tuple[StudyTrial, str, str]]:
    """The present parameters, then the best trials; each with its score and its parameters in words."""
    study = result.study
    ranked = sorted(study.trials[1:], key=lambda t: (-len(t.losses), t.score if t.losses else 0.0, t.number))
    for trial in [study.present, *ranked[:SHOWN]]:
        score = f"{trial.score:.6g}" if trial.losses else ""
        yield trial, score, _in_words(trial)


def _state(trial: StudyTrial) -> str:
    """Of a trial that was pruned with the number of folds that its loss is of."""
    return f"pruned at {len(trial.losses)}" if trial.state == "pruned" else trial.state


def _in_words(trial: StudyTrial) -> str:
    """What was drawn: the class where there are several, and the values by their keys."""
    short = trial.estimator.class_.rpartition(".")[2]
    if not trial.point:  # the present parameters, where the space does not hold them
        return ", ".join([short, *(f"{name} {_value(value)}" for name, value in trial.estimator.params.items())])
    drawn = [
        f"{name.removeprefix(f'{short}.')} {_value(value)}" for name, value in trial.point.items() if name != CLASS
    ]
    return ", ".join([short, *drawn] if CLASS in trial.point else drawn)


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value).strip('"')


def _costs(result: TuneResult) -> list[str]:
    study = result.study
    ended = "ended by the number of trials" if study.ended_by == "trials" else "ended by the budget"
    spent = f"{study.spent_s:,.1f} CPU seconds of {result.tune.budget_s:,.0f}"
    states = ", ".join(f"{study.count(state)} {state}" for state in ("complete", "pruned", "failed"))
    again = sum(not trial.seconds for trial in study.trials)
    return [
        f"{spent}, on {result.workers} processes; {ended}.",
        f"{len(study.trials) - 1} trials: {states}; {again} of parameters that were tried already, at no cost.",
        f"{result.rows:,} training rows in {len(result.folds)} folds: {', '.join(result.folds)}.",
        "The holdout was not read.",
        f"Identity of the table of trials: {study.digest}. It is the same for any number of processes.",
    ]


# ── pictures ──────────────────────────────────────────────────────────────────────────────────────


def _trials_picture(result: TuneResult) -> tuple[str, Markup]:
    """The loss of each trial; the best so far as a line, that of the present parameters as another."""
    study, left, right, top, bottom = result.study, 52.0, axes.WIDTH - 12.0, 10.0, 176.0
    scored = [(trial, _comparable(trial, study.present)) for trial in study.trials if trial.losses]
    ordered = sorted(score for _, score in scored)
    # a few that are far off must not press all others onto a line: they lie on the edge
    low, high = axes.extent([*ordered[: max(len(ordered) * 9 // 10, 1)], study.present.score], [])

    def x(number: float) -> float:
        return left + (right - left) * number / max(len(study.trials) - 1, 1)

    def y(value: float) -> float:
        return bottom - (bottom - top) * (min(max(value, low), high) - low) / (high - low)

    best, steps = study.present.score, [f"M{x(0):.1f} {y(study.present.score):.1f}"]
    for trial in study.trials[1:]:
        if trial.state == "complete" and trial.score < best:
            best = trial.score
            steps.append(f"H{x(trial.number):.1f} V{y(best):.1f}")
    drawn = templates.render(
        "tasks/lifecycle/tune_trials.svg",
        height=HEIGHT,
        words=f"Loss of {len(scored)} trials, lower is better; best {study.best.score:.6g}, present "
        f"{study.present.score:.6g}. The table below has the numbers.",
        marks=[(y(value), short(value)) for value in axes.ticks(low, high, 5)],
        numbers=[(x(value), f"{value:g}") for value in axes.ticks(0, len(study.trials) - 1) if value == int(value)],
        dots=[(x(trial.number), y(score), trial) for trial, score in scored],
        line=" ".join([*steps, f"H{right:.1f}"]),
        present=y(study.present.score),
        left=left,
        right=right,
        bottom=bottom,
        best=study.best.number,
    )
    pruned = "○ pruned (by its difference on the folds that it reached)"
    return f"{loss_name(result.loss)} by trial: ● complete, {pruned}, - - present parameters", drawn


def _comparable(trial: StudyTrial, present: StudyTrial) -> float:
    """A loss of all folds; of a trial that was pruned, as if it differed on all of them as on those that it reached."""
    return trial.score - fmean(present.losses[: len(trial.losses)]) + present.score


def _importance_picture(importances: dict[str, float]) -> Iterator[tuple[str, Markup]]:
    if not importances:
        return
    shown = sorted(importances.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    left, right = 180.0, axes.WIDTH - 50.0
    most = max(share for _, share in shown) or 1.0
    drawn = templates.render(
        "tasks/lifecycle/tune_importance.svg",
        height=12 + ROW * len(shown),
        words="How much each hyper-parameter matters: " + ", ".join(f"{name} {share:.0%}" for name, share in shown),
        bars=[
            (6 + ROW * row, name, (right - left) * share / most, f"{share:.0%}")
            for row, (name, share) in enumerate(shown)
        ],
        left=left,
        tall=ROW - 5,
    )
    yield "What tells the best tenth of the trials from the others (PED-ANOVA)", drawn


# ── elsewhere ─────────────────────────────────────────────────────────────────────────────────────


def table(result: TuneResult) -> Table:
    """For a terminal: the present parameters, and the best trials."""
    from rich.table import Table

    drawn = Table("trial", result.loss, "state", "CPU s", "parameters", title=f"study {result.study.digest}")
    best = result.study.best.number
    for trial, score, words in _rows(result):
        name = "present" if not trial.number else str(trial.number)
        drawn.add_row(
            name, score, _state(trial), f"{trial.seconds:.1f}", words, style="bold" if trial.number == best else ""
        )
    return drawn


def markdown(result: TuneResult) -> str:
    """For Prefect."""
    lines = [f"**{result.sentence()}**", "", *verdict(result), ""]
    lines += ["| trial | loss | state | CPU s | parameters |", "| --- | --- | --- | --- | --- |"]
    for trial, score, words in _rows(result):
        cells = (
            str(trial.number or "present"),
            score,
            _state(trial),
            f"{trial.seconds:.1f}",
            words.replace("|", "&#124;"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    if result.patch:
        lines += ["", "```diff", result.patch.rstrip("\n"), "```"]
    return "\n".join([*lines, "", *(f"- {line}" for line in _costs(result))]) + "\n"
