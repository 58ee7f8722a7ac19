"""A model's life as the status page may find it: what a year of monitoring, verdicts, decisions and rollouts leaves."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from tasks.ground import files, params, settings
from tasks.journal import journal
from tasks.monitoring import retrain_policy
from tasks.release.gate import verdicts
from tasks.release.gate.verdict import Check, Verdict
from tasks.release.registry import desired_state

FIRST = datetime(2013, 10, 1)


def write(model: str) -> None:
    """Everything the page shows of a model."""
    live = desired_state.ReleaseRef("25db996ec1c47a45", 3, "2026-11-20T18:04:11.123Z")
    desired_state.write(model, desired_state.DesiredState(live, desired_state.ReleaseRef("1c43e80593c0ab13", 1)))
    _rollouts(model, live)
    _verdicts(model)
    _decisions(model)
    files.write_json(report_path(model), report(model))


def report_path(model: str) -> Any:
    """Where the monitor writes."""
    return settings.VAR / "monitoring" / model / "report.json"


def _rollouts(model: str, live: desired_state.ReleaseRef) -> None:
    desired_state.note(model, desired_state.ReleaseRef("1c43e80593c0ab13", 1, "2026-11-19T08:00:00.000Z"), "live")
    bad = desired_state.ReleaseRef("bad0bad0bad0bad0", 2, "2026-11-20T09:00:00.000Z")
    desired_state.note(model, bad, "withdrawn", "replay logged requests: it answers 12 of 500 requests with an error")
    desired_state.note(model, live, "live")


def _verdicts(model: str) -> None:
    for version, promoted in ((1, True), (3, True), (4, False)):
        with journal.in_run("http://127.0.0.1:4200/runs/flow-run/1"):
            verdicts.keep(model, version, verdict(model, version, promoted))


def verdict(model: str, version: int, promoted: bool) -> Verdict:
    """One that was promoted, or refused by a slice."""
    slices = [(f"slice:station={name}", at) for at, name in enumerate(("north", "south", "east", "west"))]
    checks = [Check("improvement", -0.0121, 0.0, True, "log_loss is 0.0121 below the champion's", (-0.02, -0.004))]
    checks += [Check("latency", 3.3, 50.0, True, "one row takes 3.3 ms, 50 are allowed")]
    for name, at in slices:
        passed = promoted or at < 3
        value = 0.002 * at if passed else 0.041
        checks.append(
            Check(name, value, 0.02, passed, f"log_loss is {value} above the champion's", (value - 0.01, value + 0.01))
        )
    said = "promoted: all 6 checks passed" if promoted else "refused by 1 of 6 checks: slice:station=west"
    return Verdict(
        id=f"v{version}",
        model=model,
        challenger=f"c{version}",
        champion="25db996ec1c47a45",
        promoted=promoted,
        summary=f"{model}: challenger c{version} {said}",
        checks=tuple(checks),
        rule={"rule": "better", "loss": "log_loss", "confidence": 0.95},
        rule_digest="r",
        holdout={
            "digest": "h",
            "rows": 27010,
            "compared": 27010,
            "days": 30,
            "from": "2013-09-01",
            "until": "2013-09-30",
        },
        resamples=1000,
        seed=1,
    )


def _decisions(model: str) -> None:
    section = params.load().model(model).retrain
    for at, new in enumerate((0, 900, 4000)):
        state = retrain_policy.PolicyState(
            model=model,
            now=FIRST + timedelta(days=30 * at),
            data_version=f"v{at}.dir",
            trained_at=FIRST - timedelta(days=40),
            trained_on="v.dir",
            learned_until=FIRST - timedelta(days=30),
            learned_rows=10_000,
            newer_rows=new,
            new_rows=new,
        )
        said = retrain_policy.decide(state, section).to_dict()
        with journal.in_run("http://127.0.0.1:4200/runs/flow-run/2"):
            journal.append(model, "decision", said, said.pop("why"), time=f"2026-11-20T1{at}:05:00Z")


# ── what the monitor writes ───────────────────────────────────────────────────────────────────────


def report(model: str, weeks: int = 8) -> dict[str, Any]:
    """As tasks/monitoring writes it: a feature drifts, the loss follows, the newest labels are to come."""
    return {
        "model": model,
        "at": "2026-11-21T06:17:00Z",
        "release": {"candidate": "25db996ec1c47a45", "version": 3, "since": "2026-11-20T18:04:11Z"},
        "service": {"days": [_day(at) for at in range(weeks * 7)]},
        "data": _data(weeks * 7),
        "quality": {
            "loss": "log_loss",
            "promised": {"value": 0.3778, "low": 0.3444, "high": 0.4121},
            "windows": [_window(at, at < weeks - 2) for at in range(weeks)],
        },
        "alarms": [_alarm("2013-10-20-vibration-v3", None), _alarm("2013-10-02-starts-v3", "2013-10-09T00:00:00Z")],
    }


def _day(at: int) -> dict[str, Any]:
    busy = 900 + 300 * math.sin(at)
    day = (FIRST + timedelta(days=at)).date().isoformat()
    return {"day": day, "requests": int(busy), "rows": int(busy) * 3, "p50": 3.1, "p95": 5.5, "p99": 9.25 + at / 20}


def _data(days: int) -> dict[str, Any]:
    dates = [(FIRST + timedelta(days=at)).date().isoformat() for at in range(days)]
    return {
        "status": "drift",
        "text": "1 of 3 columns moved",
        "days": days,
        "rows": 51_000,
        "columns": [
            _column(
                "vibration",
                "drift",
                "vibration is 0.62 mm/s higher, 0.71 standard deviations since 2013-10-14",
                shift=0.71,
            ),
            _column("station", "ok", "as in training", cramers_v=0.03),
            _column("p_1", "not enough data", "6 days with rows, 7 are needed", role="prediction"),
        ],
        "threshold": 2.71,
        "evidence": {
            "days": dates,
            "columns": {
                "vibration": [None, *(0.02 * at**1.5 - 0.3 for at in range(1, days))],
                "station": [0.4 * math.sin(at / 5) for at in range(days)],
                "p_1": [],
            },
        },
    }


def _column(name: str, status: str, text: str, role: str = "feature", **effect: float) -> dict[str, Any]:
    tested = {"p": 1e-7, "q": 3e-7} if status == "drift" else {"p": 0.4, "q": 1.0}
    described = {"shift": None, "cramers_v": None, "psi": 0.3, "unit": "mm/s", "missing": [0.1, 0.12], **effect}
    return {
        "name": name,
        "role": role,
        "type": "number",
        "status": status,
        "text": text,
        "days": 56,
        "rows": 51_000,
        **tested,
        **described,
    }


def _window(at: int, has_labels: bool) -> dict[str, Any]:
    since, loss = FIRST + timedelta(days=7 * at), 0.37 + 0.013 * at
    metrics = {
        "log_loss": {"value": loss, "low": loss - 0.02, "high": loss + 0.02},
        "roc_auc": {"value": 0.71, "low": 0.68, "high": 0.74},
    }
    own = {
        "rows": 6400,
        "labels": 6350 if has_labels else 0,
        "measured": metrics if has_labels else None,
        "estimated": {"value": loss - 0.01, "low": loss - 0.04, "high": loss + 0.03, "days": 7, "rows": 6400},
        "off": 0.01 if has_labels else None,
    }
    return {
        "since": f"{since.isoformat()}Z",
        "until": f"{(since + timedelta(days=7)).isoformat()}Z",
        **own,
        "slices": {"station": {"north": {"rows": 3100, "metrics": metrics}, "south": {"rows": 12, "metrics": {}}}}
        if has_labels
        else None,
        "releases": {"25db996ec1c47a45": own},
    }


def _alarm(key: str, closed: str | None) -> dict[str, Any]:
    return {
        "key": key,
        "kind": "drift",
        "what": key.split("-")[3],
        "text": f"it is 0.62 mm/s higher since {key[:10]}; log_loss is estimated at 0.43, 0.378 was promised",
        "effect": 0.71,
        "since": f"{key[:10]}T00:00:00Z",
        "opened": f"{key[:10]}T00:00:00Z",
        "closed": closed,
        "told": True,
        "acknowledged": None,
    }
