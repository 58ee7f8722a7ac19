"""The gate's verdicts at hand, for who shows them without importing MLflow: lines in var/verdicts/<model>.jsonl.

The registry is the truth (registry.record_verdict); this is written after it, once for each verdict.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tasks.ground import ledger, paths
from tasks.release.gate.verdict import Verdict
from tasks.release.registry import desired_state


def keep(model: str, version: int, verdict: Verdict, run: str = "", held: str = "") -> None:
    """Write a verdict down, unless it is the last one that was: whoever comes after a kill judges the same again.

    Args:
        model: a name below `models` in params.yaml.
        version: the challenger's, in the registry.
        verdict: what the gate said.
        run: where to look at the flow run that asked for it.
        held: why it is not promoted all the same: it waits for a person's word.
    """
    before = ledger.lines(path(model))
    if before and tuple(before[-1].get(key, "") for key in ("id", "version", "held")) == (verdict.id, version, held):
        return
    said = asdict(verdict)
    if held:
        said |= {"held": held, "promoted": False, "summary": f"{verdict.summary}; not promoted: {held}"}
    ledger.append(path(model), {"time": desired_state.now(), "version": version, "run": run, **said})


def summary(model: str, version: int) -> str:
    """What the gate said of a version last, in a line; nothing where that was not on this machine."""
    said = [line for line in ledger.lines(path(model)) if line["version"] == version]
    return str(said[-1]["summary"]) if said else ""


def path(model: str) -> Path:
    """Where they are kept."""
    return paths.verdicts(model)
