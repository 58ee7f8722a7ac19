"""Verdicts in the journal: written once each, and read without importing MLflow.

The registry has a copy as the version's artifact, for people and for other machines (verdict_records.record).
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from tasks.journal import journal
from tasks.release.gate.verdict import Verdict

OWN = frozenset(field.name for field in fields(Verdict))
"""Of a line; version and why it waits for a person (`held`) stand beside them."""


def keep(model: str, version: int, verdict: Verdict, on_hold: str = "") -> None:
    """Write a verdict down, unless it is the newest one: the run after a kill judges the same again.

    `on_hold` is why it waits for a person all the same.
    """
    last = journal.last(model, "verdict")
    if last and tuple(last.what.get(key, "") for key in ("id", "version", "held")) == (verdict.id, version, on_hold):
        return
    line = {**asdict(verdict), "version": version}
    if on_hold:
        line |= {"held": on_hold, "promoted": False, "summary": f"{verdict.summary}; not promoted: {on_hold}"}
    journal.append(model, "verdict", line, why=on_hold)


def newest(model: str, count: int = 1) -> list[dict[str, Any]]:
    """The newest verdicts, oldest first, as they were written down, with `time` and `run`."""
    return [line.flat for line in journal.newest(model, count, "verdict")]


def summary(model: str, version: int) -> str:
    """The newest verdict on a version, in a line; empty where it was not judged on this machine."""
    lines = [line for line in journal.lines(model, "verdict") if line.what["version"] == version]
    return str(lines[-1].what["summary"]) if lines else ""


def of_line(line: dict[str, Any]) -> Verdict:
    """The verdict that a line holds, as it was written down."""
    return Verdict.from_value({name: value for name, value in line.items() if name in OWN})


def of_candidate(model: str, candidate: str) -> list[Verdict]:
    """Every verdict on a candidate that was judged on this machine, oldest first."""
    return [of_line(line.what) for line in journal.lines(model, "verdict") if line.what["challenger"] == candidate]
