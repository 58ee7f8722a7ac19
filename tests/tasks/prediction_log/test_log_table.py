"""The Delta table of the log has each prediction once: whoever writes, is killed, changes types or names, or reads."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from tasks.ground import paths, settings
from tasks.ground.errors import WorldError
from tasks.prediction_log import log_lines, log_table, log_tables, prediction_log
from tasks.prediction_log.log_table import LogTable
from tests.tasks.monitoring.conftest import enter_world
from tests.tasks.prediction_log.test_prediction_log import (
    GONE,
    LATER,
    MODEL,
    NOON,
    PLENTY,
    Writer,
    data_files,
    everything,
    line,
    name,
    new,
)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with the model `tiny` and an empty log."""
    enter_world(tmp_path, monkeypatch)


def with_rows(number: int, *rows: dict[str, Any], **more: Any) -> bytes:
    """A line with these rows."""
    answers = [{"prediction": 1, "probability": 0.5, "probabilities": more.pop("shares", {"0": 0.5, "1": 0.5})}]
    at = NOON + timedelta(seconds=number)
    return line(number, at, rows=list(rows), ids=[name(number, 0, at)], predictions=answers, **more)


def test_any_engine_reads_the_table() -> None:
    """DuckDB counts what the log has; the day of the answer is its partition."""
    Writer().requests(*range(1, 30), count=2)
    prediction_log.compact(MODEL, LATER)
    log = DeltaTable(log_table.location(MODEL)).to_pyarrow_dataset()
    counted = duckdb.sql("SELECT answered_day, count(*), count(DISTINCT id) FROM log GROUP BY ALL").fetchall()
    assert (counted, log.count_rows()) == ([("2026-11-21", 58, 58)], 58)


def test_names_that_differ_by_case_only_are_kept_apart() -> None:
    """Features and classes; Delta knows no such columns."""
    Writer().write(with_rows(1, {"Size": 1.0, "size": "m"}, shares={"A": 0.25, "a": 0.75}))
    Writer(process=GONE + 1).write(with_rows(2, {"SIZE": True, "size": "l"}, shares={"a": 0.5, "A": 0.5}))
    for _ in range(2):
        table = prediction_log.read(MODEL)
        assert [table[name].to_pylist() for name in ("Size", "size", "SIZE")] == [[1, None], ["m", "l"], [None, True]]
        assert [table[name].to_pylist() for name in ("p_A", "p_a")] == [[0.25, 0.5], [0.75, 0.5]]
        assert prediction_log.last_requests(MODEL, 1)[0].predictions[0]["probabilities"] == {"a": 0.5, "A": 0.5}
        prediction_log.compact(MODEL, LATER)


@pytest.mark.parametrize(
    ("values", "texts"),
    [([1, "many"], ["1", "many"]), ([True, "yes"], ["true", "yes"]), ([[1.0, 2.0], "none"], ["[1.0, 2.0]", "none"])],
)
def test_a_feature_that_becomes_a_text_is_text_in_all_of_the_table(values: list[Any], texts: list[str]) -> None:
    """Rows of before are written anew, and are not new to a reader of before. Also the other way round."""
    Writer().write(with_rows(1, {"starts": values[0]}))
    _, watermark = new({})
    Writer(process=GONE + 1).write(with_rows(2, {"starts": values[1]}))
    assert new(watermark)[0] == [2]
    Writer(process=GONE + 2).write(with_rows(3, {"starts": values[0]}))
    prediction_log.compact(MODEL, LATER)
    assert prediction_log.read(MODEL)["starts"].to_pylist() == [*texts, texts[0]]


def test_vectors_lists_and_several_labels_stand_in_the_table() -> None:
    """As they were logged, before and after."""
    shares = {"late": {"0": 0.25, "1": 0.75}, "full": {"0": 0.5, "1": 0.5}}
    answer = {"prediction": {"late": 1, "full": 0}, "probabilities": shares}
    row = {"scan": [1.0, 2.5], "ok": True}
    Writer().write(line(1, rows=[row], predictions=[{**answer, "unseen": ["ok"]}]))
    (before,) = prediction_log.last_requests(MODEL, 1)
    prediction_log.compact(MODEL, LATER)
    (after,) = prediction_log.last_requests(MODEL, 1)
    assert before.predictions == after.predictions == [{**answer, "unseen": ["ok"]}]
    assert before.rows == [row]
    assert {name: after.rows[0][name] for name in row} == row
    assert prediction_log.read(MODEL)["late:p_1"].to_pylist() == [0.75]


def test_two_that_compact_the_same_lines_at_once_double_nothing() -> None:
    """The second one finds a conflict, and begins again."""
    Writer().requests(1, 2)
    with log_lines.opened(MODEL) as (log,):
        rows = next(log.tables(0, log.whole))[0].append_column(log_table.DAY, pa.array([log.day] * 2))
        first, second = LogTable.create(MODEL), LogTable.create(MODEL)
        first.append(rows, {log.name: log.whole})
        with pytest.raises(log_table.Conflict):
            second.append(rows, {log.name: log.whole})
    assert prediction_log.compact(MODEL, LATER) == prediction_log.Compacted(files=1)
    assert everything() == [1, 2]


def test_a_conflict_in_a_compaction_begins_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever another machine committed in between stays."""
    Writer().requests(1, 2)
    Writer(process=GONE + 1).requests(3)
    real, calls = LogTable.append, []

    def append(self: LogTable, rows: pa.Table, places: dict[str, int]) -> None:
        calls.append(places)
        if len(calls) == 1:
            real(LogTable.create(MODEL), rows, places)
        real(self, rows, places)

    monkeypatch.setattr(LogTable, "append", append)
    assert prediction_log.compact(MODEL, LATER).files == 2
    assert sorted(everything()) == [1, 2, 3]


def test_what_is_written_between_looking_and_closing_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica writes its last line, and ends, after its file was opened by a compaction."""
    writer = Writer()
    writer.requests(1)
    real = log_lines.superseded

    def superseded(*arguments: Any) -> Any:
        if arguments[0]:  # of lines, not of files of earlier builds
            writer.requests(2)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(log_lines, "superseded", superseded)
        prediction_log.compact(MODEL, LATER)
    assert everything() == [1, 2]


@pytest.mark.parametrize("processes", [(GONE + 9, GONE + 3), (GONE + 4, GONE + 6)])
def test_killed_between_two_commits_a_request_that_stands_twice_counts_once(
    processes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier line is left out whichever of the two files has the first name."""
    Writer(process=processes[0]).requests(1, 2)
    Writer(process=processes[1], clock=NOON + timedelta(seconds=9)).requests(2)
    real, calls = LogTable.append, []

    def append(self: LogTable, *arguments: Any) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(real(self, *arguments))

    with monkeypatch.context() as patch:
        patch.setattr(prediction_log, "AT_ONCE", 1)
        patch.setattr(LogTable, "append", append)
        with pytest.raises(KeyboardInterrupt):
            prediction_log.compact(MODEL, LATER)
    prediction_log.compact(MODEL, LATER)
    assert everything() == [1, 2]


def test_data_files_of_a_power_cut_are_set_aside(caplog: pytest.LogCaptureFixture) -> None:
    """Torn commits and checkpoints too: the rest goes on, and the lines of a torn commit are taken again."""
    for number in range(3):
        Writer(process=GONE + number).requests(number)
        prediction_log.compact(MODEL, LATER)
    lost = LogTable.create(MODEL).files()[0].path
    path = Writer(process=GONE + 4).requests(4)
    content, root = path.read_bytes(), paths.prediction_table(MODEL)
    prediction_log.compact(MODEL, LATER)
    path.write_bytes(content)
    max((root / "_delta_log").glob("*.json")).write_bytes(b"")
    (root / lost).write_bytes(b"PAR1")
    prediction_log.compact(MODEL, LATER)
    assert len(everything()) == 3
    assert 4 in everything()
    assert "are lost" in caplog.text
    assert len(list((settings.VAR / "torn").iterdir())) == 2


@pytest.mark.parametrize("tear", [lambda _: b"", lambda content: bytes(byte ^ 0xA5 for byte in content)])
@pytest.mark.parametrize("has_lines", [True, False])
def test_where_all_is_torn_the_log_begins_anew(tear: Any, has_lines: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The table is set aside whole; what there still is of lines is taken."""
    Writer().requests(1)
    prediction_log.compact(MODEL, LATER)
    path = Writer(process=GONE + 1).requests(2)
    for torn in [path for path in paths.prediction_table(MODEL).rglob("*") if path.is_file()]:
        torn.write_bytes(tear(torn.read_bytes()))
    with pytest.raises(WorldError, match="the next run of the monitor mends what it can"):
        prediction_log.last_requests(MODEL, 9)
    if not has_lines:
        path.unlink()
    assert new({})[0] == everything() == [2] * has_lines
    assert "too much of its log is torn" in caplog.text


def test_the_tables_own_log_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits that are older than a week go with a later checkpoint."""
    monkeypatch.setitem(log_table.PROPERTIES, "delta.logRetentionDuration", "interval 0 seconds")
    monkeypatch.setitem(log_table.PROPERTIES, "delta.checkpointInterval", "5")
    for number in range(23):
        Writer(process=GONE + number).requests(number)
        prediction_log.compact(MODEL, LATER)
    assert len(list((paths.prediction_table(MODEL) / "_delta_log").glob("*.json"))) <= 12
    assert everything() == list(range(23))
    assert new({})[0] == list(range(23))


# ── Parquet files of earlier builds ───────────────────────────────────────────────────────────────


def former(writer: Writer, *numbers: int, **more: Any) -> Path:
    """A file as builds before the table compacted it."""
    path = writer.requests(*numbers, **more)
    with log_lines.opened(MODEL) as lines:
        (log,) = [log for log in lines if log.path == path]
        table = log_tables.concat([rows for rows, _, _ in log.tables(0, log.whole)])
        target = paths.predictions(MODEL) / f"{log.name}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(target, table.schema) as parquet:
        parquet.write_table(table, row_group_size=7)
        parquet.add_key_value_metadata({"size": str(path.stat().st_size), "damaged": "0"})
    path.unlink()
    return target


@pytest.mark.parametrize("read", ["read", "last_requests", "read_new", "find", "compact"])
def test_what_earlier_builds_compacted_is_taken_into_the_table(read: str) -> None:
    """Whatever is asked first; of a request that stands twice the later line counts, and nothing is taken twice."""
    old = former(Writer(), *range(1, 40))
    other = Writer(process=GONE + 1, clock=NOON + timedelta(seconds=45))
    former(other, 39, 40, version="4")
    whole = old.read_bytes()
    if read == "find":
        at = NOON + timedelta(seconds=46)
        logged = prediction_log.find(MODEL, name(39, 0, at))
        assert logged is not None
        assert logged.version == "4"
    else:
        getattr(prediction_log, read)(MODEL, *{"last_requests": (9,), "read_new": ({},)}.get(read, ()))
    assert everything() == list(range(1, 41))
    assert not list(paths.predictions(MODEL).glob("2026-*"))
    old.parent.mkdir()
    old.write_bytes(whole)  # as if killed between the commit and its removal
    assert everything() == new({})[0] == list(range(1, 41))
    assert not old.exists()


# ── a bucket ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a bucket."""
    import boto3

    credentials = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for variable, value in {**credentials, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(variable, value)
    boto3.client("s3").create_bucket(Bucket="log")
    return "s3://log/predictions"


def test_a_table_in_a_bucket_is_as_one_on_disk(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written, read, erased and swept; by two machines, each with its own lines."""
    text = (settings.ROOT / "params.yaml").read_text()
    changed = text.replace("serving: {", f"serving: {{log_table: '{bucket}', ")
    assert changed != text
    (settings.ROOT / "params.yaml").write_text(changed)
    for machine in ("a", "b"):
        monkeypatch.setattr(settings, "VAR", settings.ROOT / machine)
        Writer(process=GONE + ord(machine)).requests(*range(ord(machine), ord(machine) + 5))
        prediction_log.compact(MODEL, LATER)
    assert len(data_files()) == 2
    numbers, watermark = new({})
    assert numbers == sorted([*range(97, 102), *range(98, 103)])
    Writer(process=GONE).requests(1, 2)
    assert new(watermark)[0] == [1, 2]
    at = NOON + timedelta(seconds=1)
    assert prediction_log.forget(MODEL, ids=[name(1, 0, at)], now=LATER) == 1
    assert len(prediction_log.read(MODEL)) == 11
    assert prediction_log.find(MODEL, name(2, 0, NOON + timedelta(seconds=2))) is not None
    prediction_log.sweep(MODEL, 1, PLENTY, LATER + timedelta(days=1))
    assert everything() == []


# ── kills ─────────────────────────────────────────────────────────────────────────────────────────

WRITER = """
import os, sys, time
from pathlib import Path
from datetime import datetime, UTC
from tasks.ground import settings
settings.ROOT, settings.VAR = Path(sys.argv[1]), Path(sys.argv[1]) / "var"
from tasks.ground import paths
from tasks.runtime import predictor, replica
import orjson, uuid
log = replica.PredictionLog(paths.incoming_predictions("tiny"), "tiny", "97a3", "3")
answered, number = open(sys.argv[2], "a"), 0
while True:
    number += 1
    ids = [f"{int(time.time() * 1000):012x}7{os.urandom(9).hex()}" for _ in range(2)]
    body = {"ids": ids, "keys": None, "rows": [{"starts": number}] * 2, "predictions": [{"prediction": 1}] * 2}
    frame = replica.RequestFrame(replica.PREDICT, number, time.time(), uuid.uuid4().hex, None, b"")
    log.write([(frame, predictor.Answer(200, b"", orjson.dumps(body)[1:-1]))])
    answered.write("".join(f"{i}\\n" for i in ids)); answered.flush()
    time.sleep(0.002)
"""

COMPACTOR = """
import sys
from pathlib import Path
from tasks.ground import settings
settings.ROOT, settings.VAR = Path(sys.argv[1]), Path(sys.argv[1]) / "var"
from tasks.prediction_log import prediction_log, log_table
log_table.MANY = 4
while True:
    prediction_log.compact("tiny")
"""


def outlive_kills(root: Path, writers: int, kills: int, seed: int) -> tuple[list[str], list[str]]:
    """The ids that were answered, and those in the table, after so many kills of writers and compactors."""
    rng, here = np.random.default_rng(seed), Path(__file__).parents[3]
    text = (root / "params.yaml").read_text().replace("serving: {", "serving: {timeout_s: 0.05, ")
    (root / "params.yaml").write_text(text)

    def start(code: str, number: int) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-c", code, str(root), str(root / f"answered-{number}")]
        return subprocess.Popen(arguments, cwd=here, stderr=subprocess.PIPE)

    codes = [WRITER] * writers + [COMPACTOR] * 2
    processes = [start(code, number) for number, code in enumerate(codes)]
    while not all((root / f"answered-{number}").exists() for number in range(writers)):
        time.sleep(0.1)
    for _ in range(kills):
        time.sleep(float(rng.uniform(0.1, 0.6)))
        # every other kill meets a compaction
        victim = int(rng.integers(writers, len(codes)) if rng.random() < 0.5 else rng.integers(0, writers))
        processes[victim].send_signal(signal.SIGKILL)
        _, told = processes[victim].communicate()
        assert b"Traceback" not in told, told.decode()
        processes[victim] = start(codes[victim], victim)
    for process in processes:
        process.kill()
        _, told = process.communicate()
        assert b"Traceback" not in told, told.decode()
    time.sleep(1)
    prediction_log.compact(MODEL)
    assert prediction_log.compact(MODEL).open == 0
    answered = [path.read_text().split("\n")[:-1] for path in root.glob("answered-*")]
    table = LogTable.open(MODEL)
    assert table is not None
    rows = log_tables.concat(list(table.tables([file.path for file in table.files()], ("id",))))
    return sorted(id_ for ids in answered for id_ in ids), sorted(rows["id"].to_pylist())


@pytest.mark.parametrize(
    ("writers", "kills"),
    [pytest.param(2, 4, marks=pytest.mark.slow), pytest.param(10, 200, marks=pytest.mark.long)],
)
@pytest.mark.timeout(900)
def test_every_answered_prediction_is_in_the_table_once(writers: int, kills: int) -> None:
    """Writers and compactors are killed (SIGKILL) at random; what was logged and not answered may be there as well."""
    answered, stored = outlive_kills(settings.ROOT, writers, kills, seed=kills)
    assert len(stored) == len(set(stored))
    assert set(answered) <= set(stored)
    assert len(stored) - len(answered) <= 4 * (kills + writers)  # a request of two rows each was not answered
    print(orjson.dumps({"kills": kills, "answered": len(answered), "stored": len(stored)}).decode())
