"""What ten times the rows cost, beside what a person would write by hand: processor seconds, memory, bytes written.

A function per measure, each in processes of its own. Batch scoring: rows of flights, repeated up to the size asked for,
scored by `evergreen`'s batch and by a plain loop, `predict_proba` over Arrow batches, with the same release on the same
machine. The loop checks nothing, and writes nothing but the probabilities. Engine: a history of two years is
validated and prepared by one process, and by two workers.

    python -m benchmarks.scale [--rows 300000] [--only engine]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Evergreen sets it

from benchmarks.machine import machine
from tasks.ground import files, settings

MODEL = "flight_delay"

BATCH = """
import sys
from tasks.release.batch import batch
batch.score(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4])
"""

LOOP = """
import sys
from pathlib import Path
import pyarrow as pa
from pyarrow import parquet
from tasks.runtime import model_file
pipeline = model_file.load(Path(sys.argv[4]), None, own=f"models.{sys.argv[1]}")
rows = parquet.ParquetFile(sys.argv[2])
schema = pa.schema([("p", pa.float64())])
with parquet.ParquetWriter(Path(sys.argv[3]) / "answers.parquet", schema, compression="zstd") as writer:
    features = [name for name in rows.schema_arrow.names if name not in {"id", "time", "label"}]
    for piece in rows.iter_batches(50_000, columns=features):
        p = pipeline.predict_proba(piece.to_pandas())[:, 1]
        writer.write_table(pa.table({"p": p}, schema))
"""

STAGE = """
import sys
from tasks.ground import settings
settings.apply()
from tasks import steps
steps.run(sys.argv[1], [sys.argv[2]])
"""

YEARS = (2011, 2013)
"""No leap years: February has as many days as the data that stand for it."""


@dataclass(frozen=True)
class Cost:
    """What a process and its children took."""

    cpu: float
    """Seconds."""
    wall: float
    """Seconds."""
    peak: float
    """MB, of the largest process."""
    written: float
    """MB that stay."""


def cost(code: str, arguments: list[str], to: Path, cwd: Path = settings.ROOT, **variables: str) -> Cost:
    """Run a script in an interpreter of its own, and measure it and its children; what it leaves is in `to`."""
    begun, command = time.monotonic(), [sys.executable, "-c", code, *arguments]
    process = subprocess.Popen(command, cwd=cwd, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"benchmarks.scale: a script failed with {process.returncode}; its error is above")
    wall = time.monotonic() - begun
    written = sum(path.stat().st_size for path in to.rglob("*") if path.is_file()) / 1e6
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1e3, written)


def batch_scoring(root: Path, rows: int) -> list[str]:
    """The lines of the table: batch and a plain loop, each on a tenth of the rows and on all of them.

    What a row costs is the difference of the two: starting, importing and loading are in neither.
    """
    build = settings.BUILD / MODEL
    candidate = files.read_json(build / "release" / "candidate.json")["candidate"]
    ways = {"batch": (BATCH, candidate), "plain loop": (LOOP, str(build / "model" / "model.skops"))}
    lines, slopes = [], {}
    with ProcessPoolExecutor(1, get_context("spawn")) as aside:  # a child's peak memory is at least its parent's
        sources = {
            count: aside.submit(flights, root / f"{count}.parquet", count).result() for count in (rows // 10, rows)
        }
    for way, (code, model) in ways.items():
        costs = []
        for count, source in sources.items():
            to = root / f"{way}-{count}"
            to.mkdir()
            costs.append(took := cost(code, [MODEL, str(source), str(to), model], to))
            lines.append(
                f"| {way} | {count:,} | {took.cpu:.1f} | {took.wall:.1f} | {took.peak:.0f} | {took.written:.1f} |"
            )
        slopes[way] = (costs[1].cpu - costs[0].cpu) / (rows - rows // 10) * 1e6, costs[1].written / rows * 1e6
    (cpu, size), (loop_cpu, loop_size) = slopes["batch"], slopes["plain loop"]
    more = f"A million rows more: {cpu:.1f} s of CPU beside {loop_cpu:.1f} ({cpu / loop_cpu:.2f} ×)"
    head = ["| batch scoring | rows | CPU s | wall s | peak MB | MB written |", "| --- | --- | --- | --- | --- | --- |"]
    return [*head, *lines, f"\n{more}; {size:.1f} MB written beside {loop_size:.1f} ({size / loop_size:.2f} ×)."]


def flights(path: Path, count: int) -> Path:
    """So many rows of flights with id, time and label, the year over and over, the time a year later each time."""
    import pandas as pd

    year = pd.concat([pd.read_parquet(p) for p in sorted((settings.BUILD / MODEL / "rows").glob("*.parquet"))])
    copies = [
        year.assign(time=year["time"] + pd.Timedelta(days=364 * i), id=year["id"] + f"-{i}")
        for i in range(-(-count // len(year)))
    ]
    pd.concat(copies, ignore_index=True).iloc[:count].to_parquet(path, index=False)
    return path


def engine(root: Path, _rows: int) -> list[str]:
    """The lines of the table: a history is validated and prepared by this process alone, and by two workers.

    Cores busy are CPU seconds by seconds: beside other work, two workers cannot have two cores.
    """
    lines, hashes = [], set()
    for url in ("local:1", "local:2"):
        project = history(root / url.replace(":", "-"))
        variables = {"EVERGREEN_ENGINE": url, "EVERGREEN_ROOT": str(project), "PYTHONPATH": str(project)}
        for stage in ("validate", "prepare"):
            took = cost(STAGE, [stage, MODEL], project / "build", project, **variables)
            busy = took.cpu / took.wall
            lines.append(f"| {stage} | {url} | {took.cpu:.1f} | {took.wall:.1f} | {busy:.2f} | {took.peak:.0f} |")
        hashes.add(files.digest(files.tree(project / "build" / MODEL)))
    same = "the same bytes" if len(hashes) == 1 else "OTHER BYTES"
    head = [
        "| engine | EVERGREEN_ENGINE | CPU s | wall s | cores busy | peak MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return [*head, *lines, f"\n{12 * len(YEARS)} partitions of each dataset; {same} by either."]


def history(root: Path) -> Path:
    """A copy of this project with the year of flights and weather over and over, and nothing made of it."""
    from models import upstream

    for name in ("tasks", "models", "locks"):
        shutil.copytree(settings.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "requirements.lock"):
        shutil.copyfile(settings.ROOT / name, root / name)
    shutil.copytree(settings.BUILD / MODEL / "environment", root / "build" / MODEL / "environment")
    for dataset in upstream.DATASETS:
        (root / "data" / dataset).mkdir(parents=True)
        for name, content in (upstream.deliver(dataset, partition) for partition in upstream.partitions()):
            for year in YEARS:
                target = root / "data" / dataset / name.replace("2013", str(year))
                target.write_bytes(re.sub(rb"(?m)(^|,)2013([,-])", rb"\g<1>%d\g<2>" % year, content))
    return root


MEASURES: dict[str, Callable[[Path, int], list[str]]] = {"batch": batch_scoring, "engine": engine}


def main() -> None:
    """Measure, and print a table per measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--only", choices=MEASURES, action="append", help="these measures; without it, all")
    asked = parser.parse_args()
    print(machine(("pyarrow", "pandas", "scikit-learn")))
    for name in asked.only or MEASURES:
        with tempfile.TemporaryDirectory() as folder:
            print("\n".join(MEASURES[name](Path(folder), asked.rows)), flush=True)


if __name__ == "__main__":
    main()
