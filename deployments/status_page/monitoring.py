"""What the monitor measured of a model: its quality and its drift over time, its requests, its alarms.

All of it is in var/monitoring/<model>/report.json, which flows/monitor.py writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from deployments.status_page import facts
from deployments.status_page.facts import Broken, ModelFacts
from deployments.status_page.parts import broken, empty, fill, part
from tasks.ground.words import many
from tasks.monitoring import chart
from tasks.monitoring.chart import loss_entry
from tasks.pictures.formatting import Entry, days, ends, interval, loss_name, read_time, short

TITLE = "Quality, drift, requests"
NO_REQUESTS = "No requests yet."

Window = Mapping[str, Any]
"""A window of the report: since, until, rows, labels, measured, estimated, by release and by slice."""


def pictures(model: ModelFacts) -> Iterator[Markup]:
    """Quality, drift and requests; one notice where there is no report, it cannot be read, or nothing was requested."""
    if model.report is None:
        yield empty(TITLE, "Not monitored yet: the flow monitor measures what was requested and answered.")
    elif isinstance(model.report, Broken):
        yield broken(TITLE, model.report.why)
    elif facts.attempt(lambda: _was_requested(model)) is False:
        yield _idle(model)
    else:
        yield from (quality(model, model.report), drift(model, model.report), service(model, model.report))


def _was_requested(model: ModelFacts) -> bool:
    report = facts.unbroken(model.report) or {}
    return bool(report["quality"]["windows"] or report["service"]["days"])


@part(TITLE)
def _idle(model: ModelFacts) -> Markup:
    entry = promised(model)
    return empty(TITLE, f"{NO_REQUESTS} {_promise(model, entry)}" if entry else NO_REQUESTS)


def _promise(model: ModelFacts, entry: Entry | None) -> str:
    return f"{loss_name(model.section.gate.loss)} was promised to be {interval(entry)}."


# ── the loss of the live release ──────────────────────────────────────────────────────────────────


def promised(model: ModelFacts) -> Entry | None:
    """What the evaluation promised of the loss: as the monitor has it, else as the release says."""
    loss, reported = model.section.gate.loss, _quality(model)
    if reported.get("promised") and reported.get("loss") == model.section.loss:
        return dict(reported["promised"])
    if not isinstance(model.release, facts.ReleaseFacts):
        return None
    if loss in model.release.overall:
        return model.release.overall[loss]
    return {"value": model.release.metrics[loss]} if loss in model.release.metrics else None


def newest(model: ModelFacts, how: str) -> tuple[str, Window, Entry] | None:
    """`how`, and the newest window of which the loss of the live release is `measured` or `estimated`, and that."""
    reported = _quality(model)
    windows = _of_live(model, chart.windows(reported))
    entries = [(how, window, entry) for window in windows if (entry := loss_entry(window, how, reported["loss"]))]
    return entries[-1] if entries else None


def is_worse(entry: Entry, than: Entry | None) -> bool:
    """Whether a loss is above another, and their intervals do not meet."""
    return bool(than and ends(entry) and ends(than) and entry["low"] > than["high"])


def _quality(model: ModelFacts) -> Mapping[str, Any]:
    return (model.report.get("quality") or {}) if isinstance(model.report, dict) else {}


def _of_live(model: ModelFacts, windows: Sequence[Window]) -> list[Window]:
    """What the live release answered in each window: a promise says nothing of the release before."""
    candidate = model.live.candidate if model.live else ""
    own = [(window, (window.get("releases") or {}).get(candidate)) for window in windows]
    return [{**window, **numbers} for window, numbers in own if numbers]


# ── quality ───────────────────────────────────────────────────────────────────────────────────────


@part("Quality")
def quality(model: ModelFacts, report: Mapping[str, Any]) -> Markup:
    """Promised, measured and estimated loss over time."""
    reported, was_promised = report["quality"], promised(model)
    if not reported or not chart.has_quality(reported):
        promise = _promise(model, was_promised) if was_promised else ""
        return empty("Quality", " ".join(filter(None, (_known(reported) or NO_REQUESTS, promise))))
    loss, windows = reported["loss"], chart.windows(reported)
    compared, is_bad = _compared(_of_live(model, windows), loss, was_promised)
    measured = dict.fromkeys(metric for window in windows for metric in window.get("measured") or {})
    sliced = next((window for window in reversed(windows) if window.get("slices")), None)
    return fill(
        "quality.html",
        model=model,
        loss=loss,
        compared=compared,
        known=_known(reported),
        is_bad=is_bad,
        chart=chart.quality_chart(reported, was_promised, _changes(model)),
        signs={how: any(loss_entry(window, how, loss) for window in windows) for how in ("measured", "estimated")},
        promised=was_promised,
        metrics=[metric for metric in measured if metric != loss],
        windows=windows[::-1],
        entry=loss_entry,
        sliced=sliced,
        slices=_slices(sliced, loss) if sliced else [],
    )


def _known(reported: Mapping[str, Any] | None) -> str:
    """How far quality is known, and what the promise rests on; empty where an older report does not say."""
    texts = ((reported or {}).get(name) for name in ("text", "basis"))
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in texts if text)


def _changes(model: ModelFacts) -> list[tuple[Any, str]]:
    lines = [] if isinstance(model.rollouts, Broken) else model.rollouts
    return [
        (read_time(line["time"]), f"version {line['version']} went live") for line in lines if line["outcome"] == "live"
    ]


def _compared(windows: Sequence[Window], loss: str, with_: Entry | None) -> tuple[str, bool]:
    """The newest windows that are measured and estimated, in words; and whether the first is worse beyond doubt."""
    sentences, is_bad, until = [], None, ""
    for how in ("measured", "estimated"):
        later = [window for window in windows if loss_entry(window, how, loss) and str(window["until"]) > until]
        if later:
            window, entry = later[-1], loss_entry(later[-1], how, loss) or {}
            against = _against(entry, with_) if is_bad is None else ""
            sentences.append(f"{days(window['since'], window['until'])}: {how} {interval(entry)}{against}.")
            is_bad = is_worse(entry, with_) if is_bad is None else is_bad
            until = str(window["until"])
    return " ".join(sentences) or "The live release has too few predictions yet to be compared.", bool(is_bad)


def _against(entry: Entry, with_: Entry | None) -> str:
    if not with_ or not with_["value"]:
        return ""
    change = entry["value"] / with_["value"] - 1
    return f", {abs(change):.0%} {'above' if change >= 0 else 'below'} the promised {interval(with_)}"


def _slices(window: Window, loss: str) -> list[tuple[str, int, Entry | None]]:
    """Slice, rows and loss, the worst first; those of too few rows last."""
    slices = [
        (f"{column} = {value}", entry["rows"], (entry.get("metrics") or {}).get(loss))
        for column, values in window["slices"].items()
        for value, entry in values.items()
    ]
    return sorted(slices, key=lambda row: row[2]["value"] if row[2] else float("-inf"), reverse=True)


# ── drift and requests ────────────────────────────────────────────────────────────────────────────


@part("Drift")
def drift(model: ModelFacts, report: Mapping[str, Any]) -> Markup:
    """The evidence over time that the data drifted, and which columns did."""
    data = report["data"]
    columns = (data.get("columns") or []) if data else []
    ranked = sorted(columns, key=lambda row: (row["status"] != "drift", 1 if row.get("q") is None else row["q"]))
    drifted = [column for column in columns if column["status"] == "drift"]
    evidence = chart.evidence(data) if data else None
    return fill("drift.html", model=model, data=data, columns=ranked, drifted=drifted, chart=evidence)


@part("Requests")
def service(model: ModelFacts, report: Mapping[str, Any]) -> Markup:
    """How many requests a day, and how long they took."""
    daily = sorted((report.get("service") or {}).get("days") or [], key=lambda entry: str(entry["day"]))
    if not daily:
        return empty("Requests", NO_REQUESTS)
    last, total = daily[-1], sum(entry["requests"] for entry in daily)
    says = f"{days(last['day'], last['day'])}: {many(last['requests'], 'request')} with {many(last['rows'], 'row')}"
    if last["p50"] is not None:
        says += f", median {short(last['p50'])} ms, 99 of 100 within {short(last['p99'])} ms"
    spoken = (
        f"Requests by day, and how long they took. {many(total, 'request')} on {many(len(daily), 'day')}. Last, {says}."
    )
    return fill("requests.html", model=model, says=says, chart=chart.requests(daily, spoken), daily=daily[::-1])


def alarms(models: Sequence[ModelFacts]) -> Markup:
    """The open alarms of all models; nothing where none is open."""
    shown = [_alarms(model) for model in models if model.alarms]
    return fill("alarms.html", alarms=shown) if shown else Markup()


@part("Open alarms")
def _alarms(model: ModelFacts) -> Markup:
    return Markup().join(fill("alarm.html", model=model, alarm=alarm) for alarm in model.alarms)
