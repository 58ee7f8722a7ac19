"""How fast the monitor takes in what was logged, beside the notebook that a team would otherwise have.

Both read the same prediction log of a year, in Parquet, and say of every day and column how many values there are, how
many are missing and how they are spread, and of every column whether it drifts from what the model learned from. The
notebook does it as notebooks do: pandas' `groupby("day").describe()` and `value_counts()`, and for each week and column
`scipy.stats.ks_2samp` or `chi2_contingency` against the training rows. Evergreen also keeps each row for its label,
finds rows that were asked twice, and counts latencies. Each runs in a process of its own; they take turns.

The model is the packaged one in build/ (`make run` makes it).

    python -m benchmarks.throughput [--rows 5000000] [--repeat 3] [--page docs/benchmarks/throughput.md]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Evergreen sets it

import numpy as np
import pandas as pd
from deltalake import DeltaTable

from benchmarks.machine import machine
from tasks.ground import files, params, settings
from tasks.modelling import daily_summaries, profile, rows
from tasks.monitoring.drift import drift
from tasks.monitoring.intake import intake
from tasks.prediction_log import log_table, log_tables
from tasks.prediction_log.log_table import LogTable
from tasks.runtime import model_file

MODEL, DAYS, AT_ONCE = "flight_delay", 365, 10
"""Days of the log, and rows of a request."""

PACKAGES = ("pandas", "pyarrow", "numpy", "scipy")

GOAL, MEMORY = 10.0, 2.0
"""So many times as fast as the notebook, in so many GB."""


# ── the log ───────────────────────────────────────────────────────────────────────────────────────


def lay_down(root: Path, many: int) -> None:
    """A log of so many predictions below root/var, and what the model learned from, with its answers."""
    import pyarrow as pa

    model, build = params.load().model(MODEL), settings.BUILD / MODEL
    settings.VAR = root / "var"
    learned = rows.read(build, "train")
    candidate = files.read_json(build / "release" / "candidate.json")["candidate"]
    pipeline = model_file.load(build / "model" / "model.skops", None, own=f"models.{MODEL}")
    world = pd.concat([learned, rows.read(build, "holdout")], ignore_index=True)
    said = model_file.predict(pipeline, world[list(model.features)], model.task)
    described = {name: feature.model_dump() for name, feature in model.features.items()}
    known = profile.reference_profile(learned, described, said.iloc[: len(learned)])
    files.write_json(root / "profile.json", {"candidate": candidate, "profile": known})
    summaries = daily_summaries.summarise(learned.join(said.iloc[: len(learned)]), intake.columns(known))
    (root / "reference.parquet").write_bytes(daily_summaries.to_bytes(summaries))
    learned.join(said.iloc[: len(learned)]).to_parquet(root / "learned.parquet")
    world = world.join(said)
    marks = {log_tables.column_of(name): {"feature": name} for name in model.features}
    marks |= {name: {"class": name.removeprefix("p_")} for name in said.columns}
    per_day, rng = many // DAYS, np.random.default_rng(0)
    first = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    for number in range(DAYS):
        part = world.iloc[rng.integers(0, len(world), per_day)]
        moment = int(first.timestamp() * 1000) + number * 200_000  # all was answered yesterday, of a day of the year
        ids = [f"{moment + i // AT_ONCE:012x}7{number:03x}{i:016x}" for i in range(per_day)]
        asked = np.datetime64("2013-01-01", "us") + np.timedelta64(number, "D")
        columns: dict[str, Any] = {
            "id": ids,
            "request": [f"r{number:03d}-{i // AT_ONCE:07d}" for i in range(per_day)],
            "time": asked + (np.arange(per_day) // AT_ONCE * AT_ONCE * (86_000_000_000 // per_day)),
            "ms": np.repeat(rng.gamma(4, 0.5, -(-per_day // AT_ONCE)), AT_ONCE)[:per_day],
            "version": "1",
            "release": candidate,
            "key": None,
            "row_key": [f"{number:03d}-{i}" for i in range(per_day)],
            **{log_tables.column_of(name): part[name].to_numpy() for name in model.features},
            "prediction": (part["p_1"].to_numpy() > 0.5).astype(float),
            **{name: part[name].to_numpy() for name in said.columns},
            log_tables.PLACE: (np.arange(per_day) // AT_ONCE + 1) * 2000,
        }
        frame = pd.DataFrame(columns)
        schema = pa.Schema.from_pandas(frame, preserve_index=False).remove_metadata()
        fields = [
            field.with_type(pa.timestamp("us", "UTC") if field.name == "time" else _plain(field.type))
            for field in schema
        ]
        fields = [field.with_metadata(marks[field.name]) if field.name in marks else field for field in fields]
        table = pa.Table.from_pandas(frame, preserve_index=False).cast(pa.schema([f.remove_metadata() for f in fields]))
        table = table.cast(log_tables.schema_of([pa.schema(fields)]).empty_table().select(table.column_names).schema)
        name, table = (
            f"{candidate}.4000000.{moment}.{number}",
            table.append_column(log_table.DAY, pa.array([first.date().isoformat()] * per_day)),
        )
        LogTable.create(MODEL).append(table, {name: per_day})


def _plain(kind: Any) -> Any:
    import pyarrow as pa

    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_null(kind) else kind


# ── the two sides ─────────────────────────────────────────────────────────────────────────────────


def evergreen(root: Path) -> dict[str, Any]:
    """Take it in, and say what drifts."""
    settings.VAR = root / "var"
    said = files.read_json(root / "profile.json")
    wanted = intake.IntakeOptions("classification", ("origin", "carrier"), keep_days=90)
    state = intake.ingest(MODEL, wanted, lambda _: said["profile"])
    columns = intake.columns(said["profile"])
    stream = intake.summaries(MODEL, state, said["candidate"], columns)
    found = drift.detect(
        columns, daily_summaries.from_bytes((root / "reference.parquet").read_bytes(), columns), stream
    )
    return {"rows": state.rows, "columns": len(found.findings), "days": len(found.days)}


def notebook(root: Path) -> dict[str, Any]:
    """The same, as it would be typed."""
    from scipy import stats

    settings.VAR = root / "var"
    frame = DeltaTable(log_table.location(MODEL)).to_pandas()
    learned = pd.read_parquet(root / "learned.parquet")
    frame["day"] = frame["time"].dt.date
    week = frame["time"].dt.strftime("%G-%V")
    features = [name for name in [*params.load().model(MODEL).features, "p_1"] if name in frame]
    by_day = frame.groupby("day")
    for name in features:
        by_day[name].apply(lambda values: values.isna().sum())
        if pd.api.types.is_numeric_dtype(frame[name]):
            by_day[name].describe()
            for _, values in frame.groupby(week)[name]:
                stats.ks_2samp(learned[name].dropna(), values.dropna())
        else:
            by_day[name].value_counts()
            usual = learned[name].value_counts()
            for _, values in frame.groupby(week)[name]:
                both = pd.concat([usual, values.value_counts()], axis=1).fillna(0)
                stats.chi2_contingency(both.to_numpy().T + 0.5)
    return {"rows": len(frame), "columns": len(features), "days": int(frame["day"].nunique())}


SIDES: dict[str, Callable[[Path], dict[str, Any]]] = {"evergreen": evergreen, "notebook": notebook}


def measure(side: str, root: Path) -> dict[str, Any]:
    """One side in a process of its own: seconds, CPU seconds and the most memory it had, in GB."""
    files.remove(root / "var" / "monitoring")
    command = [sys.executable, "-m", "benchmarks.throughput", "--side", side, "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _side(side: str, root: Path) -> None:
    begin, cpu = time.perf_counter(), time.process_time()
    found = SIDES[side](root)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({**found, "seconds": seconds, "cpu": cpu, "gb": most}))


def main() -> int:
    """Lay down, measure, print; gives the exit code: 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        _side(given.side, given.root)
        return 0
    with tempfile.TemporaryDirectory(prefix="evergreen-throughput-") as folder:
        root = Path(folder)
        print(f"laying down a log of {given.rows:,} predictions", flush=True)
        lay_down(root, given.rows)
        rounds = [{side: measure(side, root) for side in SIDES} for _ in range(given.repeat)]
    text, kept = _text(rounds)
    print(text)
    if given.page:
        head = "# How fast the monitor takes in what was logged\n\nMade by `python -m benchmarks.throughput`; what is "
        files.write_text(given.page, f"{head}compared is told there.\n\n{machine(PACKAGES)}\n\n{text}")
    return 0 if kept else 1


def _text(rounds: list[dict[str, dict[str, Any]]]) -> tuple[str, bool]:
    lines = ["| | rows | columns | seconds | CPU s | rows a second | GB at most |", "| --- " * 7 + "|"]
    middle = {
        side: sorted((one[side] for one in rounds), key=lambda found: float(found["seconds"]))[len(rounds) // 2]
        for side in SIDES
    }
    for side, found in middle.items():
        speed = found["rows"] / found["seconds"]
        lines.append(
            f"| {side} | {found['rows']:,} | {found['columns']} | {found['seconds']:.1f} | {found['cpu']:.1f} | "
            f"{speed:,.0f} | {found['gb']:.2f} |"
        )
    ratio, most = middle["notebook"]["seconds"] / middle["evergreen"]["seconds"], middle["evergreen"]["gb"]
    lines += [
        "",
        f"{ratio:.1f} times as fast as the notebook (goal {GOAL:g}), in {most:.2f} GB (goal {MEMORY:g}).",
        "",
    ]
    return "\n".join(lines), ratio >= GOAL and most <= MEMORY


if __name__ == "__main__":
    sys.exit(main())
