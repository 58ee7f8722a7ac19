"""Labels that come late, in parts, out of order, corrected or twice end in the same numbers as labels at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest

from tasks.ground import files, settings
from tasks.ground.errors import DataMissing
from tasks.modelling import daily_summaries, profile
from tasks.monitoring.intake import intake, labels
from tasks.monitoring.intake.labels import Joined
from tasks.monitoring.intake.reference import Reference
from tasks.monitoring.quality import weekly
from tests.tasks.monitoring.asked import (
    FEATURES,
    LATER,
    MODEL,
    NOON,
    ask,
    deliver,
    made_of,
    observe,
    rows,
    until_unkilled,
)
from tests.tasks.monitoring.conftest import enter_world

HOW = weekly.Measuring("classification", "log_loss", ("station",), 100, 0.95)
LEARNED = rows("2013-01-01", 60, seed=9)
HOLDOUT = rows("2013-03-01", 31, seed=8)


def join(state: intake.IntakeState | None = None) -> Joined:
    """Observe and join."""
    state = state or observe(lambda _: made_of(LEARNED))
    return labels.join(MODEL, state, settings.BUILD / MODEL / "rows", "classification", "log_loss")


def measured(joined: Joined) -> list[weekly.Week]:
    """Every week."""
    return weekly.measured(MODEL, joined, HOW, lambda candidate: Reference(candidate, settings.ROOT / "champion"))


@pytest.fixture
def asked(world: Path) -> pd.DataFrame:
    """Six weeks of requests, logged; the answers of the release on its holdout are there."""
    return six_weeks(world)


def six_weeks(world: Path) -> pd.DataFrame:
    """Log the requests of six weeks."""
    files.write_parquet(
        world / "champion" / "evaluation" / "predictions.parquet",
        HOLDOUT[["id", "time", "label", "station", "p_0", "p_1"]],
    )
    asked = rows("2013-04-01", 42)
    ask(asked)
    return asked


def everything() -> tuple[dict[str, str], Any]:
    """The joined days, byte by byte, and what is said of the weeks."""
    joined = join()
    said = measured(joined)
    return files.tree(intake.folder(MODEL) / "joined"), [{**one, "of": ""} for one in said]


# ── joined ────────────────────────────────────────────────────────────────────────────────────────


def test_a_prediction_gets_the_label_of_the_row_that_it_was_asked_for(asked: pd.DataFrame) -> None:
    """By the key that the client gave it; what has no label yet has none."""
    deliver(asked.iloc[:500].sample(frac=1, random_state=0), "2013-04")
    joined = join()
    found = labels.frame(MODEL, sorted(joined.days)).sort_values("time")
    assert list(found) == ["id", "time", "release", "slice:station", "prediction", "p_0", "p_1", "label"]
    assert found["label"].iloc[:500].tolist() == asked["label"].iloc[:500].tolist()
    assert found["label"].iloc[500:].isna().all()
    assert sum(day.labels for day in joined.days.values()) == 500


def test_losses_and_labels_of_a_day_are_kept(asked: pd.DataFrame) -> None:
    """The sum of its losses, and its day summary as that of the training rows is made."""
    deliver(asked, "2013-04")
    joined = join()
    day, total, count, squares = joined.losses("aaaa")[3]
    of = asked[asked["time"].dt.date.astype(str) == day]
    assert (day, count) == ("2013-04-04", 24)
    lost = -np.log(np.where(of["label"] == 1, of["p_1"], of["p_0"]))
    assert (total, squares) == (pytest.approx(lost.sum()), pytest.approx((lost**2).sum()))
    column = intake.columns(made_of(LEARNED))["label"]
    whole = daily_summaries.summarise(asked, {"label": column})
    assert daily_summaries.to_bytes({"label": labels.label_days(joined, "aaaa", column)}) == daily_summaries.to_bytes(
        whole
    )
    assert joined.losses("bbbb") == []


def test_a_day_without_an_error_has_lost_nothing_and_that_is_known() -> None:
    """It is no day of which the squares were not kept."""
    kept = {"aaaa": {"labels": 5, "loss": 0.0, "squares": 0.0}, "bbbb": {"labels": 5, "loss": 0.0}}
    joined = labels.Joined(days={"2013-04-04": labels.Day("x", {}, 5, 5, kept)})
    assert joined.losses("aaaa") == [("2013-04-04", 0.0, 5, 0.0)]
    assert np.isnan(joined.losses("bbbb")[0][3])


# ── however labels come ───────────────────────────────────────────────────────────────────────────


def late(asked: pd.DataFrame) -> None:
    """Nothing for two looks, then all."""
    everything()
    deliver(asked, "2013-04")


def in_parts(asked: pd.DataFrame) -> None:
    """A few at a time, the newest first."""
    for number, part in enumerate(np.array_split(np.arange(len(asked)), 5)[::-1]):
        deliver(asked.iloc[part], f"2013-04-{9 - number}")
        everything()


def corrected(asked: pd.DataFrame) -> None:
    """First wrong in every tenth, then the file is replaced."""
    wrong = asked.assign(label=asked["label"].where(np.arange(len(asked)) % 10 > 0, 1 - asked["label"]))
    deliver(wrong, "2013-04")
    everything()
    deliver(asked, "2013-04")


def doubled(asked: pd.DataFrame) -> None:
    """Half of them stand in a second partition as well."""
    deliver(asked, "2013-04")
    everything()
    deliver(asked.iloc[::2], "2013-05")


def withdrawn(asked: pd.DataFrame) -> None:
    """A partition of other labels is there for a while, and is taken away."""
    deliver(asked, "2013-04")
    deliver(asked.assign(label=1 - asked["label"]), "2013-09")
    everything()
    (settings.BUILD / MODEL / "rows" / "2013-09.parquet").unlink()


def before_the_requests(asked: pd.DataFrame) -> None:
    """The labels are there first, and the requests come in two looks."""
    shutil.move(next((settings.VAR / "predictions").rglob("*.jsonl")), settings.VAR / "log")
    deliver(asked, "2013-04")
    everything()
    shutil.rmtree(settings.VAR / "predictions")
    ask(asked.iloc[:300], number=1)
    everything()
    ask(asked.iloc[300:], number=2)


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, pd.DataFrame]:
    """The weeks and the joined rows of labels that came at once."""
    with pytest.MonkeyPatch.context() as patch:
        deliver(six_weeks(enter_world(tmp_path_factory.mktemp("at_once"), patch)), "2013-04")
        _, weeks = everything()
        return weeks, labels.frame(MODEL, sorted(join().days)).drop(columns="id")


@pytest.mark.slow
@pytest.mark.parametrize("come", [late, in_parts, corrected, doubled, withdrawn, before_the_requests])
def test_labels_end_in_the_same_numbers_however_they_come(
    at_once: tuple[Any, pd.DataFrame], asked: pd.DataFrame, come: Callable[[pd.DataFrame], None]
) -> None:
    """The joined days have the same rows and labels, and every week the same metrics, estimate and error of it."""
    wanted, joined = at_once
    come(asked)
    _, said = everything()
    assert said == wanted
    pd.testing.assert_frame_equal(labels.frame(MODEL, sorted(join().days)).drop(columns="id"), joined)
    assert len(said) == 6
    assert said[-1]["measured"]["log_loss"]["low"] < said[-1]["measured"]["log_loss"]["value"]
    assert said[-1]["off"] == pytest.approx(
        said[-1]["measured"]["log_loss"]["value"] - said[-1]["estimated"]["value"], abs=1e-6
    )


def test_while_the_rows_are_made_anew_the_labels_stay(asked: pd.DataFrame) -> None:
    """DVC removes split.json and the rows before `prepare` runs: that takes no label back."""
    path = deliver(asked, "2013-04")
    before = everything()
    (path.parents[1] / "split.json").unlink()
    assert everything() == before
    shutil.rmtree(path.parent)
    assert everything() == before
    deliver(asked.iloc[:100], "2013-04")
    assert sum(day.labels for day in join().days.values()) == 100


def test_rows_that_are_gone_and_were_never_read_are_an_error(
    asked: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what makes them; the next look finds them."""
    path = deliver(asked, "2013-04")
    sha256, read = files.sha256, []

    def replaced(one: Path) -> str:
        if one == path and not read:
            read.append(one)
            return "another"
        return sha256(one)

    with monkeypatch.context() as patch:
        patch.setattr(files, "sha256", replaced)
        with pytest.raises(DataMissing, match=r"2013-04\.parquet, where labels come from, is being made anew"):
            join()
    assert sum(day.labels for day in join().days.values()) == len(asked)


# ── the newest counts ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("in_one_look", [True, False])
def test_of_several_predictions_for_a_row_the_newest_counts(world: Path, in_one_look: bool) -> None:
    """On the same day or on another, in whichever order they were logged; each release has its own."""
    asked = rows(days=6, per_day=10)
    again = asked.iloc[:30].assign(
        p_0=0.25, p_1=0.75, time=asked["time"].iloc[:30] + pd.to_timedelta(np.arange(30) * 2 + 1, unit="h")
    )
    deliver(asked, "2013-04")
    for number, part in enumerate([again, asked, asked.iloc[20:40]]):
        ask(part, "bbbb" if number == 2 else "aaaa", number=number)
        if not in_one_look:
            join()
    found = labels.frame(MODEL, sorted(join().days))
    own = found[found["release"] == "aaaa"]
    assert (len(own), (own["p_1"] == 0.75).sum(), len(found)) == (60, 30, 80)
    assert own["label"].notna().all()
    truth = pd.concat([again, asked.iloc[30:]]).sort_values("time", kind="stable")
    assert own["label"].tolist() == truth["label"].tolist()


@pytest.mark.parametrize("in_one_look", [True, False])
@pytest.mark.parametrize(("zone", "hour"), [("America/New_York", 5), ("Europe/Berlin", 0), ("Australia/Lord_Howe", 14)])
def test_the_later_answer_counts_in_the_hour_that_autumn_repeats(
    world: Path, zone: str, hour: int, in_one_look: bool
) -> None:
    """By the clock on the wall it is the earlier one: 01:50 is lived through before 01:10."""
    day = {"America/New_York": "2013-11-03", "Europe/Berlin": "2013-10-27", "Australia/Lord_Howe": "2013-04-06"}[zone]
    asked = rows(days=1, per_day=1)
    at = pd.Timestamp(day) + pd.Timedelta(hours=hour, minutes=50)
    shift = pd.Timedelta(minutes=10 if zone == "Australia/Lord_Howe" else 20)  # there it is half an hour
    wanted = intake.IntakeOptions("classification", (), 90, zone)
    for number, (moment, p) in enumerate([(at + shift, 0.75), (at, 0.25)]):
        ask(asked.assign(time=moment, p_0=1 - p, p_1=p), number=number)
        if not in_one_look:
            join(intake.ingest(MODEL, wanted, lambda _: made_of(LEARNED), LATER))
    deliver(asked, "2013-04")
    joined = join(intake.ingest(MODEL, wanted, lambda _: made_of(LEARNED), LATER))
    assert labels.frame(MODEL, sorted(joined.days))["p_1"].tolist() == [0.75]


def test_a_slice_may_be_called_as_any_column_is(world: Path) -> None:
    """Also as one that the monitor has itself."""
    names = ["hash", "label", "q10", "id", "time", "release"]
    asked = rows(days=4)
    path = ask(asked)
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        line["rows"] = [{**row, **dict.fromkeys(names, "yes")} for row in line["rows"]]
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    deliver(asked, "2013-04")
    wanted = intake.IntakeOptions("classification", tuple(names), 90)
    joined = join(intake.ingest(MODEL, wanted, lambda _: made_of(LEARNED), LATER))
    how = weekly.Measuring("classification", "log_loss", tuple(names), 10, 0.95)
    (week,) = weekly.measured(MODEL, joined, how, lambda _: None)
    assert week["labels"] == len(asked)
    assert {name: list(values) for name, values in week["slices"].items()} == {name: ["yes"] for name in names}


def test_rows_without_a_key_count_and_get_no_label(world: Path) -> None:
    """Nobody can say which rows they were; how many there were is known all the same."""
    asked = rows(days=2)
    ask(asked, keys=False)
    deliver(asked, "2013-04")
    joined = join()
    assert [(day.rows, day.labels) for day in joined.days.values()] == [(24, 0), (24, 0)]


# ── what is new costs, the rest does not ──────────────────────────────────────────────────────────


def test_only_the_days_are_joined_again_for_which_something_came(asked: pd.DataFrame) -> None:
    """A partition with the labels of two days, and a request more on a third."""
    deliver(asked.iloc[:240], "2013-04")
    join()
    folder = intake.folder(MODEL) / "joined"
    before = {path.stem: path.stat().st_mtime_ns for path in folder.iterdir()}
    deliver(asked.iloc[480:528], "2013-05")
    ask(asked.iloc[700:701].assign(id="one more"), number=1)
    join()
    after = {path.stem: path.stat().st_mtime_ns for path in folder.iterdir()}
    changed = {day for day in after if after[day] != before[day]}
    assert changed == {"2013-04-21", "2013-04-22", asked["time"].iloc[700].date().isoformat()}


def test_a_file_that_was_touched_is_no_other_file(asked: pd.DataFrame) -> None:
    """Its content is looked at once more, and nothing is joined again."""
    path = deliver(asked, "2013-04")
    join()
    before = {one: one.stat().st_mtime_ns for one in (intake.folder(MODEL) / "joined").iterdir()}
    path.touch()
    assert join().days
    assert {one: one.stat().st_mtime_ns for one in (intake.folder(MODEL) / "joined").iterdir()} == before


def test_what_is_forgotten_is_not_joined(asked: pd.DataFrame) -> None:
    """Nor do its weeks stay."""
    deliver(asked, "2013-04")
    ask(rows("2013-06-03", 7, seed=1), number=1, answered=NOON + timedelta(days=60))
    said = measured(join(observe(lambda _: made_of(LEARNED), LATER + timedelta(days=61))))
    assert len(said) == 7
    state = observe(lambda _: made_of(LEARNED), LATER + timedelta(days=100))
    joined = join(state)
    assert min(joined.days) == "2013-06-03"
    assert len(list((intake.folder(MODEL) / "joined").iterdir())) == 7
    assert [week["since"] for week in measured(joined)] == ["2013-06-03T00:00:00Z"]


@pytest.mark.long
def test_killed_at_any_write_the_next_look_ends_the_same(asked: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days that were joined before the kill are joined again, to the same bytes."""
    ask(asked.iloc[:30], number=1)  # asked twice
    join()
    measured(join())
    before = shutil.copytree(intake.folder(MODEL), settings.VAR / "before")
    deliver(asked.iloc[:200], "2013-04")
    measured(join())
    wanted = files.tree(intake.folder(MODEL))
    assert until_unkilled(lambda: measured(join()), before, wanted, monkeypatch) > 5


# ── other labels ──────────────────────────────────────────────────────────────────────────────────


def test_labels_may_be_texts(world: Path) -> None:
    """Of which some are not known yet."""
    asked = rows(days=4)
    names = np.where(asked["label"] == 1, "late", "on time")
    ask(asked)
    deliver(asked.assign(label=names).iloc[:50], "2013-04")
    join()
    found = labels.frame(MODEL, ["2013-04-01", "2013-04-03"])["label"]
    assert found.dropna().tolist() == [*names[:24], *names[48:50]]


@pytest.mark.parametrize("kind", [bool, float])
def test_labels_may_be_true_and_false_or_floats(world: Path, kind: type) -> None:
    """As training takes them: their losses are those of the classes that they name."""
    asked = rows(days=4)
    names = {"p_0": f"p_{kind(0)}", "p_1": f"p_{kind(1)}"}
    learned = LEARNED.assign(label=LEARNED["label"].astype(kind)).rename(columns=names)
    layout = profile.reference_profile(learned, FEATURES, learned[list(names.values())])
    ask(asked, classes=(str(kind(0)), str(kind(1))))
    deliver(asked.assign(label=asked["label"].astype(kind)), "2013-04")
    joined = join(observe(lambda _: layout))
    found = joined.losses("aaaa")
    wanted = -np.log(np.where(asked["label"] == 1, asked["p_1"], asked["p_0"])).sum()
    assert sum(total for _, total, _, _ in found) == pytest.approx(wanted)
    column = intake.columns(layout)["label"]
    assert labels.label_days(joined, "aaaa", column).counts[:, -1].sum() == 0  # none is unknown
    week = weekly.measured(MODEL, joined, HOW, lambda _: None)[0]
    assert week["measured"]["log_loss"]["value"] == pytest.approx(wanted / len(asked), abs=1e-6)


@pytest.mark.parametrize("kind", [int, bool, str])
def test_decisions_are_measured_as_they_were_answered(world: Path, kind: type) -> None:
    """Not as the most probable class: by cost, precision and recall, for labels of any type."""
    asked, no, yes = rows(days=4), kind(0), kind(1)
    asked = asked.assign(label=np.where(asked["label"] == 1, "1", "0") if kind is str else asked["label"].astype(kind))
    ask(asked, classes=(str(no), str(yes)), decides=lambda p: yes if p >= 0.2 else no)
    deliver(asked, "2013-04")
    layout = profile.reference_profile(LEARNED, FEATURES, LEARNED[["p_0", "p_1"]])
    how = weekly.Measuring("classification", "cost(1, 7)", (), 100, 0.95)
    joined = labels.join(
        MODEL, observe(lambda _: layout), settings.BUILD / MODEL / "rows", "classification", "cost(1, 7)"
    )
    is_true, is_taken = (asked["label"] == yes).to_numpy(), (asked["p_1"] >= 0.2).to_numpy()
    cost = (is_taken & ~is_true).sum() + 7 * (is_true & ~is_taken).sum()
    assert sum(total for _, total, _, _ in joined.losses("aaaa")) == cost
    found = weekly.measured(MODEL, joined, how, lambda _: None)[0]["measured"]
    assert found["cost(1, 7)"]["value"] == pytest.approx(cost / len(asked), abs=1e-6)
    assert found["recall"]["value"] == pytest.approx((is_true & is_taken).sum() / is_true.sum(), abs=1e-6)
    assert found["precision"]["value"] == pytest.approx((is_true & is_taken).sum() / is_taken.sum(), abs=1e-6)


def test_a_release_of_another_task_is_not_measured(world: Path) -> None:
    """Somebody has made a regression of it: the answers of the release before say nothing of these labels."""
    asked = rows(days=8)
    ask(asked)
    deliver(asked.assign(label=np.linspace(0, 9.5, len(asked))), "2013-04")
    state = observe(lambda _: made_of(LEARNED))
    joined = labels.join(MODEL, state, settings.BUILD / MODEL / "rows", "regression", "absolute")
    how = weekly.Measuring("regression", "absolute", (), 100, 0.95)
    week = weekly.measured(MODEL, joined, how, lambda _: None)[0]
    assert (week["measured"], week["text"]) == (None, "cannot be measured: these are no predictions of a regression")


def test_classes_before_are_no_predictions_of_a_regression(world: Path) -> None:
    """A classifier with texts for classes answered, then a regression, some of it in one file: that is measured."""
    asked = rows(days=8)
    for candidate, answer in (("aaaa", "on time"), ("bbbb", 3.5)):
        path = ask(asked, candidate)
        lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        for line in lines:
            shares = {"probabilities": line["predictions"][0]["probabilities"]} if candidate == "aaaa" else {}
            line["predictions"] = [{"prediction": answer, **shares}]
        path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    deliver(asked.assign(label=4.0), "2013-04")
    learned = LEARNED.assign(label=np.arange(len(LEARNED)) / 2, prediction=LEARNED["p_1"])
    made = {"aaaa": made_of(LEARNED), "bbbb": profile.reference_profile(learned, FEATURES, learned[["prediction"]])}
    state = intake.ingest(MODEL, intake.IntakeOptions("regression", ("station",), 90), made.__getitem__, LATER)
    joined = labels.join(MODEL, state, settings.BUILD / MODEL / "rows", "regression", "absolute")
    assert joined.losses("aaaa") == []
    assert joined.losses("bbbb") == [(day, 12.0, 24, 6.0) for day in joined.days]


@pytest.mark.parametrize(("task", "loss"), [("regression", "absolute"), ("classification", "log_loss")])
def test_an_infinite_label_is_none(world: Path, task: str, loss: str) -> None:
    """One row has no label; the others of its day keep theirs."""
    asked = rows(days=4)
    ask(asked)
    broken = asked["label"].astype(float)
    broken.iloc[3] = np.inf
    deliver(asked.assign(label=broken), "2013-04")
    joined = labels.join(MODEL, observe(lambda _: made_of(LEARNED)), settings.BUILD / MODEL / "rows", task, loss)
    assert [day.labels for day in joined.days.values()] == [23, 24, 24, 24]


def test_releases_that_give_other_columns_are_measured_together(world: Path) -> None:
    """A class that one of them does not know has probability 0; quantiles that one of them lacks are left out."""
    mixed = pd.DataFrame({"time": 0, "p_a": [0.5, 0.2], "p_b": [0.5, 0.3], "p_c": [np.nan, 0.5], "p_d": np.nan})
    assert labels.answers(mixed).to_dict("list") == {
        "time": [0, 0], "p_a": [0.5, 0.2], "p_b": [0.5, 0.3], "p_c": [0.0, 0.5],
    }  # fmt: skip
    numbers = pd.DataFrame(
        {"prediction": [1.0, 2.0], "q10": [0.5, np.nan], "q90": [2.0, np.nan], "label": [1.0, np.nan]}
    )
    assert list(labels.answers(numbers)) == ["prediction", "label"]
