"""A model's section: the live release, the last verdict, retraining, and its history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from deployments.status_page import charts, facts, monitoring
from deployments.status_page.facts import Broken, Lines, ModelFacts, Tools
from deployments.status_page.parts import empty, fill, part
from deployments.status_page.plans import Plan
from tasks.ground import params
from tasks.ground.words import many
from tasks.pictures.formatting import read_time
from tasks.release.gate import verdict_chart
from tasks.release.gate.verdict import Check

EARLIER = 5  # so many earlier verdicts, rollouts and decisions are listed; the picture of the history shows all at hand
SLICES = 8  # of a verdict, so many slices are drawn: those nearest to refusal


def section(model: ModelFacts, tools: Tools, plans: Mapping[str, Plan] | Broken) -> Markup:
    """All parts of a model."""
    state, kind = health(model)
    pictures = list(_pictures(model, tools, plans))
    return fill("model.html", model=model, state=state, kind=kind, live=live(model, tools), pictures=pictures)


def health(model: ModelFacts) -> tuple[str, str]:
    """A model in a few words, and the colour that goes with them."""
    if isinstance(model.serving, Broken):
        return "unknown", "bad"
    if model.serving.live is None:
        return "not live yet", ""
    if model.alarms:
        return many(len(model.alarms), "open alarm"), "bad"
    if isinstance(model.report, Broken):
        return "live; its monitoring cannot be read", "bad"
    return ("live, no alarm" if model.report else "live"), "ok"


def _pictures(model: ModelFacts, tools: Tools, plans: Mapping[str, Plan] | Broken) -> Iterator[Markup]:
    """The pictures there are; a model of which nothing is known yet has none."""
    if model.live or model.report is not None:
        yield from monitoring.pictures(model)
    if model.live or model.verdicts or model.outcome:
        yield verdict(model, tools)
    yield retraining(model, tools, plans)
    if model.verdicts or model.decisions or model.rollouts:
        yield history(model)


@part("Live release")
def live(model: ModelFacts, tools: Tools) -> Markup:
    """Which release is live since when, how good it is, what it was trained on, and the standby."""
    state = facts.unbroken(model.serving)
    release = model.release if isinstance(model.release, facts.ReleaseFacts) else None
    return fill("live.html", model=model, state=state, tools=tools, release=release, loss=_loss(model))


@part("Loss")
def _loss(model: ModelFacts) -> Markup:
    """The newest measured loss, else the newest estimate, else what was promised."""
    promised = monitoring.promised(model)
    newest = next((found for how in ("measured", "estimated") if (found := monitoring.newest(model, how))), None)
    how, window, entry = newest or ("", {}, {})
    is_bad = monitoring.is_worse(entry, promised)
    values = {"loss": model.section.gate.loss, "promised": promised, "how": how, "window": window}
    return fill("loss.html", **values, entry=entry, is_bad=is_bad)


# ── the verdict ───────────────────────────────────────────────────────────────────────────────────


@part("The last verdict")
def verdict(model: ModelFacts, tools: Tools) -> Markup:
    """What the gate decided last, and why; of a candidate whose verdict is not at hand, what became of it."""
    verdicts = facts.unbroken(model.verdicts)
    if not verdicts:
        return fill("outcome.html", outcome=facts.unbroken(model.outcome), tools=tools)
    last = verdicts[-1]
    checks = [Check(**check) for check in last["checks"]]
    drawn, _ = verdict_chart.drawn(checks, has_champion=bool(last["champion"]), most=SLICES)
    return fill(
        "verdict.html",
        model=model,
        last=last,
        tools=tools,
        chart=verdict_chart.draw(drawn, last["rule"]["loss"], has_champion=bool(last["champion"])) if drawn else None,
        checks=sorted(checks, key=lambda check: check.passed),
        earlier=_before(verdicts),
    )


def _before(lines: Lines) -> Lines:
    return lines[-2 : -2 - EARLIER : -1]


# ── retraining ────────────────────────────────────────────────────────────────────────────────────


@part("Retraining")
def retraining(model: ModelFacts, tools: Tools, plans: Mapping[str, Plan] | Broken) -> Markup:
    """What the policy decided last, and how near each condition is."""
    plan = None if isinstance(plans, Broken) else plans.get(f"train/{model.name}")
    decisions, policy = facts.unbroken(model.decisions), model.section.retrain
    if not decisions:
        when = f"It trains when (params.yaml, retrain): {_in_words(policy)}."
        return empty("Retraining", f"The retrain policy was not evaluated yet. {when}")
    last = decisions[-1]
    return fill(
        "retraining.html",
        model=model,
        tools=tools,
        plan=plan,
        last=last,
        says_more=_says_more(last),
        conditions=[_conditions(line) for line in last["reasons"]],
        gap=policy.gap_days,
        earlier=_before(decisions),
    )


def _conditions(line: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup | None]]:
    """The conditions of a line of `when`, all of which must hold: each in words, and as a bar."""
    shown = []
    for reason in line:
        spoken = f"{reason['name'].replace('_', ' ')}: {reason['words']}"
        limit = reason.get("limit")
        shown.append((reason["words"], None if limit is None else charts.progress(reason.get("value"), limit, spoken)))
    return shown


def _says_more(last: Mapping[str, Any]) -> bool:
    """Whether a decision's reason is more than its conditions, whose words stand at their bars."""
    rest = str(last["why"]).removeprefix("no: ")
    for reason in (reason for line in last["reasons"] for reason in line):
        rest = rest.replace(reason["words"], "")
    return bool(rest.replace("; or ", "").replace(" and ", "").strip("; "))


def _in_words(policy: params.Retrain) -> str:
    lines = [
        " and ".join(f"{name.replace('_', ' ')} {limit:g}" for name, limit in line.given()) for line in policy.when
    ]
    return " or ".join(lines) or "a person's request alone"


# ── history ───────────────────────────────────────────────────────────────────────────────────────


@part("History")
def history(model: ModelFacts) -> Markup:
    """Decisions, verdicts and rollouts along one time axis."""
    rollouts = facts.unbroken(model.rollouts)
    events = list(_events(model, rollouts))
    if not events:
        return empty("History", "No verdict and no rollout yet.")
    lanes = [lane for lane in _COUNTED if any(event.lane == lane for event in events)]
    counted = "; ".join(_counted(lane, events) for lane in lanes)
    return fill(
        "history.html",
        model=model,
        counted=counted,
        timeline=charts.timeline(lanes, events, counted),
        has_decisions="decision" in lanes,
        rollouts=[(line, _rollout(line)) for line in reversed(rollouts[-EARLIER:])],
    )


_COUNTED = {
    "decision": "decided to train {yes}×, not to {none}×",
    "verdict": "{yes} promoted, {no} refused",
    "rollout": "{yes} went live, {no} withdrawn",
}


def _counted(lane: str, events: Sequence[charts.Event]) -> str:
    kinds = [event.kind for event in events if event.lane == lane]
    return _COUNTED[lane].format(**{kind: kinds.count(kind) for kind in ("yes", "no", "none")})


def _events(model: ModelFacts, rollouts: Lines) -> list[charts.Event]:
    """Oldest first; of what cannot be read, nothing: its own part says so."""
    decisions = [] if isinstance(model.decisions, Broken) else [line for line in model.decisions if line.get("time")]
    verdicts = [] if isinstance(model.verdicts, Broken) else model.verdicts
    lines = [
        *((line["time"], "decision", "yes" if line["retrain"] else "none", line["why"]) for line in decisions),
        *((line["time"], "verdict", "yes" if line["promoted"] else "no", line["summary"]) for line in verdicts),
        *((line["time"], "rollout", "yes" if line["outcome"] == "live" else "no", _rollout(line)) for line in rollouts),
    ]
    events = [charts.Event(read_time(time), lane, kind, words) for time, lane, kind, words in lines]
    return sorted(events, key=lambda event: event.time)


def _rollout(line: Mapping[str, Any]) -> str:
    if line["outcome"] == "live":
        return f"version {line['version']} went live"
    return f"version {line['version']} was withdrawn: {line['why']}"
