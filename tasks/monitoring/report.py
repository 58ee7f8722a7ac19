"""The monitor's report: report.json for the status page and the retrain policy, a table per week, a page for Prefect.

    var/monitoring/<model>/report.json        what is known now; written whole
    var/monitoring/<model>/windows.parquet    a number per week and measure

The modules beside this one compute the numbers; here they are laid out. Days and weeks are of the model's zone
(`timezone`), and written as if that were UTC; `at` and `since` of a release are UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tasks.ground import files
from tasks.ground.numbers import plain
from tasks.monitoring import alarms
from tasks.monitoring.intake import intake, service_counts
from tasks.monitoring.quality import known, weekly
from tasks.prediction_log import error_counts

if TYPE_CHECKING:
    from tasks.modelling.daily_summaries import ColumnDays, DaySummaries
    from tasks.monitoring.drift.drift import DriftReport

DIGITS = 6
COUNTED = ("requests", "rows", *error_counts.KINDS)


@dataclass(frozen=True)
class Live:
    """The live release."""

    candidate: str
    version: int
    since: str


@dataclass(frozen=True)
class DataFindings:
    """The requests to the live release, compared with what it learned from."""

    drift: DriftReport | None = None
    summaries: DaySummaries | None = None
    """Its days."""
    reference: DaySummaries | None = None
    units: Mapping[str, str | None] | None = None
    lacking: str = ""
    """Why nothing, or not everything, can be compared."""


@dataclass(frozen=True)
class QualityFindings:
    """How good the answers are."""

    loss: str
    promised: Mapping[str, float] | None
    """Of the live release: {value, low, high}."""
    windows: Sequence[weekly.Week]
    basis: str = ""
    """What the promise rests on, where that is little."""


@dataclass(frozen=True)
class Findings:
    """Everything that a run of the monitor found."""

    live: Live | None
    service: service_counts.ServiceDays
    data: DataFindings
    quality: QualityFindings


def compose(model: str, findings: Findings) -> dict[str, Any]:
    """Everything but the alarms."""
    quality = findings.quality
    windows = [{name: value for name, value in week.items() if name != "of"} for week in quality.windows]
    status, text = known.known(quality.loss, quality.windows, findings.live.candidate if findings.live else None)
    words = {"status": status, "text": text, "basis": quality.basis}
    return {
        "model": model,
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "release": vars(findings.live) if findings.live else None,
        "service": {"days": [{"day": day, **_counts(of)} for day, of in sorted(findings.service.items())]},
        "data": _data(findings.data),
        "quality": {
            **words,
            **plain({"loss": quality.loss, "promised": quality.promised, "windows": windows}, DIGITS),
        },
    }


def write(model: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """Write the report, with the alarms as they are kept now; gives it."""
    with files.lock(f"alarms-{model}"):
        complete = {**report, "alarms": alarms.reported(alarms.read(model))}
        files.write_json(intake.folder(model) / "report.json", complete)
    return complete


def effect(findings: Findings) -> str:
    """The newest loss of the live release, in a few words: measured, or estimated, against promised."""
    quality, live = findings.quality, findings.live
    for week in reversed(quality.windows):
        if live is None or live.candidate not in week["releases"]:
            continue
        own = week["releases"][live.candidate]
        measured = (own["measured"] or {}).get(quality.loss)
        if entry := measured or own["estimated"]:
            what = "measured" if measured else "estimated"
            interval = f" ({entry['low']:.4g} to {entry['high']:.4g})" if "low" in entry else ""
            promised = f", promised {quality.promised['value']:.4g}" if quality.promised else ""
            since = f"in the week of {week['since'][:10]}"
            return f"{quality.loss} {what} {since}: {entry['value']:.4g}{interval}{promised}"
    return f"{alarms.EFFECT_UNKNOWN} {quality.loss} is not known: too few predictions and labels"


def untimed(service: service_counts.ServiceDays) -> str:
    """A sentence about rows that count for nothing; empty where there are none."""
    count = sum(counts["untimed"] for counts in service.values())
    if not count:
        return ""
    return (
        f"{count:,} rows count for nothing: their time is after their answer, or before 1971 (`evergreen forget` takes "
        f"them out of the log)"
    )


# ── parts of the report ───────────────────────────────────────────────────────────────────────────


def _counts(day: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: day.get(name, 0) for name in (*COUNTED, "untimed")}, **_latencies(day["ms"])}


def _latencies(histogram: Mapping[str, int]) -> dict[str, float | None]:
    return {f"p{percent}": service_counts.quantile(histogram, percent / 100) for percent in (50, 95, 99)}


def _data(data: DataFindings) -> dict[str, Any]:
    report = data.drift
    if report is None:
        empty = {"days": 0, "rows": 0, "columns": [], "threshold": None, "evidence": {"days": [], "columns": {}}}
        return {"status": "no reference", "text": data.lacking, **empty}
    status, text = _status(report, data.lacking)
    evidence = {name: [round(value, 3) for value in f.evidence] for name, f in report.findings.items() if f.evidence}
    return {
        "status": status,
        "text": text,
        "days": len(report.days),
        "rows": max((finding.rows for finding in report.findings.values()), default=0),
        "columns": plain([_column(name, report, data) for name in report.findings], DIGITS),
        "threshold": round(report.threshold, 3),
        "evidence": {"days": [day.isoformat() for day in report.days], "columns": evidence},
    }


def _status(report: DriftReport, lacking: str) -> tuple[str, str]:
    lacking = f"; {lacking}" if lacking else ""
    if report.open:
        return "drift", "; ".join(alarm.text for alarm in report.open) + lacking
    judged = [finding for finding in report.findings.values() if finding.role == "feature" and finding.type != "new"]
    short = [finding for finding in judged if finding.status == "not enough data"]
    if all(finding.status in ("not enough data", "always missing") for finding in judged):
        why = report.waiting or (short[0].text if short else "the model has no features")
        return "not enough data", f"not enough data: {why}{lacking}"
    named = {finding.status: finding.name for finding in judged if finding.status not in ("ok", "not enough data")}
    notes = [f"{name} is {status}" for status, name in sorted(named.items())]
    if slight := [finding.name for finding in report.findings.values() if finding.slight]:
        verb = "differs" if len(slight) == 1 else "differ"
        notes.append(f"{', '.join(slight)} {verb} beyond doubt, by less than what matters")
    notes += [report.sensitivity] if report.sensitivity else []
    days = f"{len(report.days)} day{'' if len(report.days) == 1 else 's'} of requests"
    is_short = any("no gross change" in finding.text for finding in judged)
    found = f"no gross change in {days}" if is_short else f"requests are as in training, over {len(report.days)} days"
    return "ok", "; ".join([found, *notes]) + lacking


def _column(name: str, report: DriftReport, data: DataFindings) -> dict[str, Any]:
    finding, sides = report.findings[name], [(side or {}).get(name) for side in (data.reference, data.summaries)]
    return {
        **{key: value for key, value in vars(finding).items() if key != "evidence"},
        "unit": (data.units or {}).get(name),
        "outside": [_shares(side).get("outside") for side in sides],
        "unseen": [_shares(side).get("unseen") for side in sides],
    }


def _shares(days: ColumnDays | None) -> dict[str, float]:
    """Of the known values: numbers `outside` of what training has seen, or `unseen` categories."""
    if days is None or not days.known.sum():
        return {}
    counts, total = days.counts.sum(axis=0), days.known.sum()
    if days.column.type == "category":
        return {"unseen": float(counts[-1] / total)}
    return {"outside": float((counts[0] + counts[-1]) / total)} if days.column.edges else {}


# ── a number per week ─────────────────────────────────────────────────────────────────────────────

Number = dict[str, Any]
"""_NAMES, of texts, and _VALUES; `release` is a candidate or «all», `kind` quality, estimate, data or service."""

_NAMES = ("since", "until", "release", "kind", "column", "slice", "metric")
_VALUES = ("value", "low", "high")


def numbers(findings: Findings) -> list[Number]:
    """Everything that was measured, one number of a week a line."""
    live, data, quality = findings.live, findings.data, findings.quality
    lines: list[Number] = []
    for week in quality.windows:
        lines += _of_quality(week, "all", quality.loss)
        for candidate, own in week["releases"].items():
            lines += _of_quality({**week, **own, "slices": None}, candidate, quality.loss)
    if live is not None and data.summaries is not None:
        for column in data.summaries.values():
            lines += _of_column(column, live.candidate)
        lines += _of_evidence(data.drift, live.candidate) if data.drift else []
    return [*lines, *_of_service(findings.service)]


def write_table(model: str, lines: Sequence[Number]) -> None:
    """Write windows.parquet; equal numbers give equal bytes."""
    import pandas as pd

    frame = pd.DataFrame(lines, columns=[*_NAMES, *_VALUES])
    types = {**dict.fromkeys(_NAMES, "str"), **dict.fromkeys(_VALUES, "float64")}
    files.write_parquet(intake.folder(model) / "windows.parquet", frame.astype(types))


def _of_quality(week: Mapping[str, Any], release: str, loss: str) -> Iterator[Number]:
    head = {"since": week["since"], "until": week["until"], "release": release, "column": "", "slice": ""}
    quality, estimate = {**head, "kind": "quality"}, {**head, "kind": "estimate"}
    for metric in ("rows", "labels"):
        yield {**quality, "metric": metric, "value": float(week[metric])}
    for metric, entry in (week["measured"] or {}).items():
        yield {**quality, "metric": metric, **entry}
    for column, values in (week["slices"] or {}).items():
        for value, part in values.items():
            for metric, entry in {"rows": {"value": float(part["rows"])}, **part["metrics"]}.items():
                yield {**quality, "column": column, "slice": value, "metric": metric, **entry}
    if week["estimated"]:
        yield {**estimate, "metric": loss, **week["estimated"]}
    if week["off"] is not None:
        yield {**estimate, "metric": "off", "value": week["off"]}


def _of_column(days: ColumnDays, candidate: str) -> Iterator[Number]:
    import numpy as np

    for week in sorted({weekly.monday(str(day)) for day in days.days}):
        own = days.since(np.datetime64(week)).until(np.datetime64(week + timedelta(days=6)))
        rows, with_value = int(own.rows.sum()), int(own.known.sum())
        values = {"rows": float(rows), "missing": float(own.missing.sum() / max(rows, 1)), **_shares(own)}
        if own.column.edges and with_value and own.column.type != "category":
            values["mean"] = float(own.column.centre + own.column.scale * own.total.sum() / with_value)
        for metric, value in values.items():
            yield {**_head(week, candidate), "column": own.column.name, "metric": metric, "value": value}


def _of_evidence(report: DriftReport, candidate: str) -> Iterator[Number]:
    """log10 of the evidence of drift at the end of each week."""
    last = {weekly.monday(day.isoformat()): at for at, day in enumerate(report.days)}
    for name, finding in report.findings.items():
        for week, at in last.items() if finding.evidence else ():
            value = round(finding.evidence[at], DIGITS)
            yield {**_head(week, candidate), "column": name, "metric": "evidence", "value": value}


def _of_service(days: service_counts.ServiceDays) -> Iterator[Number]:
    weeks: dict[date, tuple[Counter[str], Counter[str]]] = {}
    for day, counts in days.items():
        totals, histogram = weeks.setdefault(weekly.monday(day), (Counter(), Counter()))
        totals.update({name: counts.get(name, 0) for name in COUNTED})
        histogram.update(counts["ms"])
    for week, (totals, histogram) in sorted(weeks.items()):
        for metric, value in {**totals, **_latencies(histogram)}.items():
            if value is not None:
                yield {**_head(week, "all"), "kind": "service", "metric": metric, "value": float(value)}


def _head(week: date, release: str) -> Number:
    return {**weekly.span(week), "release": release, "kind": "data", "column": "", "slice": ""}


def as_metrics(lines: Iterable[Number], release: str) -> dict[str, dict[str, float]]:
    """Week → metric → value, as MLflow names them: quality at the top, the rest in folders."""
    weeks: dict[str, dict[str, float]] = {}
    for line in lines:
        if line["release"] != release and (line["release"], line["kind"]) != ("all", "service"):
            continue
        folder = line["kind"] if line["kind"] != "quality" else ""
        name = "/".join(part for part in (folder, line["column"], line["slice"], line["metric"]) if part)
        values = {name: line["value"], f"{name}_low": line.get("low"), f"{name}_high": line.get("high")}
        weeks.setdefault(line["since"], {}).update({key: value for key, value in values.items() if value is not None})
    return weeks


# ── the page in Prefect's UI ──────────────────────────────────────────────────────────────────────


def markdown(report: Mapping[str, Any], picture: str) -> str:
    """A page of Prefect's UI, of a report as `write` gives it and the address of its picture."""
    from tasks.pictures import templates

    open_alarms = [alarm for alarm in report["alarms"] if alarm["closed"] is None]
    return templates.markdown("tasks/monitoring/report.md", **report, open_alarms=open_alarms, picture=picture)
