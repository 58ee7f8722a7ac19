"""The monitor's report: report.json for the status page and the retrain policy, a table per week, a page for Prefect.

    var/monitoring/<model>/report.json        what is known now; written whole
    var/monitoring/<model>/windows.parquet    a number per week and measure

The modules beside this one compute the numbers; here they are laid out. Days and weeks are of the model's zone
(`timezone`), and written as if that were UTC; `at` and `since` of a release are UTC.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tasks.ground import files
from tasks.monitoring import alarms
from tasks.monitoring.intake import intake, service_counts
from tasks.monitoring.quality import weekly
from tasks.prediction_log import error_counts

if TYPE_CHECKING:
    from tasks.modelling.daily_summaries import ColumnDays, DaySummaries
    from tasks.monitoring.drift.drift import DriftReport

DIGITS = 6
SHARES = (0.5, 0.95, 0.99)
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


def compose(
    model: str,
    live: Live | None,
    service: Mapping[str, Mapping[str, Any]],
    data: DataFindings,
    quality: QualityFindings,
) -> dict[str, Any]:
    """Everything but the alarms."""
    windows = [{name: value for name, value in week.items() if name != "of"} for week in quality.windows]
    return {
        "model": model,
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "release": vars(live) if live else None,
        "service": {"days": [_service(day, counts) for day, counts in sorted(service.items())]},
        "data": _data(data),
        "quality": {"loss": quality.loss, "promised": _plain(quality.promised), "windows": _plain(windows)},
    }


def write(model: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """Write the report, with the alarms as they are kept now; gives it."""
    with files.lock(f"alarms-{model}"):
        complete = {**report, "alarms": alarms.reported(alarms.read(model))}
        files.write_json(intake.folder(model) / "report.json", complete)
    return complete


def effect(quality: QualityFindings, live: Live | None) -> str:
    """The newest loss of the live release, in a few words: measured, or estimated, against promised."""
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
    return f"its effect on {quality.loss} is not known: too few predictions and labels"


def untimed(service: Mapping[str, Mapping[str, Any]]) -> str:
    """A sentence about rows that count for nothing; empty where there are none."""
    count = sum(counts["untimed"] for counts in service.values())
    if not count:
        return ""
    return (
        f"{count:,} rows count for nothing: their time is after their answer, or before 1971 (`evergreen forget` takes "
        f"them out of the log)"
    )


# ── parts of the report ───────────────────────────────────────────────────────────────────────────


def _service(day: str, counts: Mapping[str, Any]) -> dict[str, Any]:
    return {"day": day, **{name: counts.get(name, 0) for name in (*COUNTED, "untimed")}, **_latencies(counts["ms"])}


def _latencies(histogram: Mapping[str, int]) -> dict[str, float | None]:
    return {f"p{share * 100:g}": service_counts.quantile(histogram, share) for share in SHARES}


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
        "columns": _plain([_column(name, report, data) for name in report.findings]),
        "threshold": round(report.threshold, 3),
        "evidence": {"days": [day.isoformat() for day in report.days], "columns": evidence},
    }


def _status(report: DriftReport, lacking: str) -> tuple[str, str]:
    lacking = f"; {lacking}" if lacking else ""
    if report.open:
        return "drift", "; ".join(alarm.text for alarm in report.open) + lacking
    judged = [finding for finding in report.findings.values() if finding.role == "feature" and finding.type != "new"]
    short = [finding for finding in judged if finding.status == "not enough data"]
    if len(short) == len(judged):
        return (
            "not enough data",
            f"not enough data: {short[0].text if short else 'there were no requests yet'}{lacking}",
        )
    named = {finding.status: finding.name for finding in judged if finding.status not in ("ok", "not enough data")}
    notes = [f"{name} is {status}" for status, name in sorted(named.items())]
    if slight := [finding.name for finding in report.findings.values() if finding.slight]:
        verb = "differs" if len(slight) == 1 else "differ"
        notes.append(f"{', '.join(slight)} {verb} beyond doubt, by less than what matters")
    notes += [report.sensitivity] if report.sensitivity else []
    return "ok", "; ".join([f"requests are as in training, over {len(report.days)} days", *notes]) + lacking


def _column(name: str, report: DriftReport, data: DataFindings) -> dict[str, Any]:
    finding, sides = report.findings[name], [(side or {}).get(name) for side in (data.reference, data.summaries)]
    same = ("name", "role", "type", "status", "text", "slight", "days", "rows", "p", "q", "shift", "cramers_v", "psi")
    return {
        **{key: getattr(finding, key) for key in same},
        "missing": list(finding.missing),
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


def _plain(value: Any) -> Any:
    """As JSON: six digits, null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


# ── a number per week ─────────────────────────────────────────────────────────────────────────────

Number = dict[str, Any]
"""since, until, release (candidate, or «all»), kind (quality, estimate, data, service), column, slice, metric, value,
low, high."""

_HEAD = ("since", "until", "release", "kind", "column", "slice")


def numbers(
    live: Live | None, service: Mapping[str, Mapping[str, Any]], data: DataFindings, quality: QualityFindings
) -> list[Number]:
    """Everything that was measured, one number of a week a line."""
    lines: list[Number] = []
    for week in quality.windows:
        lines += _of_quality(week, "all", quality.loss)
        for candidate, own in week["releases"].items():
            lines += _of_quality({**week, **own, "slices": None}, candidate, quality.loss)
    if live is not None and data.summaries is not None:
        for column in data.summaries.values():
            lines += _of_column(column, live.candidate)
        lines += _of_evidence(data.drift, live.candidate) if data.drift else []
    return [*lines, *_of_service(service)]


def write_table(model: str, lines: Sequence[Number]) -> None:
    """Write windows.parquet; equal numbers give equal bytes."""
    import pandas as pd

    texts, values = (*_HEAD, "metric"), ("value", "low", "high")
    frame = pd.DataFrame(lines, columns=[*texts, *values])
    types = {**dict.fromkeys(texts, "str"), **dict.fromkeys(values, "float64")}
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
            of_slice = {**quality, "column": column, "slice": value}
            yield {**of_slice, "metric": "rows", "value": float(part["rows"])}
            for metric, entry in part["metrics"].items():
                yield {**of_slice, "metric": metric, **entry}
    if week["estimated"]:
        yield {**estimate, "metric": loss, **week["estimated"]}
    if week["off"] is not None:
        yield {**estimate, "metric": "off", "value": week["off"]}


def _of_column(days: ColumnDays, candidate: str) -> Iterator[Number]:
    import numpy as np

    for week in sorted({weekly.monday(str(day)) for day in days.days}):
        first, last = np.datetime64(week), np.datetime64(week + timedelta(days=6))
        own = days.since(first).until(last)
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


def _of_service(days: Mapping[str, Mapping[str, Any]]) -> Iterator[Number]:
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
    span = {"since": weekly.utc(week), "until": weekly.utc(week + timedelta(days=7))}
    return {**span, "release": release, "kind": "data", "column": "", "slice": ""}


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
    """A page of Prefect's UI.

    Args:
        report: as `write` gives it.
        picture: the address of its picture.
    """
    release, data, quality = report["release"], report["data"], report["quality"]
    live = f"version {release['version']} (`{release['candidate']}`) is live" if release else "no release is live"
    is_open = [alarm for alarm in report["alarms"] if alarm["closed"] is None]
    promised = _interval(quality["promised"]) or "not known"
    sections = [
        f"# {report['model']}: {data['status']}",
        f"{live}. Data: {_cell(data['text'])}.",
        f"![drift and quality over time]({picture})" if picture else "",
        "## alarms" if is_open else "## no alarm is open",
        _table(("key", "kind", "what", "acknowledged"), 4, map(_alarm_row, is_open)) if is_open else "",
        f"## {quality['loss']} by week, promised {promised}",
        _table(
            ("week of", "measured", "estimated", "predictions", "labels", "off by"),
            3,
            (_week_row(week, quality["loss"]) for week in reversed(quality["windows"][-8:])),
        ),
        "## requests and answers" if data["columns"] else "",
        _table(("column", "status", "missing", "", "q", "effect"), 4, map(_column_row, data["columns"]))
        if data["columns"]
        else "",
        "## service",
        _table(
            ("day", "answered", "rows", *error_counts.KINDS, "p50 ms", "p95 ms", "p99 ms"),
            1,
            map(_service_row, reversed(report["service"]["days"][-7:])),
        ),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _table(head: Sequence[str], texts: int, rows: Iterable[Sequence[str]]) -> str:
    """A table, of which so many columns are texts and the others numbers."""
    rule = ["---"] * texts + ["---:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def _alarm_row(alarm: Mapping[str, Any]) -> Sequence[str]:
    return f"`{alarm['key']}`", alarm["kind"], _cell(alarm["text"]), "yes" if alarm["acknowledged"] else "no"


def _week_row(week: Mapping[str, Any], loss: str) -> Sequence[str]:
    measured, estimated = _interval((week["measured"] or {}).get(loss)), _interval(week["estimated"])
    off = "" if week["off"] is None else f"{week['off']:+.4f}"
    return week["since"][:10], measured, estimated, f"{week['rows']:,}", f"{week['labels']:,}", off


def _column_row(column: Mapping[str, Any]) -> Sequence[str]:
    effect_size = column["shift"] if column["shift"] is not None else column["cramers_v"]
    size = "" if effect_size is None else f"{effect_size:.3g}"
    missing = f"{column['missing'][0]:.1%} → {column['missing'][1]:.1%}"
    return column["name"], column["status"], missing, _cell(column["text"]), f"{column['q']:.3g}", size


def _service_row(day: Mapping[str, Any]) -> Sequence[str]:
    latencies = ("" if day[name] is None else str(day[name]) for name in ("p50", "p95", "p99"))
    return day["day"], *(f"{day[name]:,}" for name in COUNTED), *latencies


def _interval(entry: Mapping[str, float] | None) -> str:
    if not entry:
        return ""
    low, high = entry.get("low"), entry.get("high")
    return f"{entry['value']:.4f}" + (f" ({low:.4f} to {high:.4f})" if low is not None and high is not None else "")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
