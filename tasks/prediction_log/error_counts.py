"""What was asked and not answered: how often a day, by model. The log has what was answered (prediction_log.py).

    var/predictions/<model>/unanswered.json    {day: {"refused": n, "shed": n, "failed": n}}

`refused`: the request was wrong (a 4xx). `shed`: too many were waiting (503). `failed`: everything else that is no
answer: nobody serves, a release died over it, or gave an error.

The router counts them (router.py), by the day of the model's own zone, and adds what it has counted every
few seconds and when it ends: a router that is killed loses the seconds since. So they say how the service is; no
decision hangs on one more or less.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from tasks.ground import files, paths

KINDS = ("refused", "shed", "failed")

Days = dict[str, dict[str, int]]
"""Day → kind → how many; every day has every kind."""


def read(model: str) -> Days:
    """The days on which something was not answered, oldest first; where the file is torn, counting begins anew."""
    return files.read_state(path(model), Days(), _days)


def _days(said: dict[str, dict[str, int]]) -> Days:
    return {
        str(date.fromisoformat(day)): {kind: int(counts[kind]) for kind in KINDS}
        for day, counts in sorted(said.items())
    }


def add(model: str, counts: Mapping[tuple[str, str], int], keep_days: int) -> None:
    """Add (day, kind) → how many, and forget what is older than the last `keep_days` of these days.

    Raises:
        OSError: the disk is full. Nothing was added.
    """
    with files.lock(f"unanswered-{model}"):  # a router that ends and its successor
        known = read(model)
        for (day, kind), number in counts.items():
            known.setdefault(day, dict.fromkeys(KINDS, 0))[kind] += number
        # a clock that was wrong once leaves days to come: with one of them as the newest, all others would be forgotten
        last = datetime.now(UTC).date() + timedelta(days=1)
        known = {day: said for day, said in known.items() if day <= last.isoformat()}
        first = date.fromisoformat(max(known, default=last.isoformat())) - timedelta(days=keep_days - 1)
        files.write_json(path(model), {day: said for day, said in known.items() if day >= first.isoformat()})


def path(model: str) -> Path:
    """Where they are."""
    return paths.error_counts(model)
