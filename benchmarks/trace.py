"""How long the story of a prediction takes in a warm process, and who was live at a hundred thousand instants.

A log of 73,000 predictions (`benchmarks.throughput`) and a journal of a thousand lines, in which the live release
changes a hundred times, lie in a folder of their own; model, registry and data are those of this checkout.

    python -m benchmarks.trace [--stories 1000] [--instants 100000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks import throughput
from tasks.ground import files, params, settings
from tasks.journal import journal
from tasks.lifecycle import live
from tasks.lifecycle.trace import Tracer
from tasks.prediction_log import prediction_log

MODEL, ROWS, CHANGES, LINES = throughput.MODEL, 73_000, 100, 1000
STORY_MS, INSTANTS_S = 50.0, 10.0


def main() -> int:
    """Measure both; 1 where one takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=int, default=1000)
    parser.add_argument("--instants", type=int, default=100_000)
    options = parser.parse_args()
    settings.apply()
    with tempfile.TemporaryDirectory() as folder:
        throughput.lay_down(Path(folder), ROWS)
        _lay_down_journal(files.read_json(settings.BUILD / MODEL / "release" / "candidate.json")["candidate"])
        stories = _trace(options.stories)
        seconds = _ask_who_was_live(options.instants)
    median, slow = np.quantile(stories, (0.5, 0.99))
    print(f"{options.stories:,} stories: {median:.1f} ms each (median), {slow:.1f} ms (99 %)")
    print(f"{options.instants:,} instants: {seconds:.2f} s")
    return int(slow > STORY_MS or seconds > INSTANTS_S)


def _lay_down_journal(candidate: str) -> None:
    """A day on which two releases take turns; most lines are of other kinds."""
    begin = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    with mock.patch.object(os, "fsync"):
        for number in range(LINES):
            at = (begin + timedelta(days=1) * number / LINES).isoformat(timespec="milliseconds")
            turn, rest = divmod(number, LINES // CHANGES)
            if rest == 0:
                what = {"candidate": candidate if turn % 2 == 0 else "0" * 16, "version": 1, "outcome": "live"}
                journal.append(MODEL, "rollout", what, time=at)
            else:
                journal.append(MODEL, "decision", {"retrain": False, "state": {}, "reasons": []}, "no", time=at)


def _trace(count: int) -> list[float]:
    """Milliseconds that each story takes, after the first one."""
    tracer, rng = Tracer(params.load()), np.random.default_rng(0)
    ids = [str(each) for each in rng.choice(_ids(), count)]
    tracer.trace(ids[0])
    took = []
    for prediction_id in ids:
        begin = time.perf_counter()
        story = tracer.trace(prediction_id)
        took.append((time.perf_counter() - begin) * 1000)
        assert (story.id, story.model) == (prediction_id, MODEL)
    return took


def _ids() -> list[str]:
    now = datetime.now(UTC)
    ids: list[str] = prediction_log.read(MODEL, datetime(2013, 1, 1, tzinfo=UTC), now, ["id"])["id"].to_pylist()
    return ids


def _ask_who_was_live(count: int) -> float:
    """Seconds for so many instants, of which some are compared with what the lines say one after the other."""
    begin = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    instants = [begin + timedelta(seconds=s) for s in np.random.default_rng(1).uniform(0, 86_400, count)]
    started = time.perf_counter()
    answered = [live.history(MODEL).live_at(at) for at in instants]
    seconds = time.perf_counter() - started
    changes = [(datetime.fromisoformat(line.time), line) for line in journal.lines(MODEL, "rollout")]
    for at, line in list(zip(instants, answered, strict=True))[:1000]:
        assert line == [each for since, each in changes if since <= at][-1]
    return seconds


if __name__ == "__main__":
    raise SystemExit(main())
