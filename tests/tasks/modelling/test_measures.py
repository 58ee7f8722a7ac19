"""What is watched of texts, times, truth values and vectors."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tasks.ground.errors import ParamsError
from tasks.modelling import daily_summaries, measures, profile
from tasks.monitoring.drift import drift
from tasks.prediction_log import log_tables
from tasks.runtime import feature_types

FEATURES: dict[str, dict[str, Any]] = {
    "message": {"type": "text"},
    "urgent": {"type": "boolean"},
    "due": {"type": "datetime"},
    "image": {"type": "vector", "length": 4},
}
SECRET = "bluebird"


class World:
    """Days of rows."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.words = np.array(["".join(self.rng.choice(list("etaoinsrhl"), 6)) for _ in range(800)])

    def rows(self, first: int, days: int, count: int = 30) -> pd.DataFrame:
        """Rows of some days."""
        size = days * count
        time = pd.Timestamp("2024-01-01") + pd.to_timedelta(first + np.repeat(np.arange(days), count), unit="D")
        texts = [" ".join(self.rng.choice(self.words, 12)) for _ in range(size)]
        urgent = self.rng.choice([0.0, 1.0, np.nan], size, p=[0.6, 0.3, 0.1])
        due = time + pd.to_timedelta(self.rng.integers(1, 10, size), unit="D")
        plain = {"time": time.astype("datetime64[us]"), "label": 0.0, "message": pd.array(texts, "str")}
        frame = pd.DataFrame({**plain, "urgent": urgent, "due": due.astype("datetime64[us]")})
        image = pd.DataFrame(self.rng.normal(size=(size, 4)), columns=feature_types.vector_columns("image", 4))
        return pd.concat([frame, image], axis=1)


@pytest.fixture(scope="module")
def world() -> World:
    """The one that all tests share."""
    return World()


@pytest.fixture(scope="module")
def learned(world: World) -> pd.DataFrame:
    """Eight weeks of training rows; a secret stands in one of them."""
    rows = world.rows(0, 56)
    rows.loc[3, "message"] = f"the password is {SECRET}"
    return rows


@pytest.fixture(scope="module")
def known(learned: pd.DataFrame) -> dict[str, Any]:
    """Their reference profile, as a file has it."""
    made: dict[str, Any] = json.loads(json.dumps(profile.reference_profile(learned, FEATURES, None)))
    return made


def alarms(known: dict[str, Any], learned: pd.DataFrame, asked: pd.DataFrame) -> list[drift.DriftAlarm]:
    """What drifts in rows that were asked."""
    layouts = daily_summaries.columns(known)
    before, now = (daily_summaries.summarise(rows, layouts) for rows in (learned, asked))
    return list(drift.detect(layouts, before, now).alarms)


def test_a_profile_holds_no_word_of_a_text(known: dict[str, Any]) -> None:
    """Lengths, scripts, and means over hashes."""
    assert SECRET not in json.dumps(known)
    assert {entry["of"] for entry in known["features"].values()} == set(FEATURES)
    assert list(known["vocabularies"]) == ["message"]


def test_training_is_held_against_words_of_other_weeks(known: dict[str, Any]) -> None:
    """Held against its own words it would know all, and every later text would look strange."""
    assert known["features"]["message: unknown words"]["max"] == 1.0  # that of the secret
    assert known["features"]["message: unknown words"]["mean"] < 0.01


def test_nothing_is_seen_where_nothing_changed(known: dict[str, Any], learned: pd.DataFrame, world: World) -> None:
    """Four weeks as before."""
    assert alarms(known, learned, world.rows(56, 28)) == []


@pytest.mark.parametrize("what", ["nonsense", "language", "script", "image", "urgent", "due"])
def test_a_change_is_seen_within_a_week(what: str, known: dict[str, Any], learned: pd.DataFrame, world: World) -> None:
    """By the feature that changed."""
    asked = world.rows(56, 7)
    some = pd.Series(world.rng.random(len(asked)) < 0.3)
    if what == "nonsense":
        made = ["".join(world.rng.choice(list("qwxzkvj "), 60)) for _ in asked.index]
        asked["message"] = asked["message"].mask(some, pd.Series(made, dtype="str"))
    elif what == "language":
        asked["message"] = asked["message"].map(lambda text: text[::-1].replace("e", "ü")).astype("str")
    elif what == "script":
        asked["message"] = asked["message"].mask(some, "привет как дела").astype("str")
    elif what == "image":
        asked[feature_types.vector_columns("image", 4)] += 2.0
    elif what == "urgent":
        asked["urgent"] = np.nan
    else:
        asked["due"] = asked["due"] + pd.Timedelta(days=400)
    opened = alarms(known, learned, asked)
    feature = what if what in FEATURES else "message"
    assert opened
    assert opened[0].moved[0].column.startswith(feature)


def test_rows_of_training_and_of_the_log_have_the_same_measures(known: dict[str, Any], world: World) -> None:
    """A table as `prepare` writes it, and lines as a replica does."""
    rows, described = world.rows(60, 2), {**FEATURES, "due": {"type": "datetime", "timezone": "UTC"}}
    layouts = {name: layout for name, layout in daily_summaries.columns(known).items() if name != "label"}
    posted = feature_types.requests(rows, described)
    times = [time.replace(tzinfo=UTC) for time in rows["time"].dt.to_pydatetime()]
    logged = [_line(at, [row], number) for number, (at, row) in enumerate(zip(times, posted, strict=True))]
    log = log_tables.to_table(logged)
    features = log_tables.marks(log.schema, b"feature")
    table = log.select(list(features)).append_column("time", log["time"].cast("timestamp[us]"))
    of_log, of_rows = (daily_summaries.summarise(each, layouts) for each in (table, rows))
    assert daily_summaries.to_bytes(of_log) == daily_summaries.to_bytes(of_rows)
    assert log_tables.to_requests(log)[5].rows == [posted[5]]


def _line(at: datetime, rows: list[dict[str, Any]], number: int) -> log_tables.Logged:
    ids = [f"{number:012x}7{0:019x}"]
    return log_tables.Logged(
        "r", at, 1.0, "1", "c", None, ids, [None], json.loads(json.dumps(rows)), [{"prediction": 1.0}], number
    )


def test_a_vocabulary_is_read_as_it_was_written(learned: pd.DataFrame) -> None:
    """As text, in a profile; and small."""
    texts, days = pa.array(learned["message"]), learned["time"].to_numpy().astype("datetime64[D]").astype(np.int64)
    made = measures.Vocabulary.of(texts, days)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "AT_ONCE", 100)
        assert str(measures.Vocabulary.of(texts, days)) == str(made)
    assert len(str(made)) < 40_000
    again = measures.Vocabulary.read(str(made))
    assert again.by_week
    assert (again.has_word == made.has_word).all()
    assert (again.bits == made.bits).all()


def test_rows_without_a_time_or_of_one_day_have_a_vocabulary_too() -> None:
    """Texts are parted instead of weeks, and a time is counted from 1970."""
    rows = World(1).rows(0, 1, 200)
    known = profile.reference_profile(rows.assign(time=pd.NaT), FEATURES, None)
    assert "due: day" in known["features"]
    assert known["features"]["message: unknown words"]["mean"] < 0.6


def test_a_feature_may_not_be_called_as_what_is_watched_of_another_one() -> None:
    """Both would be one column to the monitor."""
    features = {"msg": {"type": "text"}, "msg: length": {"type": "number"}, "open": {"type": "boolean"}}
    with pytest.raises(ParamsError, match=r"^here: the feature 'msg: length' is called as what is watched of"):
        measures.refuse_shared_names(features, "here")
    measures.refuse_shared_names(FEATURES, "here")
