"""What the monitor found of a model: its quality and its drift over time, its requests, its alarms.

All of it is in var/monitoring/<model>/report.json, which flows/monitor.py writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import time
from typing import Any

from deployments.status_page import charts, facts
from deployments.status_page.components import broken, empty, ended, figure, keys, part, sentence, table, words
from deployments.status_page.facts import Broken, Model
from deployments.status_page.markup import Markup, day, days, join, many, moment, number, read_time, short, tag

Entry = Mapping[str, Any]
"""{value, low, high} of a metric; low and high may be missing or None."""


def pictures_of(one: Model) -> Iterator[Markup]:
    """Quality, drift and requests; one notice where the report cannot be read at all, or nothing was asked yet."""
    if isinstance(one.report, Broken):
        yield broken("Quality, drift, requests", one.report.why)
    elif one.report is not None and facts.attempt(lambda: _was_asked(one)) is False:
        yield part("Quality, drift, requests", lambda: _idle(one))
    elif one.report is not None:
        report = one.report
        for title, make in (("Quality", quality), ("Drift", drift), ("Requests", service)):
            yield part(title, lambda make=make: make(one, report))  # type: ignore[misc] # bound now, not later


def _was_asked(one: Model) -> bool:
    report = facts.unbroken(one.report) or {}
    return bool(report["quality"]["windows"] or report["service"]["days"])


def _idle(one: Model) -> Markup:
    loss, was_promised = loss_name(one.section.gate.loss), promised(one)
    says = f" {loss} was promised to be {interval(was_promised)}." if was_promised else ""
    return empty("Quality, drift, requests", f"Nothing was asked of it yet.{says}")


# ── what there is to say of a loss ────────────────────────────────────────────────────────────────


def loss_name(loss: str) -> str:
    """A loss or metric as it is said."""
    known = {"poisson": "Poisson deviance", "brier": "Brier score", "roc_auc": "ROC AUC", "mae": "MAE", "rmse": "RMSE"}
    return known.get(loss, loss.replace("_", " ").capitalize())


def interval(entry: Entry | None) -> str:
    """0.378 (0.344 to 0.412)."""
    if entry is None or entry.get("value") is None:
        return "unknown"
    return f"{short(entry['value'])}{f' ({ends(entry)})' if ends(entry) else ''}"


def ends(entry: Entry) -> str:
    """0.344 to 0.412; nothing where there is no interval."""
    low, high = entry.get("low"), entry.get("high")
    return "" if low is None or high is None else f"{short(low)} to {short(high)}"


def promised(one: Model) -> Entry | None:
    """What the evaluation promised of the loss: as the monitor has it, else as the release says."""
    loss, said = one.section.gate.loss, _quality(one)
    if said.get("promised") and said.get("loss") == loss:
        return dict(said["promised"])
    if not isinstance(one.release, facts.Release):
        return None
    if loss in one.release.overall:
        return one.release.overall[loss]
    return {"value": one.release.metrics[loss]} if loss in one.release.metrics else None


def newest(one: Model, how: str) -> tuple[Mapping[str, Any], Entry] | None:
    """The newest window of which the loss of who serves is `measured` or `estimated`, and that."""
    said = _quality(one)
    found = [(window, entry) for window in _own(one, _windows(said)) if (entry := _of(window, how, said["loss"]))]
    return found[-1] if found else None


def _quality(one: Model) -> Mapping[str, Any]:
    return (one.report.get("quality") or {}) if isinstance(one.report, dict) else {}


def _windows(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return sorted(said.get("windows") or [], key=lambda window: str(window["until"]))


def _own(one: Model, windows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What who serves has answered: what it promised says nothing of who served before."""
    candidate = one.live.candidate if one.live else ""
    own = [(window, (window.get("releases") or {}).get(candidate)) for window in windows]
    return [{**window, **said} for window, said in own if said]


def _of(window: Mapping[str, Any], how: str, loss: str) -> Entry | None:
    entry: Entry | None = (window.get(how) or {}).get(loss) if how == "measured" else window.get(how)
    return entry if entry and entry.get("value") is not None else None


# ── quality ───────────────────────────────────────────────────────────────────────────────────────


def quality(one: Model, report: Mapping[str, Any]) -> Markup:
    """Promised, measured and estimated loss over time."""
    said, was_promised = report["quality"], promised(one)
    if not said:
        return empty("Quality", "Nothing was asked of it yet.")
    loss, windows = said["loss"], _windows(said)
    measured, estimated = (_points(windows, how, loss) for how in ("measured", "estimated"))
    if not measured and not estimated:
        asked = sum(window["rows"] for window in windows)
        waits = f"{many(asked, 'prediction')} wait for their labels, and are too few for an estimate"
        said_of = f"{loss_name(loss)} was promised to be {interval(was_promised)}."
        return empty("Quality", sentence(waits if asked else "nothing was asked of it yet"), " ", said_of)
    compared, is_bad = _compared(_own(one, windows), loss, was_promised)
    spoken = (
        f"{loss_name(loss)} over time, lower is better. Promised: {interval(was_promised)}. "
        f"{_spoken('Measured', measured)} {_spoken('Estimated', estimated)} The table below has all numbers."
    )
    signs = [
        ("measured", "measured"),
        ("estimated", "estimated, before labels come"),
        ("promised", "promised on the holdout"),
    ]
    return figure(
        f"{loss_name(loss)} over time",
        compared,
        charts.quality(measured, estimated, was_promised, _changes(one), spoken),
        keys(*(sign for sign, points in zip(signs, (measured, estimated, was_promised), strict=True) if points)),
        _window_table(one.name, loss, windows),
        _slice_table(one.name, loss, windows),
        is_bad=is_bad,
    )


def _points(windows: Sequence[Mapping[str, Any]], how: str, loss: str) -> list[charts.Point]:
    points = []
    for window in windows:
        if entry := _of(window, how, loss):
            since, until = read_time(window["since"]), read_time(window["until"])
            says = f"{days(window['since'], window['until'])}: {how} {interval(entry)}"
            middle = since + (until - since) / 2
            points.append(charts.Point(middle, entry["value"], entry.get("low"), entry.get("high"), says))
    return points


def _spoken(how: str, points: Sequence[charts.Point]) -> str:
    if not points:
        return f"{how}: nothing yet."
    low, high = min(points, key=lambda point: point.value), max(points, key=lambda point: point.value)
    last = points[-1].says.replace(f"{how.lower()} ", "")
    return (
        f"{how} in {many(len(points), 'window')}: lowest {short(low.value)} around {day(low.time)}, "
        f"highest {short(high.value)} around {day(high.time)}, last {last}."
    )


def _changes(one: Model) -> list[tuple[Any, str]]:
    """When another version went live."""
    lines = [] if isinstance(one.rollouts, Broken) else one.rollouts
    return [
        (read_time(line["time"]), f"version {line['version']} went live") for line in lines if line["outcome"] == "live"
    ]


def _compared(windows: Sequence[Mapping[str, Any]], loss: str, with_: Entry | None) -> tuple[str, bool]:
    """The newest windows that are measured and estimated, in words; and whether the first is worse beyond doubt."""
    told, is_bad, until = [], None, ""
    for how in ("measured", "estimated"):
        found = [window for window in windows if _of(window, how, loss) and str(window["until"]) > until]
        if found:
            window, entry = found[-1], _of(found[-1], how, loss) or {}
            said, worse = _against(entry, with_) if is_bad is None else ("", is_bad)
            told.append(f"{days(window['since'], window['until'])}: {how} {interval(entry)}{said}.")
            is_bad, until = worse, str(window["until"])
    return " ".join(told) or "Who serves has not answered enough yet to be compared.", bool(is_bad)


def _against(entry: Entry, with_: Entry | None) -> tuple[str, bool]:
    if not with_ or not with_["value"]:
        return "", False
    change = entry["value"] / with_["value"] - 1
    said = f", {abs(change):.0%} {'above' if change >= 0 else 'below'} the promised {interval(with_)}"
    return said, is_worse(entry, with_)


def is_worse(entry: Entry, than: Entry | None) -> bool:
    """Whether a loss is above another, and their intervals do not meet."""
    return bool(than and ends(entry) and ends(than) and entry["low"] > than["high"])


def _window_table(name: str, loss: str, windows: Sequence[Mapping[str, Any]]) -> Markup:
    metrics = dict.fromkeys(metric for window in windows for metric in window.get("measured") or {})
    others = [metric for metric in metrics if metric != loss]
    head = ["Window", "Rows", "Labels", f"{loss_name(loss)}, measured", "Estimated", "Off by", *map(loss_name, others)]
    rows = [
        [
            days(window["since"], window["until"]),
            number(window["rows"]),
            number(window["labels"]),
            _cell(_of(window, "measured", loss)),
            _cell(_of(window, "estimated", loss)),
            "" if window.get("off") is None else f"{window['off']:+.3g}",
            *(_cell(_of(window, "measured", metric)) for metric in others),
        ]
        for window in reversed(windows)
    ]
    return table(f"quality-{name}", "All windows", f"Quality of {name} by window, the newest first", head, rows)


def _cell(entry: Entry | None) -> str:
    return interval(entry) if entry else ""


def _slice_table(name: str, loss: str, windows: Sequence[Mapping[str, Any]]) -> Markup:
    """The slices of the newest window that has labels."""
    window = next((window for window in reversed(windows) if window.get("slices")), None)
    if window is None:
        return join()
    found = [
        (f"{column} = {value}", entry["rows"], (entry.get("metrics") or {}).get(loss))
        for column, values in window["slices"].items()
        for value, entry in values.items()
    ]
    found.sort(key=lambda row: row[2]["value"] if row[2] else float("-inf"), reverse=True)
    rows = [[title, number(count), _cell(entry) or "not enough data"] for title, count, entry in found]
    caption = f"{loss_name(loss)} of {name} by slice, {days(window['since'], window['until'])}, the worst first"
    return table(f"slices-{name}", "By slice", caption, ["Slice", "Rows", loss_name(loss)], rows)


# ── drift ─────────────────────────────────────────────────────────────────────────────────────────


def drift(one: Model, report: Mapping[str, Any]) -> Markup:
    """The evidence over time that the data moved, and what moved."""
    data = report["data"]
    if not data:
        return empty("Drift", "Nothing was asked of it yet.")
    seen, columns = data.get("evidence") or {"days": [], "columns": {}}, data.get("columns") or []
    status = {column["name"]: column["status"] for column in columns}
    there = {name: values for name, values in seen["columns"].items() if any(value is not None for value in values)}
    slight = {column["name"] for column in columns if column.get("slight")}
    lines = [
        charts.Evidence(name, values, status.get(name) == "drift", name in slight) for name, values in there.items()
    ]
    moved = [column for column in columns if column["status"] == "drift"]
    counted = f"{len(moved)} of {many(len(columns), 'column')} moved."  # in how far, the list below says
    says = counted if moved else sentence(data.get("text") or data["status"])
    listed = words(ended(column["text"]) for column in moved)
    if not seen["days"] or not lines or data.get("threshold") is None:
        return figure("Drift", says, listed, _column_table(one.name, columns), is_bad=bool(moved))
    spoken = (
        f"Evidence of drift after each day, {day(seen['days'][0])} to {day(seen['days'][-1])}, in powers of ten: "
        f"{many(len(lines), 'column')} against a threshold of 10 to the {data['threshold']:.1f}. {_spoken_lines(lines)}"
    )
    signs = [("moved", "moved"), ("column", "other columns"), ("threshold", "threshold")]
    return figure(
        "Evidence of drift",
        says,
        charts.evidence([read_time(one) for one in seen["days"]], lines, data["threshold"], spoken),
        keys(*(signs if moved else signs[1:])),
        listed,
        _column_table(one.name, columns),
        is_bad=bool(moved),
    )


def _spoken_lines(lines: Sequence[charts.Evidence]) -> str:
    beyond = sorted(
        (line for line in lines if line.moved or line.slight), key=lambda line: (not line.moved, -line.last)
    )
    if not beyond:
        top = max(lines, key=lambda line: line.last)
        return f"No column is beyond it; the nearest is {top.name} with 10 to the {top.last:.1f}. The table has all."
    said = [
        f"{one.name} with 10 to the {one.last:.1f}{'' if one.moved else ', by less than what matters'}"
        for one in beyond
    ]
    return f"Beyond it: {', '.join(said)}. The table has all."


def _column_table(name: str, columns: Sequence[Mapping[str, Any]]) -> Markup:
    head = ["Column", "What there is to say", "Days", "Rows", "Effect", "PSI", "Missing: before, now", "p", "q"]
    ranked = sorted(columns, key=lambda one: (one["status"] != "drift", 1 if one.get("q") is None else one["q"]))
    rows = [
        [
            join(column["name"], " ", tag("span", column.get("role"), class_="quiet")),
            join(tag("strong", column["status"]), ": ", column["text"]),
            number(column["days"]),
            number(column["rows"]),
            _effect(column),
            _short(column.get("psi")),
            ", ".join("unknown" if share is None else f"{share:.1%}" for share in column.get("missing") or ()),
            _short(column.get("p")),
            _short(column.get("q")),
        ]
        for column in ranked
    ]
    caption = f"What was asked of {name} beside what it learned from (sd: standard deviations, V: Cramér's V)"
    return table(f"columns-{name}", "All columns", caption, head, rows)


def _effect(column: Mapping[str, Any]) -> str:
    if column.get("shift") is not None:
        return f"{column['shift']:+.2g} sd"
    return "" if column.get("cramers_v") is None else f"{column['cramers_v']:.2g} V"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


# ── requests ──────────────────────────────────────────────────────────────────────────────────────


def service(one: Model, report: Mapping[str, Any]) -> Markup:
    """How many requests a day, and how long they took."""
    kept = sorted((report.get("service") or {}).get("days") or [], key=lambda entry: str(entry["day"]))
    if not kept:
        return empty("Requests", "Nothing was asked of it yet.")
    last, total = kept[-1], sum(entry["requests"] for entry in kept)
    took = (
        f", median {short(last['p50'])} ms, 99 of 100 within {short(last['p99'])} ms" if last["p50"] is not None else ""
    )
    says = f"{day(last['day'])}: {many(last['requests'], 'request')} with {many(last['rows'], 'row')}{took}."
    spoken = (
        f"Requests by day, and how long they took. {many(total, 'request')} on {many(len(kept), 'day')}. Last, {says}"
    )
    rows = [
        [
            day(entry["day"]),
            number(entry["requests"]),
            number(entry["rows"]),
            *(number(entry.get(kind, 0)) for kind in ("refused", "shed", "failed")),
            *("" if entry.get(p) is None else short(entry[p]) for p in ("p50", "p95", "p99")),
        ]
        for entry in reversed(kept)
    ]
    head = [
        "Day",
        "Answered",
        "Rows",
        "Refused",
        "Shed",
        "Failed",
        "Median, ms",
        "95 of 100 within, ms",
        "99 of 100 within, ms",
    ]
    return figure(
        "Requests a day, and how long they took",
        says,
        charts.service(kept, spoken),
        table(f"service-{one.name}", "All days", f"Requests to {one.name} by day, the newest first", head, rows),
    )


# ── alarms ────────────────────────────────────────────────────────────────────────────────────────


def alarms(models: Sequence[Model]) -> Markup:
    """What is open, of all models; nothing where nothing is."""
    shown = [part(one.name, lambda one=one: join(_alarm(one, alarm) for alarm in one.alarms)) for one in models]  # type: ignore[misc] # bound now
    if not any(shown):
        return join()
    return tag("section", tag("h2", "Open alarms", id="alarms"), shown, aria_labelledby="alarms")


def _alarm(one: Model, alarm: Mapping[str, Any]) -> Markup:
    told = "" if alarm.get("told", True) else " Nobody was told of it yet."
    return tag(
        "div",
        tag("h3", f"{one.name}: {alarm['kind']}, {alarm['what']}"),
        tag("p", ended(alarm["text"])),
        tag("p", "Since ", _day(alarm["since"]), ", noticed ", _day(alarm["opened"]), ".", told, class_="small"),
        _acknowledged(one.name, alarm),
        class_="alarm",
    )


def _day(text: str) -> Markup:
    """A day, or a moment, as it was written down."""
    return tag("time", day(text), datetime=text[:10]) if read_time(text).time() == time() else moment(text)


def _acknowledged(name: str, alarm: Mapping[str, Any]) -> Markup:
    known = alarm.get("acknowledged")
    if known:
        return tag(
            "p", "Acknowledged ", _day(known["at"]), f": {known['note']}" if known.get("note") else "", class_="small"
        )
    return tag("p", "To acknowledge it: ", tag("code", f"evergreen acknowledge {name} {alarm['key']}"), class_="small")
