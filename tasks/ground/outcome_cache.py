"""Outcome cache: what a piece of work came to, kept with the identity of its inputs.

Work whose inputs are those of its last outcome need not be done again, so a trigger that finds nothing to do ends in
milliseconds, before anything heavy is imported. An entry lies beside what it speaks of, so that both are lost together;
that costs time and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.ground import files


def recall(entry: Path, inputs: Callable[[], Any]) -> Any:
    """The outcome of the last time, if the inputs are what they were then; else None. Without an entry nobody asks."""
    content = _read(entry)
    return content["outcome"] if content and content["inputs"] == inputs() else None


def last_outcome(entry: Path) -> Any:
    """The outcome of the last time, whatever the inputs are now; None where there was none."""
    return _read(entry).get("outcome")


def last_inputs(entry: Path) -> Any:
    """The inputs of the last time; None where there was none."""
    return _read(entry).get("inputs")


def keep(entry: Path, inputs: Any, outcome: Any) -> None:
    """Keep what work came to: JSON values, and `inputs` as they were before it began."""
    files.write_json(entry, {"inputs": inputs, "outcome": outcome})


def _read(entry: Path) -> dict[str, Any]:
    content = files.read_state(entry, dict[str, Any]())
    return content if content.keys() == {"inputs", "outcome"} else {}
