"""A model: what serves since when, how good it is, what the gate and the retrain policy said of it, what happened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deployments.status_page import charts, facts, monitoring
from deployments.status_page.components import empty, figure, keys, link, opened, part, sentence, table, words
from deployments.status_page.facts import Broken, Ledger, Model, Plan, Tools
from deployments.status_page.markup import Markup, day, days, join, many, moment, number, read_time, short, tag
from tasks.ground import params
from tasks.release.registry import desired_state

EARLIER = 5
"""So many earlier verdicts, rollouts and decisions are listed; the picture of what happened shows all at hand."""

SLICES = 8
"""Of a verdict, so many slices are drawn: those nearest to refusal."""


def model(one: Model, tools: Tools, plans: Mapping[str, Plan] | Broken) -> Markup:
    """Everything of one model."""
    state, kind = health(one)
    name = f"model-{one.name}"
    heading = tag("h2", one.name, id=name)
    return tag(
        "section",
        tag("div", heading, tag("span", state, class_=f"state {kind}"), class_="title"),
        tag("p", one.section.about, class_="quiet"),
        part("What serves", lambda: live(one, tools)),
        tag("div", list(_pictures(one, tools, plans)), class_="pictures"),
        aria_labelledby=name,
    )


def health(one: Model) -> tuple[str, str]:
    """A model in a few words, and the colour that goes with them."""
    if isinstance(one.serving, Broken):
        return "cannot be told", "bad"
    if one.serving.live is None:
        return "does not serve yet", ""
    if one.alarms:
        return many(len(one.alarms), "open alarm"), "bad"
    if isinstance(one.report, Broken):
        return "serves; its monitoring cannot be read", "bad"
    return ("serves, no alarm" if one.report else "serves"), "ok"


def _pictures(one: Model, tools: Tools, plans: Mapping[str, Plan] | Broken) -> Iterator[Markup]:
    """The pictures there are; a model of which nothing is known yet has none."""
    if one.report is not None:
        yield from monitoring.pictures_of(one)
    elif one.live:
        yield empty(
            "Quality, drift, requests", "Not monitored yet: the flow monitor looks at what was asked and answered."
        )
    if one.live or one.verdicts or one.settled:
        yield part("The last verdict", lambda: verdict(one, tools))
    yield part("Retraining", lambda: retraining(one, tools, plans))
    if one.verdicts or one.decisions or one.rollouts:
        yield part("What happened", lambda: happened(one))


# ── what serves ───────────────────────────────────────────────────────────────────────────────────


def live(one: Model, tools: Tools) -> Markup:
    """Who serves since when, how good it is, and what it learned from."""
    now = facts.unbroken(one.serving)
    if now.live is None:
        how = "The first candidate that the gate promotes is rolled out by itself; "
        return tag("p", "Nothing serves yet. ", how, tag("code", "make run"), " makes one of the example's data.")
    version = link(tools.version(one.name, now.live.version), f"version {now.live.version}")
    shown = [
        _fact(
            "Live",
            version,
            join("since ", moment(now.live.since), tag("br"), "candidate ", tag("code", now.live.candidate)),
        )
    ]
    shown.append(part("Loss", lambda: _loss(one)))
    if isinstance(one.release, facts.Release):
        shown.append(_fact("Learned from", many(one.release.rows, "row"), join("until ", day(one.release.until))))
    shown.append(_fact("Beside it", _beside(now), _tried(now)))
    return tag("dl", shown, class_="facts")


def _fact(name: str, big: Any, more: Any = None, *, is_bad: bool = False) -> Markup:
    shown = tag("span", big, class_=f"big{' no-mark' if is_bad else ''}")
    return tag("div", tag("dt", name), tag("dd", shown, tag("span", more, class_="small quiet")))


def _beside(now: desired_state.DesiredState) -> str:
    if now.challenger:
        return f"version {now.challenger.version}"
    return f"version {now.previous.version}" if now.previous else "nobody"


def _tried(now: desired_state.DesiredState) -> str:
    if now.challenger:
        return f"is being tried{f' with {now.share:.0%} of the requests' if now.share else ''}"
    return "is kept warm: a rollback is at once" if now.previous else "the first one that serves"


def _loss(one: Model) -> Markup:
    """The newest measured loss, else the newest estimate, else what was promised."""
    loss, promised = one.section.gate.loss, monitoring.promised(one)
    name, beside = monitoring.loss_name(loss), f"promised {monitoring.interval(promised)}" if promised else None
    for how in ("measured", "estimated"):
        if found := monitoring.newest(one, how):
            window, entry = found
            when = join(days(window["since"], window["until"]), tag("br"), beside)
            is_bad = monitoring.is_worse(entry, promised)
            return _fact(f"{name}, {how}", short(entry["value"]), when, is_bad=is_bad)
    if promised is None:
        return _fact(name, "unknown", "neither measured nor promised")
    return _fact(
        f"{name}, promised", short(promised["value"]), f"{monitoring.ends(promised)} on its holdout; not measured yet"
    )


# ── the verdict ───────────────────────────────────────────────────────────────────────────────────


def verdict(one: Model, tools: Tools) -> Markup:
    """What the gate said last, and why."""
    told = facts.unbroken(one.verdicts)
    if not told:
        return _settled(one, tools)
    last = told[-1]
    drawn = _drawn(last)
    failed = [check for check in last["checks"] if not check["passed"]]
    against = f"against champion {last['champion']}" if last["champion"] else "there was no champion to compare with"
    run = _run(tools, last.get("run"))
    title = join("The last verdict, on ", link(tools.version(one.name, last["version"]), f"version {last['version']}"))
    return figure(
        title,
        join(_mark(last["promoted"]), " ", moment(last["time"]), ", ", against, run),
        charts.verdict(drawn, _spoken_verdict(last, drawn)) if drawn else None,
        keys(("limit", "the most that is allowed")) if drawn else None,
        words(join(tag("code", check["name"]), " ", check["reason"]) for check in failed)
        or tag("p", f"All {len(last['checks'])} checks passed.", class_="quiet"),
        _checks(one.name, last),
        opened(f"verdicts-{one.name}", "Earlier verdicts", words(_verdict_line(line) for line in _before(told))),
    )


def _settled(one: Model, tools: Tools) -> Markup:
    """What is known of the candidate in build/, where no verdict was kept at hand."""
    settled = facts.unbroken(one.settled)
    if settled is None:
        return empty(
            "The last verdict", "No candidate was judged here yet. The flow train makes one and has it judged."
        )
    return figure("The last verdict", join(sentence(settled.outcome), _run(tools, settled.by)))


def _run(tools: Tools, noted: str | None) -> Markup | None:
    """Where to look at the flow run that did it, if Prefect answers."""
    url = tools.run(noted)
    return join(", ", link(url, "the run")) if url else None


def _mark(promoted: bool) -> Markup:
    return tag("span", "✓ promoted" if promoted else "✗ refused", class_="yes-mark" if promoted else "no-mark")


def _drawn(last: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The checks that have a difference to draw: the overall one, then the slices nearest to refusal."""
    checks = [check for check in last["checks"] if check["value"] is not None]
    overall = "improvement" if last["champion"] else "beats_baseline"
    slices = [check for check in checks if check["name"].startswith("slice:")]
    slices.sort(key=lambda check: check["value"] - (check["threshold"] or 0), reverse=True)
    return [check for check in checks if check["name"] == overall] + slices[:SLICES]


def _spoken_verdict(last: Mapping[str, Any], drawn: Sequence[Mapping[str, Any]]) -> str:
    beside = "the champion's" if last["champion"] else "the baseline's"
    said = [f"{monitoring.loss_name(last['rule']['loss'])} less {beside}; below 0 is better."]
    for check in drawn:
        between = f", {check['interval'][0]:+.3g} to {check['interval'][1]:+.3g}" if check["interval"] else ""
        passed = "passed" if check["passed"] else "failed"
        said.append(f"{charts.row_name(check['name'])}: {check['value']:+.3g}{between}, {passed}.")
    return " ".join(said)


def _checks(name: str, last: Mapping[str, Any]) -> Markup:
    rows = [
        ["passed" if check["passed"] else "failed", tag("code", check["name"]), check["reason"]]
        for check in sorted(last["checks"], key=lambda check: check["passed"])
    ]
    basis = f"{number(last['holdout']['compared'])} of {many(last['holdout']['rows'], 'holdout row')}"
    caption = f"Challenger {last['challenger']} of {name}, compared on {basis}; verdict {last['id']}"
    return table(f"checks-{name}", f"All {len(rows)} checks", caption, ["Result", "Check", "Reason"], rows)


def _verdict_line(line: Mapping[str, Any]) -> Markup:
    return join(_mark(line["promoted"]), f" version {line['version']}, ", moment(line["time"]), f": {line['summary']}")


def _before(ledger: Ledger) -> Ledger:
    """The lines before the last one, the newest first."""
    return ledger[-2 : -2 - EARLIER : -1]


# ── retraining ────────────────────────────────────────────────────────────────────────────────────


def retraining(one: Model, tools: Tools, plans: Mapping[str, Plan] | Broken) -> Markup:
    """What the policy said last, how near each condition is, and what it waits for."""
    plan = None if isinstance(plans, Broken) else plans.get(f"train/{one.name}")
    title = link(plan.url if plan else None, "Retraining")
    told, policy = facts.unbroken(one.decisions), one.section.retrain
    if not told:
        return empty(
            "Retraining",
            "The retrain policy was not asked yet. It wants (params.yaml, retrain): ",
            _policy(policy),
            ".",
        )
    last = told[-1]
    conditions = [[_condition(reason, at > 0) for at, reason in enumerate(line)] for line in last["reasons"]]
    gap = f"Never within {many(policy.gap_days, 'day')} of the last training." if policy.gap_days else None
    return figure(
        title,
        join(_answer(last), " ", _asked(last, tools)),
        tag("p", sentence(last["why"])) if _says_more(last) else None,
        conditions,
        keys(("limit", "from here on it trains")) if any(conditions) else None,
        tag("p", gap, class_="quiet small") if gap else None,
        opened(
            f"decisions-{one.name}", "Earlier decisions", words(_decision_line(line, tools) for line in _before(told))
        ),
    )


def _says_more(last: Mapping[str, Any]) -> bool:
    """Whether a decision's reason is more than its conditions, whose words stand at their bars."""
    rest = str(last["why"]).removeprefix("no: ")
    for reason in (reason for line in last["reasons"] for reason in line):
        rest = rest.replace(reason["words"], "")
    return bool(rest.replace("; or ", "").replace(" and ", "").strip("; "))


def _policy(policy: params.Retrain) -> str:
    lines = [
        " and ".join(f"{name.replace('_', ' ')} {limit:g}" for name, limit in line.given()) for line in policy.when
    ]
    return " or ".join(lines) or "a person's word alone"


def _answer(line: Mapping[str, Any]) -> Markup:
    return tag("span", "✓ train" if line["retrain"] else "not now", class_="yes-mark" if line["retrain"] else "state")


def _asked(line: Mapping[str, Any], tools: Tools) -> Markup:
    when = join("asked ", moment(line["at"])) if line.get("at") else join("as of ", moment(line["state"]["now"]))
    return join(when, _run(tools, line.get("run")))


def _condition(reason: Mapping[str, Any], goes_on: bool) -> Markup:
    """A condition of a line of `when`; all of a line must hold."""
    value, limit = reason.get("value"), reason.get("limit")
    spoken = f"{reason['name'].replace('_', ' ')}: {reason['words']}"
    drawn = None if limit is None else charts.progress(value, limit, spoken)
    return tag("div", tag("p", "and " if goes_on else None, reason["words"], class_="small"), drawn, class_="condition")


def _decision_line(line: Mapping[str, Any], tools: Tools) -> Markup:
    return join(_answer(line), " ", _asked(line, tools), f": {line['why']}")


# ── what happened ─────────────────────────────────────────────────────────────────────────────────


def happened(one: Model) -> Markup:
    """Decisions, verdicts and rollouts on one line of time."""
    rollouts = facts.unbroken(one.rollouts)
    events = list(_events(one, rollouts))
    if not events:
        return empty("What happened", "No verdict and no rollout yet.")
    first, newest = events[0], events[-1]
    counts = {
        lane: [event.kind for event in events if event.lane == lane] for lane in ("decision", "verdict", "rollout")
    }
    said = [text for lane, texts in _COUNTED.items() if (text := _counted(texts, counts[lane]))]
    spoken = f"From {day(first.time)} to {day(newest.time)}: {'; '.join(said)}. The newest: {newest.says}"
    signs = [("yes", "trained, promoted, live"), ("no", "refused, withdrawn"), ("none", "no training was due")]
    lines = (
        join(
            moment(line["time"]),
            ": ",
            tag("span", _rollout(line), class_=None if line["outcome"] == "live" else "no-mark"),
        )
        for line in reversed(rollouts[-EARLIER:])
    )
    return figure(
        "What happened",
        sentence("; ".join(said)),
        charts.timeline([lane for lane in counts if counts[lane]], events, spoken),
        keys(*(signs if counts["decision"] else signs[:2])),
        opened(f"rollouts-{one.name}", "The last rollouts", words(lines)),
    )


_COUNTED = {
    "decision": ("{yes} times it was time to train, {none} times not",),
    "verdict": ("{yes} promoted", "{no} refused"),
    "rollout": ("{yes} went live", "{no} withdrawn"),
}


def _counted(texts: Sequence[str], kinds: Sequence[str]) -> str:
    filled = {kind: kinds.count(kind) for kind in ("yes", "no", "none")}
    return ", ".join(text.format(**filled) for text in texts) if kinds else ""


def _events(one: Model, rollouts: Ledger) -> list[charts.Happened]:
    """Oldest first; of a ledger that cannot be read, nothing: its own part says so."""
    decisions = [] if isinstance(one.decisions, Broken) else [line for line in one.decisions if line.get("at")]
    verdicts = [] if isinstance(one.verdicts, Broken) else one.verdicts
    lines = [
        *((line["at"], "decision", "yes" if line["retrain"] else "none", line["why"]) for line in decisions),
        *((line["time"], "verdict", "yes" if line["promoted"] else "no", line["summary"]) for line in verdicts),
        *((line["time"], "rollout", "yes" if line["outcome"] == "live" else "no", _rollout(line)) for line in rollouts),
    ]
    events = [charts.Happened(read_time(time), lane, kind, says) for time, lane, kind, says in lines]
    return sorted(events, key=lambda event: event.time)


def _rollout(line: Mapping[str, Any]) -> str:
    if line["outcome"] == "live":
        return f"version {line['version']} went live"
    return f"version {line['version']} was withdrawn: {line['why']}"
