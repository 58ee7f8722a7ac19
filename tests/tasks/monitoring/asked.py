"""A small world for the monitor: rows of the tiny model, what production was asked of them, and the labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tasks.ground import files, paths, settings
from tasks.modelling import profile
from tasks.monitoring.intake import intake

MODEL = "tiny"
FEATURES = {
    "station": {"type": "category"},
    "weekday": {"type": "integer"},
    "hour": {"type": "integer"},
    "starts": {"type": "integer"},
    "pressure": {"type": "number"},
    "vibration": {"type": "number"},
}
PARAMS = (Path(__file__).parents[2] / "small" / "params.yaml").read_text(encoding="utf-8")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
"""When requests are answered, unless it is said otherwise; the rows are of whichever day a client says."""

LATER = NOON + timedelta(hours=1)
GONE = 4_000_000
"""No process has this number."""

WANTED = intake.IntakeOptions("classification", ("station",), keep_days=90)


def rows(first: str = "2013-04-01", days: int = 28, *, seed: int = 0, per_day: int = 24) -> pd.DataFrame:
    """Rows with labels, and what a calibrated model answers to them."""
    rng = np.random.default_rng([seed, int(first.replace("-", ""))])
    n = days * per_day
    time = pd.Timestamp(first) + pd.to_timedelta(np.repeat(np.arange(days), per_day), unit="D")
    time += pd.to_timedelta(np.tile(np.arange(per_day) * (24 * 60 // per_day), days), unit="m")
    p = rng.beta(2, 3, n).round(6)
    return pd.DataFrame(
        {
            "station": pd.Series(rng.choice(["north", "south"], n), dtype="str"),
            "weekday": time.day_of_week.to_numpy() + 1.0,
            "hour": time.hour.to_numpy().astype(float),
            "starts": rng.poisson(3, n).astype(float),
            "pressure": rng.uniform(1, 4, n).round(3),
            "vibration": np.where(rng.random(n) < 0.1, np.nan, rng.gamma(2, 0.5, n).round(3)),
            "label": (rng.random(n) < p).astype(np.int64),
            "time": time.astype("datetime64[us]"),
            "id": [f"{at:%Y%m%d%H%M}-{i}" for i, at in enumerate(time)],
            "p_0": 1 - p,
            "p_1": p,
        }
    )


def ask(
    asked: pd.DataFrame,
    candidate: str = "aaaa",
    *,
    number: int = 0,
    answered: datetime = NOON,
    at_once: int = 1,
    keys: bool = True,
    features: list[str] | None = None,
    classes: tuple[str, str] = ("0", "1"),
    decides: Callable[[float], Any] = lambda p: int(p > 0.5),
) -> Path:
    """Append lines as a replica writes them: a request for so many rows at once, a millisecond after each other."""
    path = (
        paths.incoming_predictions(MODEL)
        / answered.date().isoformat()
        / f"{candidate}.{GONE}.17{number:04d}.{number}.jsonl"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    names = features or list(FEATURES)
    given = asked[names].astype(object).where(asked[names].notna(), None).to_dict("records")
    told = [
        {"prediction": decides(p_1), "probability": p_1, "probabilities": dict(zip(classes, (p_0, p_1), strict=True))}
        for p_0, p_1 in zip(asked["p_0"].tolist(), asked["p_1"].tolist(), strict=True)
    ]
    ids, times = asked["id"].tolist(), asked["time"].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ").tolist()
    lines = []
    for begin in range(0, len(asked), at_once):
        of = slice(begin, begin + at_once)
        moment = answered + timedelta(milliseconds=begin)
        head = f"{round(moment.timestamp() * 1000):012x}{number:04x}"
        said = {
            "request": f"r{candidate}{number:04d}{begin:07d}",
            "time": times[begin],
            "ms": 2.0 + begin % 7,
            "model": MODEL,
            "version": "1",
            "release": candidate,
            "key": None,
            "ids": [f"{head}{begin + i:016x}" for i in range(len(ids[of]))],
            "keys": ids[of] if keys else None,
            "rows": given[of],
            "predictions": told[of],
        }
        lines.append(orjson.dumps(said) + b"\n")
    with path.open("ab") as stream:
        stream.writelines(lines)
    return path


def deliver(labelled: pd.DataFrame, partition: str) -> Path:
    """Labels come: the rows of a partition, as `prepare` lays them down."""
    path = settings.BUILD / MODEL / "rows" / f"{partition}.parquet"
    files.write_parquet(path, labelled.drop(columns=["p_0", "p_1"]).reset_index(drop=True))
    files.write_json(path.parents[1] / "split.json", {})
    return path


def made_of(learned: pd.DataFrame) -> dict[str, Any]:
    """The reference profile of a release that learned from these rows, with its answers."""
    return profile.reference_profile(learned, FEATURES, learned[["p_0", "p_1"]])


def observe(layout: intake.Layout, now: datetime = LATER) -> intake.IntakeState:
    """One look."""
    return intake.ingest(MODEL, WANTED, layout, now)


class Killed(BaseException):
    """As SIGKILL: nobody catches it."""


def killed_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the so manieth write on, nothing happens any more. What is being written is left half."""
    left = [writes]

    def breaking(write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return write(*arguments, **more)

        return call

    monkeypatch.setattr(pq.ParquetWriter, "write_table", breaking(pq.ParquetWriter.write_table))
    monkeypatch.setattr(np, "save", breaking(np.save))
    monkeypatch.setattr(Path, "write_bytes", breaking(Path.write_bytes))
    monkeypatch.setattr(files, "write_json", breaking(files.write_json))
    monkeypatch.setattr(files, "remove", breaking(files.remove))


def until_unkilled(
    look: Callable[[], object], before: Path, wanted: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> int:
    """A look at what was before, killed after 0, 1, 2 … writes, and looked again each time; gives how many it has."""
    for writes in range(1000):
        shutil.rmtree(intake.folder(MODEL))
        shutil.copytree(before, intake.folder(MODEL))
        with monkeypatch.context() as patch:
            killed_after(writes, patch)
            try:
                look()
            except Killed:
                ended = False
            else:
                ended = True
        look()
        assert files.tree(intake.folder(MODEL)) == wanted, f"killed after {writes} writes"
        if ended:
            return writes
    pytest.fail("it has no end")
