"""Verdict ledger: the gate's verdicts as lines in var/verdicts/<model>.jsonl, read without importing MLflow.

The registry is the truth (verdict_records.record); this is written after it, once for each verdict.
"""

from __future__ import annotations

from dataclasses import asdict

from tasks.ground import ledger, paths
from tasks.release.gate.verdict import Verdict
from tasks.release.registry import desired_state


def keep(model: str, version: int, verdict: Verdict, run: str = "", on_hold: str = "") -> None:
    """Append a verdict, unless it is the newest line: the run after a kill judges the same again.

    `run` is the address of the flow run that asked for it; `on_hold` is why it waits for a person all the same.
    """
    lines = ledger.lines(paths.verdicts(model))
    if lines and tuple(lines[-1].get(key, "") for key in ("id", "version", "held")) == (verdict.id, version, on_hold):
        return
    line = asdict(verdict)
    if on_hold:
        line |= {"held": on_hold, "promoted": False, "summary": f"{verdict.summary}; not promoted: {on_hold}"}
    ledger.append(paths.verdicts(model), {"time": desired_state.now(), "version": version, "run": run, **line})


def summary(model: str, version: int) -> str:
    """The newest verdict on a version, in a line; empty where it was not judged on this machine."""
    lines = [line for line in ledger.lines(paths.verdicts(model)) if line["version"] == version]
    return str(lines[-1]["summary"]) if lines else ""
