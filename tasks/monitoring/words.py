"""What the monitor's report says of a model, in a few lines: for `evergreen alarms` and `evergreen status`."""

from __future__ import annotations

from typing import Any

from tasks.ground import files, paths


def lines(model: str) -> list[str]:
    """Data and quality, a line each; one that says so where there is no report yet."""
    report = files.read_state(paths.monitoring_report(model), dict[str, Any]())
    if not report:
        return ["not monitored yet: the flow monitor looks every quarter of an hour"]
    data, quality = (report.get(part) or {} for part in ("data", "quality"))  # a report of before may have less
    of_quality = "; ".join(filter(None, (quality.get("text"), quality.get("basis"))))
    return [f"{name}: {text}" for name, text in (("data", data.get("text")), ("quality", of_quality)) if text]
