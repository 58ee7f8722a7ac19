"""Daily counts of requests that got no answer; the prediction log holds those that got one.

    var/predictions/<model>/unanswered.json    {day: {"refused": n, "shed": n, "failed": n}}

`refused`: the request was wrong (a 4xx). `shed`: too many were waiting (503). `failed`: every other error: no release
is live, a replica died over the request or gave an error.

The router counts by the day of the model's own zone, and adds to the file every few seconds and when it ends: a killed
router loses the seconds since. They describe the service; no decision hangs on one more or less.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from tasks.ground import files, paths

KINDS = ("refused", "shed", "failed")

Days = dict[str, dict[str, int]]
"""Day → kind → how many; every day has every kind."""


def read(model: str) -> Days:
    """The days with errors, oldest first; where the file is torn, counting begins anew."""
    return files.read_state(paths.error_counts(model), Days(), _days)


def _days(value: dict[str, dict[str, int]]) -> Days:
    return {
        str(date.fromisoformat(day)): {kind: int(counts[kind]) for kind in KINDS}
        for day, counts in sorted(value.items())
    }


def add(model: str, counts: Mapping[tuple[str, str], int], keep_days: int) -> None:
    """Add (day, kind) → how many, and forget what is older than the last `keep_days` of these days.

    Raises:
        OSError: the disk is full. Nothing was added.
    """
    with files.lock(f"unanswered-{model}"):  # a router that ends, and its successor
        days = read(model)
        for (day, kind), number in counts.items():
            days.setdefault(day, dict.fromkeys(KINDS, 0))[kind] += number
        # a clock that was wrong once leaves days in the future: with one of them as the newest, all others would go
        tomorrow = (datetime.now(UTC).date() + timedelta(days=1)).isoformat()
        newest = max((day for day in days if day <= tomorrow), default=tomorrow)
        first = (date.fromisoformat(newest) - timedelta(days=keep_days - 1)).isoformat()
        files.write_json(
            paths.error_counts(model), {day: kinds for day, kinds in days.items() if first <= day <= tomorrow}
        )
