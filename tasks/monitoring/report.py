"""What the monitor has to say: report.json for the page and the retrain policy, a table per week, a page for the UI.

    var/monitoring/<model>/report.json        what is known now; written whole
    var/monitoring/<model>/windows.parquet    a number per week and thing that was measured

Numbers come from the modules beside this one; here they are only laid out. Days and weeks are of the
model's zone (`timezone`), and written as if that were UTC; `at` and `since` of a release are UTC.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files
from tasks.monitoring import alarms
from tasks.monitoring.intake import intake, service_counts
from tasks.monitoring.quality import weekly
from tasks.prediction_log import error_counts

if TYPE_CHECKING:
    from tasks.modelling.daily_summaries import ColumnDays, DaySummaries
    from tasks.monitoring.drift import drift

DIGITS = 6
SHARES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Live:
    """Who serves."""

    candidate: str
    version: int
    since: str


@dataclass(frozen=True)
class DataFindings:
    """What the live release is asked, held against what it learned from."""

    drift: drift.DriftReport | None = None
    summaries: DaySummaries | None = None
    """Its days."""
    reference: DaySummaries | None = None
    units: Mapping[str, str | None] | None = None
    lacking: str = ""
    """Why nothing, or not everything, can be said."""


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
    found = [{name: value for name, value in one.items() if name != "of"} for one in quality.windows]
    return {
        "model": model,
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "release": vars(live) if live else None,
        "service": {"days": [_service(day, said) for day, said in sorted(service.items())]},
        "data": _data(data),
        "quality": {"loss": quality.loss, "promised": _plain(quality.promised), "windows": _plain(found)},
    }


def write(model: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """Write the report, with the alarms as they are kept now; gives it."""
    with files.lock(f"alarms-{model}"):
        whole = {**said, "alarms": alarms.shown(alarms.read(model))}
        files.write_json(intake.folder(model) / "report.json", whole)
    return whole


def effect(quality: QualityFindings, live: Live | None) -> str:
    """What goes on does to the live release, in a few words: measured, or estimated, against promised."""
    for whole in reversed(quality.windows):
        if live is None or live.candidate not in whole["releases"]:
            continue
        week = {**whole, **whole["releases"][live.candidate]}
        measured, estimated = (week["measured"] or {}).get(quality.loss), week["estimated"]
        if found := measured or estimated:
            what = "measured" if measured else "estimated"
            interval = f" ({found['low']:.4g} to {found['high']:.4g})" if "low" in found else ""
            promised = f", promised {quality.promised['value']:.4g}" if quality.promised else ""
            return (
                f"{quality.loss} {what} in the week of {week['since'][:10]}: {found['value']:.4g}{interval}{promised}"
            )
    return f"what it does to {quality.loss} is not known: too few predictions and labels"


def untimed(service: Mapping[str, Mapping[str, Any]]) -> str:
    """What there is to say of rows that count for nothing; empty where there are none."""
    count = sum(said["untimed"] for said in service.values())
    if not count:
        return ""
    return (
        f"{count:,} rows count for nothing, as they say that they were asked after they were answered, or before 1971 "
        f"(`evergreen forget` takes them out of the log)"
    )


# ── parts of the report ───────────────────────────────────────────────────────────────────────────


def _service(day: str, said: Mapping[str, Any]) -> dict[str, Any]:
    times = {f"p{share * 100:g}": service_counts.quantile(said["ms"], share) for share in SHARES}
    counts = {what: said.get(what, 0) for what in ("requests", "rows", "untimed", *error_counts.KINDS)}
    return {"day": day, **counts, **times}


def _data(data: DataFindings) -> dict[str, Any]:
    found = data.drift
    if found is None:
        empty = {"days": 0, "rows": 0, "columns": [], "threshold": None, "evidence": {"days": [], "columns": {}}}
        return {"status": "no reference", "text": data.lacking, **empty}
    status, text = _status(found, data)
    columns = [_column(name, data) for name in found.findings]
    return {
        "status": status,
        "text": text,
        "days": len(found.days),
        "rows": max((one.rows for one in found.findings.values()), default=0),
        "columns": _plain(columns),
        "threshold": round(found.threshold, 3),
        "evidence": {
            "days": [day.isoformat() for day in found.days],
            "columns": {
                name: [round(value, 3) for value in one.evidence]
                for name, one in found.findings.items()
                if one.evidence
            },
        },
    }


def _status(found: drift.DriftReport, data: DataFindings) -> tuple[str, str]:
    lacking = f"; {data.lacking}" if data.lacking else ""
    if found.open:
        return "drift", "; ".join(alarm.text for alarm in found.open) + lacking
    judged = [one for one in found.findings.values() if one.role == "feature" and one.type != "new"]
    short = [one for one in judged if one.status == "not enough data"]
    if not judged or len(short) == len(judged):
        text = short[0].text if short else "nothing was asked yet"
        return "not enough data", f"not enough data: {text}{lacking}"
    named = {one.status: one.name for one in judged if one.status not in ("ok", "not enough data")}
    more = "".join(f"; {name} is {status}" for status, name in sorted(named.items()))
    if slight := [one.name for one in found.findings.values() if one.slight]:
        more += f"; {', '.join(slight)} differ{'s' if len(slight) == 1 else ''} beyond doubt, by less than what matters"
    sight = f"; {found.sight}" if found.sight else ""
    return "ok", f"what is asked is as in training, over {len(found.days)} days{more}{sight}{lacking}"


def _column(name: str, data: DataFindings) -> dict[str, Any]:
    assert data.drift is not None
    one, units = data.drift.findings[name], data.units or {}
    same = ("name", "role", "type", "status", "text", "slight", "days", "rows", "p", "q", "shift", "cramers_v", "psi")
    sides = [(side or {}).get(name) for side in (data.reference, data.summaries)]
    return {
        **{key: getattr(one, key) for key in same},
        "missing": list(one.missing),
        "unit": units.get(name),
        "outside": [_outside(side) for side in sides],
        "unseen": [_unseen(side) for side in sides],
    }


def _outside(side: ColumnDays | None) -> float | None:
    """The share of known numbers that lie outside of what training has seen."""
    if side is None or not side.column.edges or not side.known.sum():
        return None
    return float((side.counts[:, 0].sum() + side.counts[:, -1].sum()) / side.known.sum())


def _unseen(side: ColumnDays | None) -> float | None:
    """The share of known values that training has not seen."""
    if side is None or side.column.type != "category" or not side.known.sum():
        return None
    return float(side.counts[:, -1].sum() / side.known.sum())


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


def numbers(
    live: Live | None, service: Mapping[str, Mapping[str, Any]], data: DataFindings, quality: QualityFindings
) -> list[Number]:
    """Everything that was measured of a week, one number a line."""
    found: list[Number] = []
    for week in quality.windows:
        found += _of_quality(week, "all", quality.loss)
        for candidate, own in week["releases"].items():
            found += _of_quality({**week, **own, "slices": None}, candidate, quality.loss)
    if live is not None and data.summaries is not None:
        for one in data.summaries.values():
            found += _of_column(one, live.candidate)
        found += _of_evidence(data.drift, live.candidate) if data.drift else []
    return [*found, *_of_service(service)]


def write_table(model: str, found: Sequence[Number]) -> Path:
    """windows.parquet; equal numbers give equal bytes."""
    import pandas as pd

    path = intake.folder(model) / "windows.parquet"
    frame = pd.DataFrame(found, columns=[*_HEAD, "metric", "value", "low", "high"])
    numeric = dict.fromkeys(("value", "low", "high"), "float64")
    texts = dict.fromkeys((*_HEAD, "metric"), "str")
    files.write_parquet(path, frame.astype({**texts, **numeric}))
    return path


_HEAD = ("since", "until", "release", "kind", "column", "slice")


def _of_quality(week: Mapping[str, Any], release: str, loss: str) -> Iterator[Number]:
    head = {"since": week["since"], "until": week["until"], "release": release, "column": "", "slice": ""}
    for metric in ("rows", "labels"):
        yield {**head, "kind": "quality", "metric": metric, "value": float(week[metric])}
    for metric, entry in (week["measured"] or {}).items():
        yield {**head, "kind": "quality", "metric": metric, **entry}
    for column, values in (week["slices"] or {}).items():
        for value, said in values.items():
            of = {**head, "kind": "quality", "column": column, "slice": value}
            yield {**of, "metric": "rows", "value": float(said["rows"])}
            for metric, entry in said["metrics"].items():
                yield {**of, "metric": metric, **entry}
    if week["estimated"]:
        yield {**head, "kind": "estimate", "metric": loss, **week["estimated"]}
    if week["off"] is not None:
        yield {**head, "kind": "estimate", "metric": "off", "value": week["off"]}


def _of_column(found: ColumnDays, candidate: str) -> Iterator[Number]:
    import numpy as np

    starts = np.array([np.datetime64(weekly.monday(str(day))) for day in found.days], dtype="datetime64[D]")
    for start in np.unique(starts):
        of = starts == start
        rows, known, counts = found.rows[of].sum(), found.known[of].sum(), found.counts[of].sum(axis=0)
        said = {"rows": rows, "missing": found.missing[of].sum() / max(rows, 1)}
        if found.column.type == "category" and known:
            said["unseen"] = counts[-1] / known
        elif found.column.edges and known:
            said["outside"] = (counts[0] + counts[-1]) / known
            said["mean"] = found.column.centre + found.column.scale * found.total[of].sum() / known
        for metric, value in said.items():
            yield {**_head(str(start), candidate), "column": found.column.name, "metric": metric, "value": float(value)}


def _of_evidence(report: drift.DriftReport, candidate: str) -> Iterator[Number]:
    """log10 of the evidence of drift at the end of each week."""
    last = {weekly.monday(day.isoformat()): at for at, day in enumerate(report.days)}
    for name, one in report.findings.items():
        for week, at in last.items() if one.evidence else ():
            head = _head(week.isoformat(), candidate)
            yield {**head, "column": name, "metric": "evidence", "value": round(one.evidence[at], DIGITS)}


def _of_service(days: Mapping[str, Mapping[str, Any]]) -> Iterator[Number]:
    counted = ("requests", "rows", *error_counts.KINDS)
    found: dict[str, dict[str, Any]] = {}
    for day, said in days.items():
        one = found.setdefault(weekly.monday(day).isoformat(), {**dict.fromkeys(counted, 0), "ms": {}})
        one |= {what: one[what] + said.get(what, 0) for what in counted}
        one["ms"] = {name: one["ms"].get(name, 0) + said["ms"].get(name, 0) for name in {**one["ms"], **said["ms"]}}
    for week, said in sorted(found.items()):
        times = {f"p{share * 100:g}": service_counts.quantile(said["ms"], share) for share in SHARES}
        for metric, value in {**{what: said[what] for what in counted}, **times}.items():
            if value is not None:
                yield {**_head(week, "all"), "kind": "service", "metric": metric, "value": float(value)}


def _head(week: str, release: str) -> Number:
    from datetime import date, timedelta

    since = date.fromisoformat(week)
    span = {"since": weekly.utc(since), "until": weekly.utc(since + timedelta(days=7))}
    return {**span, "release": release, "kind": "data", "column": "", "slice": ""}


def as_metrics(found: Iterable[Number], release: str) -> dict[str, dict[str, float]]:
    """Week → metric → value, as MLflow names them: quality at the top, the rest in folders."""
    told: dict[str, dict[str, float]] = {}
    for one in found:
        if one["release"] not in (release, "all") or (one["release"] == "all" and one["kind"] != "service"):
            continue
        parts = [one["kind"] if one["kind"] != "quality" else "", one["column"], one["slice"], one["metric"]]
        name = "/".join(part for part in parts if part)
        values = {name: one["value"], f"{name}_low": one.get("low"), f"{name}_high": one.get("high")}
        told.setdefault(one["since"], {}).update({key: value for key, value in values.items() if value is not None})
    return told


# ── the page in the UI ────────────────────────────────────────────────────────────────────────────


def markdown(said: Mapping[str, Any], picture: str) -> str:
    """A page of Prefect's UI.

    Args:
        said: the report.
        picture: where its picture is.
    """
    release, data, quality = said["release"], said["data"], said["quality"]
    serves = f"version {release['version']} (`{release['candidate']}`) serves" if release else "nobody serves"
    lines = [f"# {said['model']}: {data['status']}", "", f"{serves}. DataFindings: {_cell(data['text'])}.", ""]
    lines += [f"![drift and quality over time]({picture})", ""] if picture else []
    lines += [*_alarm_table(said["alarms"]), *_week_table(quality), *_column_table(data), *_service_table(said)]
    return "\n".join(lines) + "\n"


def _alarm_table(known: Sequence[Mapping[str, Any]]) -> list[str]:
    shown = [one for one in known if one["closed"] is None]
    if not shown:
        return ["## no alarm is open", ""]
    rows = [
        f"| `{one['key']}` | {one['kind']} | {_cell(one['text'])} | {'yes' if one['acknowledged'] else 'no'} |"
        for one in shown
    ]
    return ["## alarms", "", "| key | kind | what | acknowledged |", "| --- | --- | --- | --- |", *rows, ""]


def _week_table(quality: Mapping[str, Any]) -> list[str]:
    rows = []
    for week in list(quality["windows"])[-8:][::-1]:
        measured = _interval((week["measured"] or {}).get(quality["loss"]))
        cells = [week["since"][:10], f"{week['rows']:,}", f"{week['labels']:,}", measured, _interval(week["estimated"])]
        rows.append(f"| {' | '.join(cells)} | {'' if week['off'] is None else format(week['off'], '+.4f')} |")
    head = f"## {quality['loss']} by week, promised {_interval(quality['promised']) or 'not known'}"
    table = "| week of | predictions | labels | measured | estimated | off by |"
    return [head, "", table, "| --- | ---: | ---: | --- | --- | ---: |", *rows, ""]


def _column_table(data: Mapping[str, Any]) -> list[str]:
    if not data["columns"]:
        return []
    rows = []
    for one in data["columns"]:
        effect_size = one["shift"] if one["shift"] is not None else one["cramers_v"]
        size = "" if effect_size is None else f"{effect_size:.3g}"
        missing = f"{one['missing'][0]:.1%} → {one['missing'][1]:.1%}"
        cells = [one["name"], one["status"], f"{one['q']:.3g}", size, missing, _cell(one["text"])]
        rows.append(f"| {' | '.join(cells)} |")
    table = "| column | status | q | effect | missing | |"
    return ["## what is asked and answered", "", table, "| --- | --- | ---: | ---: | --- | --- |", *rows, ""]


def _service_table(said: Mapping[str, Any]) -> list[str]:
    counted = ("requests", "rows", *error_counts.KINDS)
    rows = [
        f"| {one['day']} | {' | '.join(format(one[what], ',') for what in counted)} | "
        f"{' | '.join('' if one[p] is None else str(one[p]) for p in ('p50', 'p95', 'p99'))} |"
        for one in said["service"]["days"][-7:][::-1]
    ]
    table = "| day | answered | rows | refused | shed | failed | p50 ms | p95 ms | p99 ms |"
    return ["## service", "", table, f"| --- |{' ---: |' * 8}", *rows]


def _interval(entry: Mapping[str, float] | None) -> str:
    if not entry:
        return ""
    low, high = entry.get("low"), entry.get("high")
    return f"{entry['value']:.4f}" + (f" ({low:.4f} to {high:.4f})" if low is not None and high is not None else "")


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
