"""The prediction log gives what was answered, each request once: torn, asked twice, or compacted while it is read."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tasks.ground import paths, settings
from tasks.ground.errors import WorldError
from tasks.prediction_log import log_lines, log_table, log_tables, prediction_log
from tasks.runtime import predictor, replica
from tests.tasks.monitoring.conftest import enter_world

MODEL = "tiny"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
PLENTY = 10**12
GONE = 4_000_000  # no process has this number: Linux gives none above 4,194,304, and few machines get there


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with the model `tiny` and an empty log, in which a block has a few lines: its edges are seen."""
    enter_world(tmp_path, monkeypatch)
    monkeypatch.setattr(log_lines, "BLOCK", 2000)
    monkeypatch.setattr(log_table, "ROW_GROUP", 7)


@pytest.fixture(params=["lines", "parquet"])
def settle(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Compacts the log, or leaves its lines: a test that calls it holds of both."""
    return (lambda: prediction_log.compact(MODEL, LATER)) if request.param == "parquet" else (lambda: None)


def name(request: int, row: int = 0, at: datetime = NOON, what: str = "") -> str:
    """What a prediction is called: the milliseconds come first."""
    return f"{round(at.timestamp() * 1000):012x}{what}-{request:06d}-{row}"


def line(request: int, at: datetime = NOON, count: int = 1, **more: Any) -> bytes:
    """A line as a replica writes it."""
    row = {"station": "north", "weekday": 1, "hour": 6, "starts": 4, "pressure": 2.5, "vibration": None}
    share = (request % 97) / 97
    said = {
        "request": f"r{request:06d}",
        "time": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "ms": 3.25,
        "model": MODEL,
        "version": "3",
        "release": "97a3",
        "key": None,
        "ids": [name(request, i, at) for i in range(count)],
        "keys": None,
        "rows": [{**row, "starts": request} for _ in range(count)],
        "predictions": [{"prediction": 1, "probability": share, "probabilities": {"0": 1 - share, "1": share}}] * count,
    }
    return orjson.dumps({**said, **more}) + b"\n"


@dataclass
class Writer:
    """A replica, as far as the log goes."""

    process: int = GONE
    number: int = 0
    day: datetime = NOON
    candidate: str = "97a3"
    clock: datetime = field(default=NOON)

    @property
    def path(self) -> Path:
        """Where it writes to."""
        name = f"{self.candidate}.{self.process}.17000{self.number}.{self.number}.jsonl"
        return paths.incoming_predictions(MODEL) / self.day.date().isoformat() / name

    def write(self, *lines: bytes) -> Path:
        """Append."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            stream.writelines(lines)
        return self.path

    def requests(self, *numbers: int, seconds: float = 1.0, **more: Any) -> Path:
        """Append a line each, one second apart."""
        for number in numbers:
            self.clock += timedelta(seconds=seconds)
            self.write(line(number, self.clock, **more))
        return self.path


def numbers(table: pa.Table) -> list[int]:
    """Which requests' rows are in a table."""
    return [int(request[1:]) for request in table["request"].to_pylist()]


def everything() -> list[int]:
    """Which requests are in the log, in order."""
    return numbers(prediction_log.read(MODEL))


def new(watermark: prediction_log.Watermark, now: datetime = LATER) -> tuple[list[int], prediction_log.Watermark]:
    """Which requests are new, and the watermark."""
    tables, reached = prediction_log.read_new(MODEL, watermark, now=now)
    return sorted(number for table in tables for number in numbers(table)), as_stored(reached)


def as_stored(watermark: prediction_log.Watermark) -> prediction_log.Watermark:
    """Written down, and read again."""
    told: prediction_log.Watermark = orjson.loads(orjson.dumps(watermark))
    return told


def data_files() -> list[str]:
    """The data files of the table."""
    table = log_table.LogTable.open(MODEL)
    return [file.name for file in table.files()] if table else []


# ── reading ───────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_log_has_no_rows() -> None:
    """Before the first request there is a table with the columns that there will always be."""
    table = prediction_log.read(MODEL)
    assert len(table) == 0
    assert set(log_tables.HEAD) <= set(table.column_names)
    assert new({}) == ([], {})
    assert prediction_log.last_requests(MODEL, 5) == []


def test_a_row_is_what_was_asked_and_what_was_answered(settle: Callable[[], Any]) -> None:
    """Typed as in params.yaml, whatever JSON made of it; the same before and after it was compacted."""
    Writer().write(
        line(1, count=2), line(2, key="bob", ids=[name(2)], predictions=[{"prediction": 0, "unseen": ["station"]}])
    )
    settle()
    table = prediction_log.read(MODEL)
    assert table.column_names == [
        "id", "request", "time", "ms", "version", "release", "key", "row_key",
        "hour", "pressure", "starts", "station", "vibration", "weekday",
        "prediction", "probability", "p_0", "p_1", "unseen",
    ]  # fmt: skip
    types = {name: str(table.schema.field(name).type) for name in ("time", "station", "starts", "vibration", "unseen")}
    assert types["time"] == "timestamp[us, tz=UTC]"
    assert types["station"] == "string"
    assert types["starts"] == types["vibration"] == "double"
    assert types["unseen"].startswith("list<")
    assert table["id"].to_pylist() == [name(1), name(1, 1), name(2)]
    assert table["p_1"].to_pylist() == [1 / 97, 1 / 97, None]
    assert table["unseen"].to_pylist() == [None, None, ["station"]]
    assert table["key"].to_pylist() == [None, None, "bob"]
    assert table["time"].to_pylist() == [NOON] * 3


def test_rows_are_in_the_order_of_time_then_id() -> None:
    """Whichever process wrote them, and whichever of its files was compacted."""
    Writer(number=0).write(line(5, NOON + timedelta(seconds=9)), line(2, NOON + timedelta(seconds=2)))
    prediction_log.compact(MODEL, LATER)
    Writer(number=1).write(line(9, NOON + timedelta(seconds=2)), line(1, NOON + timedelta(seconds=1)))
    assert everything() == [1, 2, 9, 5]


def test_a_span_holds_what_arrived_in_it(settle: Callable[[], Any]) -> None:
    """From `since` on, and before `until`."""
    Writer().requests(*range(1, 40))
    settle()
    table = prediction_log.read(MODEL, NOON + timedelta(seconds=10), NOON + timedelta(seconds=13))
    assert numbers(table) == [10, 11, 12]


@pytest.mark.parametrize("said", ["2020-02-29T12:00:00.000000Z", "2261-12-31T23:59:59.999999Z"])
def test_a_client_may_say_when_it_asked(said: str, settle: Callable[[], Any]) -> None:
    """Spans are of that time; what is new, and which line is the later one, is told by when it was answered."""
    Writer().write(line(1, NOON, time=said), line(2, NOON + timedelta(seconds=1)))
    Writer(process=GONE + 1).write(line(1, NOON + timedelta(seconds=5), time=said, version="4"))
    assert new({}, NOON + timedelta(seconds=90))[0] == []
    settle()
    asked = datetime.fromisoformat(said)
    table = prediction_log.read(MODEL, asked, asked + timedelta(microseconds=1))
    assert table["version"].to_pylist() == ["4"]
    assert numbers(prediction_log.read(MODEL, NOON, LATER)) == [2]
    assert new({})[0] == [1, 2]
    assert [one.request for one in prediction_log.last_requests(MODEL, 1)] == ["r000001"]


def test_a_client_may_say_what_it_calls_its_rows(settle: Callable[[], Any]) -> None:
    """A label is found by that later."""
    Writer().write(line(1, count=2, keys=["a", "b"]), line(2))
    settle()
    assert prediction_log.read(MODEL)["row_key"].to_pylist() == ["a", "b", None]


def test_only_the_asked_columns_are_given() -> None:
    """In the asked order; one that nobody logged is null."""
    Writer().write(line(1))
    table = prediction_log.read(MODEL, columns=["probability", "id", "vibration", "low"])
    assert table.column_names == ["probability", "id", "vibration", "low"]
    assert table["low"].to_pylist() == [None]
    assert [str(table.schema.field(name).type) for name in ("vibration", "low")] == ["double", "double"]


def test_releases_that_know_other_features_stand_in_one_table() -> None:
    """A column that one of them lacks is null there; of a number and a text, text is made."""
    Writer(candidate="a").write(line(1, count=1))
    Writer(candidate="b").write(
        line(2, NOON + timedelta(seconds=1), count=1).replace(b'"starts":2', b'"starts":"many","brand":"x"')
    )
    prediction_log.compact(MODEL, LATER)
    table = prediction_log.read(MODEL)
    assert table["starts"].to_pylist() == ["1", "many"]
    assert table["brand"].to_pylist() == [None, "x"]


def test_a_feature_with_the_name_of_a_column_of_the_log_has_another() -> None:
    """And is asked again under its own."""
    Writer().write(line(1, count=1, key="k").replace(b'"starts":1', b'"key":7,"p_1":8'))
    prediction_log.compact(MODEL, LATER)
    table = prediction_log.read(MODEL)
    assert table["key"].to_pylist() == ["k"]
    assert table["feature_key"].to_pylist() == [7.0]
    assert table["feature_p_1"].to_pylist() == [8.0]
    asked = prediction_log.last_requests(MODEL, 1)[0].rows[0]
    assert (asked["key"], asked["p_1"]) == (7, 8)


def test_what_a_replica_writes_is_what_is_read() -> None:
    """The two sides of the log share no code: a release of last year wrote it, the checkout of today reads it."""
    log = replica.PredictionLog(paths.incoming_predictions(MODEL), MODEL, "97a3", "3")
    said = orjson.loads(line(7, count=2, keys=["a", "b"]))
    logged = orjson.dumps({name: said[name] for name in ("ids", "keys", "rows", "predictions")})[1:-1]
    request = replica.RequestFrame(replica.PREDICT, 1, NOON.timestamp(), 'r000007"\n', "bob\n", b"")
    log.write([(request, predictor.Answer(200, b"", logged))])
    (path,) = paths.incoming_predictions(MODEL).glob("*/*.jsonl")
    (one,) = prediction_log.last_requests(MODEL, 9)
    assert (one.request, one.time, one.version, one.release, one.key) == ('r000007"\n', NOON, "3", "97a3", "bob\n")
    assert (one.rows, one.predictions) == (said["rows"], said["predictions"])
    assert prediction_log.compact(MODEL, datetime.now(UTC)) == prediction_log.Compacted(rows=2, open=1)
    tomorrow = datetime.now(UTC) + timedelta(days=1, minutes=2)
    log.write([(request, predictor.Answer(200, b"", logged))])
    log._close()
    assert prediction_log.compact(MODEL, tomorrow) == prediction_log.Compacted(files=1, rows=2)
    assert not path.exists()
    table = prediction_log.read(MODEL)
    assert sorted(table["row_key"].to_pylist()) == ["a", "a", "b", "b"]
    assert set(table["key"].to_pylist()) == {"bob\n"}


# ── torn lines ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("length", [1, 13, 60, -2, -1])
def test_a_torn_last_line_is_left_out_and_counted(length: int) -> None:
    """The process was killed while it wrote: that request was not answered."""
    Writer().write(line(1), line(2)[:length])
    assert everything() == [1]
    done = prediction_log.compact(MODEL, LATER)
    assert (done.files, done.rows, done.damaged) == (1, 1, 1)
    assert everything() == [1]


def test_a_line_that_a_full_disk_cut_off_does_not_take_the_next_one_with_it() -> None:
    """Whether or not the writer began the next line with a line break."""
    Writer().write(line(1), line(2)[:70], line(3), line(4)[:70], b"\n", line(5), b"\n")
    assert everything() == [1, 3, 5]
    assert prediction_log.compact(MODEL, LATER).damaged == 3
    assert everything() == new({})[0] == [1, 3, 5]


@pytest.mark.parametrize(
    "harm",
    [
        b"[]\n", b"{}\n", b"\n", b"\xff\xfe\n", b"null\n", line(7, ids=[]), line(7, time="yesterday"), line(7, rows=[]),
        line(7, rows=[1]), line(7).replace(b"\"r000007\"", b"null"), line(7, ms="x"), line(7)[:-2] + b"]\n",
    ],
)  # fmt: skip
def test_what_is_no_line_of_the_log_is_left_out(harm: bytes) -> None:
    """One damaged line is one line."""
    Writer().write(line(1), harm, line(2))
    assert everything() == [1, 2]
    assert prediction_log.compact(MODEL, LATER).damaged == 1
    assert everything() == new({})[0] == [1, 2]


def test_a_line_of_another_order_is_read_all_the_same() -> None:
    """The quick look at a line's beginning is no more than quick."""
    said = orjson.loads(line(1))
    Writer().write(orjson.dumps(dict(reversed(said.items()))) + b"\n", line(2))
    assert everything() == [1, 2]
    assert new({})[0] == [1, 2]


# ── a request that stands twice ───────────────────────────────────────────────────────────────────


def test_of_a_request_that_stands_twice_the_later_line_counts(settle: Callable[[], Any]) -> None:
    """A replica was killed between logging and answering, and another one answered."""
    killed, other = Writer(number=0), Writer(process=GONE + 1)
    killed.requests(1, 2, 3)
    other.clock = NOON + timedelta(seconds=5)
    other.requests(3, 4, version="4")
    settle()
    table = prediction_log.read(MODEL)
    assert numbers(table) == [1, 2, 3, 4]
    assert table["version"].to_pylist() == ["3", "3", "4", "4"]
    assert new({})[0] == [1, 2, 3, 4]
    assert [one.version for one in prediction_log.last_requests(MODEL, 4)] == ["3", "3", "4", "4"]


def test_the_newest_requests_of_one_release_are_found_beside_those_of_others() -> None:
    """As a canary's are, which answers a small share."""
    Writer(number=0, candidate="97a3").requests(1, 2, 3)
    Writer(process=GONE + 1, candidate="97a4").requests(4, 5, 6, 7)
    assert [one.request for one in prediction_log.last_requests(MODEL, 2, "97a3")] == ["r000002", "r000003"]
    assert prediction_log.last_requests(MODEL, 2, "97a") == []


def test_the_earlier_line_counts_in_no_span() -> None:
    """So spans that touch give each request once."""
    Writer().requests(1)
    Writer(process=GONE + 1, clock=NOON + timedelta(seconds=5)).requests(1)
    middle = NOON + timedelta(seconds=3)
    assert numbers(prediction_log.read(MODEL, until=middle)) == []
    assert numbers(prediction_log.read(MODEL, since=middle)) == [1]


def test_a_request_asked_again_over_midnight_counts_once() -> None:
    """The two lines lie in folders of two days."""
    night = datetime(2026, 11, 20, 23, 59, 58, tzinfo=UTC)
    Writer(day=night, clock=night).requests(1, 2, seconds=0.5)
    Writer(process=GONE + 1, clock=night + timedelta(seconds=3)).requests(2)
    assert everything() == [1, 2]
    assert numbers(prediction_log.read(MODEL, until=night + timedelta(seconds=2))) == [1]


# ── what is new ───────────────────────────────────────────────────────────────────────────────────


def test_what_is_new_is_given_once() -> None:
    """Also when a file grows, another begins, and an older one gets a late line."""
    first, second = Writer(), Writer(process=GONE + 1)
    first.requests(1, 2)
    got, watermark = new({})
    assert got == [1, 2]
    first.requests(3)
    second.requests(4)
    got, watermark = new(watermark)
    assert got == [3, 4]
    first.requests(5)
    assert new(watermark)[0] == [5]
    assert new(new(watermark)[1])[0] == []


@pytest.mark.parametrize("read", [1, 2, 3, 5, 8, 13, 21, 28])
def test_what_was_taken_of_a_file_is_not_taken_again_when_it_is_closed(read: int) -> None:
    """The table knows up to which place."""
    writer = Writer()
    writer.requests(*range(1, 30), count=2)
    got, watermark = new({}, NOON + timedelta(seconds=90 + read))
    assert got == sorted([*range(1, read + 1)] * 2)
    writer.requests(30, 31)
    assert prediction_log.compact(MODEL, LATER).rows == 60 - 2 * read
    assert new(watermark)[0] == sorted([*range(read + 1, 30)] * 2 + [30, 31])


def test_what_is_young_when_it_is_compacted_is_read_when_it_is_settled() -> None:
    """A replica ended, its file is closed at once; its last requests may still be asked again."""
    Writer().requests(*range(1, 30))
    assert prediction_log.compact(MODEL, NOON + timedelta(seconds=30)) == prediction_log.Compacted(open=1)
    got, watermark = new({}, NOON + timedelta(seconds=95))
    assert got == [1, 2, 3, 4, 5]
    got, watermark = new(watermark, NOON + timedelta(seconds=100))
    assert got == [6, 7, 8, 9, 10]
    assert new(watermark)[0] == list(range(11, 30))


def test_what_is_appended_between_asking_and_reading_is_read_once() -> None:
    """The tables are given one by one, of the version that was asked for."""
    writer = Writer()
    writer.requests(*range(1, 30))
    _, watermark = new({}, NOON + timedelta(seconds=110))
    tables, reached = prediction_log.read_new(MODEL, watermark, now=LATER)
    writer.requests(30)
    prediction_log.compact(MODEL, LATER)
    assert sorted(number for table in tables for number in numbers(table)) == list(range(21, 30))
    assert new(reached)[0] == [30]


def test_what_is_young_is_left_until_it_is_settled() -> None:
    """It may be asked again, and then its later line is the one that counts."""
    killed = Writer()
    killed.requests(1, 2)
    got, watermark = new({}, NOON + timedelta(seconds=91))
    assert got == [1]
    Writer(process=GONE + 1, clock=NOON + timedelta(seconds=20)).requests(2, version="4")
    tables, watermark = prediction_log.read_new(MODEL, watermark, now=LATER)
    told = [
        (number, version) for t in tables for number, version in zip(numbers(t), t["version"].to_pylist(), strict=True)
    ]
    assert told == [(2, "4")]
    assert new(watermark)[0] == []


def test_where_nothing_is_new_nothing_heavy_is_imported() -> None:
    """Also where a process still writes to a file."""
    Writer().requests(1, 2, 3)
    held = Writer(process=GONE + 1).requests(4)
    with held.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        _, watermark = new({})
        probe = f"""
import sys
from pathlib import Path
from tasks.ground import settings
settings.ROOT, settings.VAR = Path({str(settings.ROOT)!r}), Path({str(settings.VAR)!r})
from tasks.prediction_log import prediction_log
tables, reached = prediction_log.read_new("tiny", {watermark!r})
assert (list(tables), reached) == ([], {watermark!r})
print(*sys.modules)"""
        root = Path(__file__).parents[3]
        told = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=root)
    assert not {"pandas", "pyarrow", "numpy", "deltalake", "duckdb"} & set(told.stdout.split())


def test_what_is_merged_or_removed_is_not_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that a reader has not seen yet stay new to it when their files are merged; a removal is no news."""
    monkeypatch.setattr(log_table, "MANY", 4)
    _, early = new({})
    watermarks = [early]
    for number in range(8):
        Writer(process=GONE + number).requests(number)
        watermarks.append(new(watermarks[-1])[1])
    assert len(data_files()) < 4
    assert new(watermarks[-1])[0] == []
    assert new(watermarks[1])[0] == [1, 2, 3, 4, 5, 6, 7]
    assert new({})[0] == everything() == list(range(8))
    prediction_log.sweep(MODEL, 1, PLENTY, LATER + timedelta(days=1))
    assert new(watermarks[-1])[0] == new({})[0] == []


def test_a_watermark_of_versions_that_are_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then all is read from the beginning; also of a table that was made anew."""
    Writer().requests(1)
    _, watermark = new({})
    Writer(process=GONE + 1).requests(2)
    prediction_log.compact(MODEL, LATER)
    first = log_table.LogTable.open(MODEL)
    assert first is not None
    with pytest.raises(prediction_log.VersionsGone):
        prediction_log.read_new(MODEL, {**watermark, "table": "another"}, now=LATER)
    Writer(process=GONE + 2).requests(3)
    prediction_log.compact(MODEL, LATER)
    log_table.LogTable.create(MODEL).table.create_checkpoint()
    commit = paths.prediction_table(MODEL) / "_delta_log" / f"{first.version:020}.json"
    commit.rename(commit.with_suffix(".old"))
    with pytest.raises(prediction_log.VersionsGone):
        prediction_log.read_new(MODEL, watermark, now=LATER)
    assert new({})[0] == [1, 2, 3]


def test_a_process_with_the_number_of_one_that_is_gone_writes_another_log_file() -> None:
    """The name of its file may be the same; what it says is not."""
    Writer().requests(1, 2)
    _, watermark = new({})
    prediction_log.compact(MODEL, LATER)
    Writer(clock=NOON + timedelta(minutes=5)).requests(3)
    assert new(watermark)[0] == [3]
    prediction_log.compact(MODEL, LATER)
    assert everything() == [1, 2, 3]


class Killed(BaseException):
    """The process died here."""


acts = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 2), st.integers(1, 6)),
        st.tuples(st.just("again"), st.integers(0, 2), st.just(0)),  # killed with its last line unanswered
        st.tuples(st.just("compact"), st.integers(0, 3), st.just(0)),  # killed at this file operation
        st.tuples(st.just("read"), st.booleans(), st.just(0)),  # and killed before the watermark was stored
        st.tuples(st.just("wait"), st.integers(1, 130), st.just(0)),
    ),
    max_size=25,
)


@given(acts)
@hypothesis_settings(max_examples=60, deadline=None, derandomize=True)
def test_whatever_happens_each_request_is_new_once(acts: list[tuple[str, Any, int]]) -> None:
    """Lines, kills, compactions that are killed, and readings that are killed, in any order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "VAR", settings.ROOT / f"var-{os.urandom(6).hex()}")
        _play(acts, patch)


def _play(acts: list[tuple[str, Any, int]], patch: pytest.MonkeyPatch) -> None:
    now, counter, processes = NOON, 0, [GONE, GONE + 1, GONE + 2]
    watermark: prediction_log.Watermark = {}
    seen: list[str] = []
    answered: dict[str, str] = {}
    for act, what, many in [*acts, ("wait", 300, 0), ("read", True, 0)]:
        if act == "write":
            for _ in range(many):
                counter += 1
                now += timedelta(milliseconds=100)
                Writer(process=processes[what]).write(line(counter, now))
                answered[f"r{counter:06d}"] = name(counter, 0, now)
        elif act == "again" and Writer(process=processes[what]).path.exists():
            counter += 1
            Writer(process=processes[what]).write(line(counter, now))
            processes[what] += 10
            Writer(process=processes[what - 1]).write(
                line(counter, now + timedelta(seconds=1), ids=[name(counter, 0, now + timedelta(seconds=1), "again")])
            )
            answered[f"r{counter:06d}"] = name(counter, 0, now + timedelta(seconds=1), "again")
            now += timedelta(seconds=1)
        elif act == "compact":
            _compact_killed_at(what, now + timedelta(hours=3), patch)
        elif act == "wait":
            now += timedelta(seconds=what)
        elif act == "read":
            tables, reached = prediction_log.read_new(MODEL, watermark, now=now)
            found = [id_ for table in tables for id_ in table["id"].to_pylist()]
            if what:
                seen, watermark = [*seen, *found], as_stored(reached)
    assert sorted(seen) == sorted(answered.values())
    assert sorted(prediction_log.read(MODEL)["id"].to_pylist()) == sorted(answered.values())


def _compact_killed_at(operation: int, now: datetime, patch: pytest.MonkeyPatch) -> None:
    """Compact, and die before the n-th renaming or removal."""
    left = [operation]

    def dying(real: Any) -> Any:
        def do(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return real(*args, **kwargs)

        return do

    with patch.context() as inner:
        inner.setattr(Path, "replace", dying(Path.replace))
        inner.setattr(Path, "unlink", dying(Path.unlink))
        with suppress(Killed):
            prediction_log.compact(MODEL, now)


# ── keeping ───────────────────────────────────────────────────────────────────────────────────────


def test_killed_between_the_commit_and_the_removal_of_lines_the_lines_go() -> None:
    """The table knows that it has them; nothing is read twice before."""
    path = Writer().requests(*range(1, 30))
    content = path.read_bytes()
    prediction_log.compact(MODEL, LATER)
    path.write_bytes(content)
    assert everything() == list(range(1, 30))
    assert len(prediction_log.last_requests(MODEL, 100)) == 29
    assert prediction_log.compact(MODEL, LATER) == prediction_log.Compacted(files=1)
    assert everything() == list(range(1, 30))
    assert not path.exists()


def test_a_file_without_a_line_is_removed() -> None:
    """A process began it and died. An empty one is left for a minute: whoever has just made it is about to lock it."""
    Writer(number=1).write(b'{"requ')
    path = Writer().write(b"")
    made = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    early = prediction_log.compact(MODEL, made + timedelta(seconds=50))
    assert (early.files, early.rows, early.damaged, early.open) == (1, 0, 1, 1)
    assert prediction_log.compact(MODEL, made + timedelta(seconds=70)).files == 1
    assert not path.exists()
    assert everything() == []


def test_what_is_held_by_a_lock_is_still_written_to() -> None:
    """The writer holds its file as long as it lives, whatever its process number says."""
    path = Writer().requests(1)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert prediction_log.compact(MODEL, LATER).open == 1
        assert everything() == [1]
    assert prediction_log.compact(MODEL, LATER).files == 1


def test_a_full_disk_loses_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines stay, and the message says what to do."""
    path = Writer().requests(1, 2)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(deltalake, "write_deltalake", full)
        with pytest.raises(WorldError, match=r"no space left .* Nothing is lost.*free some space"):
            prediction_log.compact(MODEL, LATER)
    assert path.exists()
    assert prediction_log.compact(MODEL, LATER).rows == 2
    assert everything() == [1, 2]


def test_days_that_are_too_old_are_forgotten() -> None:
    """Today is the first of the days that are kept."""
    for back in range(5):
        day = NOON - timedelta(days=back)
        Writer(day=day, clock=day).requests(back)
    prediction_log.compact(MODEL, LATER)
    assert prediction_log.sweep(MODEL, 3, PLENTY, LATER) == ["2026-11-17", "2026-11-18"]
    assert sorted(everything()) == [0, 1, 2]
    assert prediction_log.sweep(MODEL, 3, PLENTY, LATER) == []


def test_what_is_too_much_is_forgotten_and_the_oldest_first() -> None:
    """Also of today; lines that are still written to count, and stay."""
    for number, back in ((9, 0), (10, 0), (2, 1)):
        day = NOON - timedelta(days=back)
        Writer(number=number, day=day, clock=day + timedelta(minutes=number)).requests(number)
        prediction_log.compact(MODEL, LATER)
    Writer(process=os.getpid(), number=11, clock=LATER).requests(11)
    lines = [path.stat().st_size for path in paths.incoming_predictions(MODEL).rglob("*.jsonl")]
    data = [path.stat().st_size for path in paths.prediction_table(MODEL).rglob("*.parquet")]
    held = sum(lines) + sum(data)
    assert prediction_log.sweep(MODEL, 90, held, LATER) == []
    (yesterdays,) = prediction_log.sweep(MODEL, 90, held - 1, LATER)
    assert yesterdays.startswith("2026-11-20/part-")
    assert everything() == [9, 10, 11]
    (todays,) = prediction_log.sweep(MODEL, 90, held // 2, LATER)
    assert todays.startswith("2026-11-21/part-")
    assert everything() == [10, 11]
    assert len(prediction_log.sweep(MODEL, 90, 1, LATER)) == 1
    assert everything() == [11]
    assert not list(paths.prediction_table(MODEL).rglob("*.parquet"))


def test_a_day_may_be_forgotten_while_it_is_read() -> None:
    """Whoever reads gets what there still is."""
    for back in range(3):
        day = NOON - timedelta(days=back)
        Writer(day=day, clock=day).requests(back)
    prediction_log.compact(MODEL, LATER)
    tables, reached = prediction_log.read_new(MODEL, {}, now=LATER)
    prediction_log.sweep(MODEL, 1, PLENTY, LATER)
    assert [number for table in tables for number in numbers(table)] == [0]
    assert new(reached)[0] == []


# ── replays ───────────────────────────────────────────────────────────────────────────────────────


def test_the_newest_requests_can_be_asked_again(settle: Callable[[], Any]) -> None:
    """Whole, as a client posted them, with what was answered; oldest first."""
    Writer().requests(*range(1, 20), count=3)
    settle()
    Writer(process=GONE + 1, clock=NOON + timedelta(seconds=30)).requests(20, 21, count=2)
    found = prediction_log.last_requests(MODEL, 6)
    assert [one.request for one in found] == [f"r{n:06d}" for n in range(16, 22)]
    for one in found:
        said = orjson.loads(line(int(one.request[1:]), count=len(one.rows)))
        assert one.rows == said["rows"]
        assert orjson.dumps(one.rows[0]["starts"]) == one.request[1:].lstrip("0").encode()  # 16, not 16.0
        assert one.predictions == said["predictions"]
    assert len(prediction_log.last_requests(MODEL, 1000)) == 21


def test_requests_that_are_still_lines_are_asked_again_as_they_were_posted() -> None:
    """No table is made of them, which takes longer than to parse them: a feature that was left out stays left out."""
    rows = [[{"station": "north", "starts": 4}], [{"station": "north", "vibration": 2.5}]]
    Writer().write(*(line(number, rows=posted) for number, posted in enumerate(rows)))
    assert [request.rows for request in prediction_log.last_requests(MODEL, 2)] == rows


def test_the_newest_requests_are_found_in_files_that_overlap() -> None:
    """Two replicas write at the same time."""
    Writer().requests(*range(0, 40, 2), seconds=2)
    Writer(process=GONE + 1, clock=NOON + timedelta(seconds=1)).requests(*range(1, 40, 2), seconds=2)
    prediction_log.compact(MODEL, LATER)
    assert [int(one.request[1:]) for one in prediction_log.last_requests(MODEL, 10)] == list(range(30, 40))


def test_only_the_newest_files_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay before a rollout does not wait for a quarter of a year."""
    for back in range(3):
        day = NOON - timedelta(days=back)
        Writer(day=day, clock=day).requests(*range(10))
    prediction_log.compact(MODEL, LATER)
    opened: list[str] = []
    real = log_table.LogTable.tables

    def tables(self: log_table.LogTable, data_files: list[str], **more: Any) -> Iterator[Any]:
        opened.extend(path.partition("/")[0] for path in data_files)
        return real(self, data_files, **more)

    monkeypatch.setattr(log_table.LogTable, "tables", tables)
    assert len(prediction_log.last_requests(MODEL, 8)) == 8
    assert opened == ["answered_day=2026-11-21"]


def test_one_prediction_is_found_by_its_id(settle: Callable[[], Any]) -> None:
    """With its own row and answer only; what is no id, or unknown, or erased, is not found."""
    Writer().write(line(1), line(2, count=3, rows=[{"starts": n} for n in range(3)], keys=["a", "b", "c"]))
    settle()
    logged = prediction_log.find(MODEL, name(2, 1))
    assert logged is not None
    assert (logged.ids, logged.row_keys, logged.request) == ([name(2, 1)], ["b"], "r000002")
    assert [row["starts"] for row in logged.rows] == [1]
    assert (logged.release, logged.predictions[0]["prediction"]) == ("97a3", 1)
    assert prediction_log.find(MODEL, name(3)) is prediction_log.find(MODEL, "no id") is None
    prediction_log.forget(MODEL, ids=[name(2, 1)], now=LATER)
    assert prediction_log.find(MODEL, name(2, 1)) is None


def test_importing_it_imports_nothing_heavy() -> None:
    """Whoever only wants to know where the log is does not wait for pandas."""
    probe = "import sys; from tasks.prediction_log import prediction_log; print(*sys.modules)"
    root = Path(__file__).parents[3]
    told = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=root).stdout
    assert not {"pandas", "pyarrow", "numpy", "prefect", "mlflow"} & set(told.split())
