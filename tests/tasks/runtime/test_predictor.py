"""What a release answers: to good rows, to bad ones, and to a model that fails."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from models.hourly_departures.pipeline.interval import WithInterval
from tasks.runtime import decisions, model_file, predictor
from tasks.runtime.ordinal_codes import Codes
from tests import releases
from tests.releases import CATEGORIES, NUMBERS, frame, rows

LEARNT = rows(400)
SCORE = np.array([row["hour"] / 8 + 10 * (row["size"] or 0) + (row["kind"] == "b") for row in LEARNT])
ROW: dict[str, Any] = {"place": "north", "kind": "a", "hour": 6, "size": 1.5}


def trees(estimator: BaseEstimator, label: Any) -> Pipeline:
    """As the models that ship."""
    pipeline = Pipeline([("columns", Codes(CATEGORIES, NUMBERS)), ("estimator", estimator)])
    return pipeline.fit(frame(LEARNT), label)


def lines(label: Any) -> Pipeline:
    """A pipeline that begins with something else than Codes, and takes frames only."""
    fill = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer(
        [("categories", OneHotEncoder(handle_unknown="ignore"), CATEGORIES), ("numbers", fill, NUMBERS)]
    )
    return Pipeline([("columns", columns), ("estimator", LogisticRegression())]).fit(frame(LEARNT), label)


def classifier() -> HistGradientBoostingClassifier:
    """Small."""
    return HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=5)


def regressor(**more: Any) -> HistGradientBoostingRegressor:
    """Small."""
    return HistGradientBoostingRegressor(max_iter=4, min_samples_leaf=5, **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, predictor.Predictor]:
    """Releases of every kind."""
    median = float(np.median(SCORE))
    late = (median < SCORE).astype(int)
    thirds = np.digitize(SCORE, np.quantile(SCORE, [0.33, 0.66]))
    kinds: dict[str, tuple[Pipeline, str, list[Any] | None]] = {
        "two": (trees(classifier(), late), "classification", [0, 1]),
        "three": (trees(classifier(), thirds), "classification", [0, 1, 2]),
        "text": (trees(classifier(), np.array(["low", "mid", "top"])[thirds]), "classification", ["low", "mid", "top"]),
        "lines": (lines(late), "classification", [0, 1]),
        "plain": (trees(regressor(), SCORE), "regression", None),
        "interval": (trees(WithInterval(regressor(loss="quantile", quantile=0.5)), SCORE), "regression", None),
    }
    releases_ = {}
    for name, (pipeline, task, classes) in kinds.items():
        folder = tmp_path_factory.mktemp(name)
        facts = releases.write(folder, pipeline, task, classes)
        if name == "interval":  # a team's own type is loaded for that team alone
            facts["name"] = "hourly_departures"
            (folder / "release.json").write_text(json.dumps(facts))
        releases_[name] = predictor.Predictor(folder, "7")
    return releases_


@pytest.fixture
def two(made: dict[str, predictor.Predictor]) -> predictor.Predictor:
    """The one with two classes."""
    return made["two"]


def body(*given: dict[str, Any], **more: Any) -> bytes:
    """A request for predictions."""
    return json.dumps({"rows": given, **more}).encode()


def say(answer: predictor.Answer) -> Any:
    """What an answer holds."""
    return json.loads(answer.body)


def predict(release: predictor.Predictor, *given: dict[str, Any]) -> list[dict[str, Any]]:
    """The predictions of rows."""
    answer = release.predict([body(*given)])[0]
    assert answer.status == 200, answer.body
    return list(say(answer)["predictions"])


ASKED = rows(20, seed=5)
KINDS = ["two", "three", "text", "lines", "plain", "interval"]


# ── what is answered ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_answered_is_what_the_pipeline_says_of_a_frame(made: Any, kind: str) -> None:
    """Bit for bit, with or without a frame on the way: there is no skew."""
    release = made[kind]
    task, classes = release.release.facts["task"], release.release.facts["classes"]
    expected = model_file.predict(release.pipeline, frame(ASKED), task)
    for said, (_, wanted) in zip(predict(release, *ASKED), expected.iterrows(), strict=True):
        if task == "regression":
            names = {"prediction": "prediction", "q10": "low", "q90": "high"}
            assert {column: said[names[column]] for column in wanted.index} == wanted.to_dict()
        else:
            assert said["probabilities"] == {str(c): wanted[f"p_{c}"] for c in classes}
            assert said["prediction"] == classes[int(np.argmax(wanted.to_numpy()))]


def test_each_kind_of_model_answers_with_its_own_fields(made: Any) -> None:
    """Two classes: also the probability of the second. Quantiles: an interval. Nothing is there to be null."""
    fields = {kind: set(predict(made[kind], ROW)[0]) for kind in KINDS}
    classes = {"id", "prediction", "probabilities"}
    assert fields["two"] == fields["lines"] == {*classes, "probability"}
    assert fields["three"] == fields["text"] == classes
    assert fields["plain"] == {"id", "prediction"}
    assert fields["interval"] == {"id", "prediction", "low", "high"}
    assert predict(made["text"], ROW)[0]["prediction"] in ("low", "mid", "top")
    said = predict(made["two"], ROW)[0]
    assert said["probability"] == said["probabilities"]["1"]


@pytest.mark.parametrize("kind", KINDS)
def test_many_requests_at_once_are_answered_as_one_by_one(made: Any, kind: str) -> None:
    """Sizes mixed, refused ones between them: who was scored beside whom cannot be seen."""
    release = made[kind]
    bodies = [body(*rows(1 + n % 4, seed=n)) for n in range(12)]
    bodies[3], bodies[7], bodies[11] = b"{", body({**ROW, "hour": 99}), body()
    together = release.predict(bodies)
    alone = [release.predict([one])[0] for one in bodies]
    assert [one.status for one in together] == [one.status for one in alone]
    assert [one.status for one in together].count(400) == 3
    for left, right in zip(together, alone, strict=True):
        if left.status == 200:
            assert without_ids(left) == approximately(without_ids(right), 0 if kind != "lines" else 1e-12)
        else:
            assert left.body == right.body
    assert len({one["id"] for answer in together if answer.status == 200 for one in say(answer)["predictions"]}) > 12


def approximately(said: Any, relative: float) -> Any:
    """Numbers may differ by so much: a product of matrices is summed in another order than one of a vector."""
    if isinstance(said, dict):
        return {key: approximately(value, relative) for key, value in said.items()}
    if isinstance(said, list):
        return [approximately(value, relative) for value in said]
    return pytest.approx(said, rel=relative, abs=0) if isinstance(said, float) else said


def without_ids(answer: predictor.Answer) -> Any:
    """All but what is new each time."""
    said = say(answer)
    return {**said, "predictions": [{k: v for k, v in one.items() if k != "id"} for one in said["predictions"]]}


def test_no_requests_get_no_answers(two: predictor.Predictor) -> None:
    """The replica asks so when only explanations wait."""
    assert two.predict([]) == []


def test_who_answers_is_said(two: predictor.Predictor) -> None:
    """By the registry's number; of a release that is served alone, by its candidate."""
    head = {"model": "small", "version": "7", "release": "small:0123456789abcdef"}
    assert {k: v for k, v in say(two.predict([body(ROW)])[0]).items() if k != "predictions"} == head


def test_a_nullable_feature_may_be_null_or_left_out(two: predictor.Predictor) -> None:
    """Both mean the same, and a category that is missing is no unseen one."""
    null, left_out = predict(two, {**ROW, "place": None, "size": None}, {"kind": "a", "hour": 6})
    assert null["probabilities"] == left_out["probabilities"]
    assert "unseen" not in null


@pytest.mark.parametrize("kind", ["two", "lines", "plain"])
def test_an_unseen_category_is_answered_told_and_counted(made: Any, kind: str) -> None:
    """Per feature; a missing one is not meant."""
    release, before = made[kind], dict(made[kind].unseen)
    first, second = predict(release, {**ROW, "place": "Nørth", "kind": "c"}, {**ROW, "place": "\x00"})
    assert set(first["unseen"]) == {"place", "kind"}
    assert second["unseen"] == ["place"]
    assert release.unseen == {"place": before.get("place", 0) + 2, "kind": before.get("kind", 0) + 1}


def test_predictions_are_counted_by_where_they_lie(made: Any) -> None:
    """Each in the bin that holds it, edges in the lower one; what an operator tries is not counted."""
    for kind, of in (("two", "probability"), ("plain", "prediction")):
        release = made[kind]
        before = list(release.counts)
        values = [one[of] for one in predict(release, *ASKED)]
        release.predict([body(*ASKED)], counted=False)
        expected = [
            sum(low < value <= high for value in values)
            for low, high in zip([-math.inf, *release.edges], [*release.edges, math.inf], strict=True)
        ]
        assert [now - was for now, was in zip(release.counts, before, strict=True)] == expected


def test_the_log_gets_what_was_asked_and_answered(two: predictor.Predictor) -> None:
    """With the ids of the answer: a prediction is found by what its client was told. Rows are as they were given."""
    strange = {**ROW, "place": 'Nør"th\u2028\n', "size": None}
    answer = two.predict([body(ROW, strange)])[0]
    logged = json.loads(b"{" + answer.logged + b"}")
    assert logged["rows"] == [ROW, strange]
    answered = say(answer)["predictions"]
    assert logged["ids"] == [one["id"] for one in answered]
    assert logged["predictions"] == [{k: v for k, v in one.items() if k != "id"} for one in answered]
    assert b"\n" not in answer.logged


def test_what_a_client_calls_its_rows_and_when_it_asked_is_kept(two: predictor.Predictor) -> None:
    """So that the label is found later; both may be left out."""
    named = two.predict([body(ROW, ROW, keys=["é", "2"], time="2026-11-21T03:00:00+01:00")])[0]
    assert named.status == 200
    assert json.loads(b"{" + named.logged + b"}")["keys"] == ["é", "2"]
    assert named.time is not None
    assert named.time.timestamp() == 1795226400
    assert json.loads(b"{" + two.predict([body(ROW)])[0].logged + b"}")["keys"] is None


@pytest.mark.parametrize("minutes", [6, 60 * 24, 60 * 24 * 365 * 173])
def test_a_time_ahead_of_the_clock_is_refused(two: predictor.Predictor, minutes: int) -> None:
    """By name, with the limit and the setting; nothing is predicted, counted or logged."""
    ahead = datetime.now(UTC) + timedelta(minutes=minutes)
    for at in (ahead, ahead.astimezone(timezone(timedelta(hours=14)))):
        counts = list(two.counts)
        answer = two.predict([body(ROW, time=at.isoformat())])[0]
        assert (answer.status, answer.logged, two.counts) == (400, b"", counts)
        problem = "is more than 300 s ahead of the clock here (EVERGREEN_MAX_AHEAD_S)"
        assert json.loads(answer.body)["detail"] == [{"row": None, "field": "time", "problem": problem}]


def test_clocks_may_differ_and_the_past_is_taken(two: predictor.Predictor) -> None:
    """Four minutes ahead, or what was asked long ago: buffered, or replayed."""
    for at in (
        datetime.now(UTC) + timedelta(minutes=4),
        datetime(2013, 1, 1, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
    ):
        answer = two.predict([body(ROW, time=at.isoformat())])[0]
        assert (answer.status, answer.time) == (200, at)


def test_how_far_ahead_a_time_may_be_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the process that answers."""
    monkeypatch.setenv("EVERGREEN_MAX_AHEAD_S", "7200")
    late = (np.median(SCORE) < SCORE).astype(int)
    releases.write(tmp_path, trees(classifier(), late), "classification", [0, 1])
    release = predictor.Predictor(tmp_path)
    hour = datetime.now(UTC) + timedelta(hours=1)
    assert release.predict([body(ROW, time=hour.isoformat())])[0].status == 200
    assert release.predict([body(ROW, time=(hour + timedelta(hours=2)).isoformat())])[0].status == 400


def test_ids_sort_by_time_and_never_meet() -> None:
    """UUIDs of version 7."""
    first = [predictor.new_id() for _ in range(2000)]
    time.sleep(0.002)
    then = [predictor.new_id() for _ in range(2000)]
    assert max(first) < min(then)
    assert len({*first, *then}) == 4000
    assert all(len(one) == 32 and one[12] == "7" and one[16] in "89ab" for one in first)


# ── what is refused ───────────────────────────────────────────────────────────────────────────────


def without(name: str) -> dict[str, Any]:
    """The row without a field."""
    return {key: value for key, value in ROW.items() if key != name}


def raw(name: str, text: str) -> bytes:
    """A row with a value that json.dumps would not write."""
    return b'{"rows": [' + json.dumps(without(name))[:-1].encode() + f', "{name}": {text}}}]}}'.encode()


NOT_JSON = "the body is not JSON: "
FINITE = "Input should be a finite number"
REFUSALS: list[tuple[bytes, int | None, str | None, str]] = [
    (b"", None, None, NOT_JSON + "EOF while parsing a value at line 1 column 0"),
    (b"{", None, None, NOT_JSON + "EOF while parsing an object at line 1 column 1"),
    (b"a=b", None, None, NOT_JSON + "expected value at line 1 column 1"),
    (b"\xff\xfe", None, None, NOT_JSON + "expected value at line 1 column 1"),
    (b'{"rows": [{"kind": "\xff"}]}', None, None, NOT_JSON + "invalid unicode code point at line 1 column 21"),
    (b'{"rows": [{"kind": "\\ud800"}]}', None, None, NOT_JSON + "unexpected end of hex escape at line 1 column 27"),
    (b'{"rows": [{"kind": "\x00"}]}', None, None, NOT_JSON),
    (b"[" * 10_000, None, None, NOT_JSON + "recursion limit exceeded at line 1 column 202"),
    (b'{"rows":' * 10_000, None, None, NOT_JSON + "recursion limit exceeded at line 1 column 1609"),
    (b"[]", None, None, "Input should be an object"),
    (b"{}", None, "rows", "is missing"),
    (b'{"rows": {}}', None, "rows", "Input should be a valid array"),
    (b'{"rows": null}', None, "rows", "Input should be a valid array"),
    (b'{"row": {}}', None, "row", "is not known; did you mean 'rows'?"),
    (body(), None, "rows", "holds no row"),
    (body(*[ROW] * 21), None, "rows", "holds more than 20 rows"),
    (body(ROW, "row"), 1, None, "Input should be an object"),  # type: ignore[arg-type]
    (body(ROW, None), 1, None, "Input should be an object"),  # type: ignore[arg-type]
    (body(ROW, without("kind")), 1, "kind", "is missing"),
    (body({**ROW, "knd": 1}), 0, "knd", "is not known; did you mean 'kind'?"),
    (body({**ROW, "": 1}), 0, "", "is not known; known: hour, kind, place, size"),
    (body({**ROW, "x" * 5000: 1}), 0, "x" * 100, "is not known; known: hour, kind, place, size"),
    (body({**ROW, "kind": 7}), 0, "kind", "Input should be a valid string"),
    (body({**ROW, "kind": None}), 0, "kind", "Input should be a valid string"),
    (body({**ROW, "kind": ""}), 0, "kind", "String should have at least 1 character"),
    (body({**ROW, "kind": "é" * 201}), 0, "kind", "String should have at most 200 characters"),
    (body({**ROW, "size": "1.5"}), 0, "size", "Input should be a valid number"),
    (body({**ROW, "size": [1]}), 0, "size", "Input should be a valid number"),
    (body({**ROW, "hour": None}), 0, "hour", "Input should be a valid integer"),
    (body({**ROW, "hour": 3.5}), 0, "hour", "Input should be a valid integer"),
    (body({**ROW, "hour": True}), 0, "hour", "Input should be a valid integer"),
    (body({**ROW, "hour": 24}), 0, "hour", "Input should be less than or equal to 23"),
    (body({**ROW, "hour": -1}), 0, "hour", "Input should be greater than or equal to 0"),
    (body({**ROW, "size": -1e-300}), 0, "size", "Input should be greater than or equal to 0"),
    (raw("hour", "1e400"), 0, "hour", "Input should be a valid integer"),
    (raw("hour", "9" * 4000), 0, "hour", "Input should be less than or equal to 23"),
    (raw("size", "NaN"), 0, "size", FINITE),
    (raw("size", "Infinity"), 0, "size", FINITE),
    (raw("size", "1e999"), 0, "size", FINITE),
    (raw("size", "9" * 4000), 0, "size", FINITE),
    (raw("size", "9" * 5000), None, None, NOT_JSON),
    (body(ROW, keys=[]), None, "keys", "0 keys for 1 rows"),
    (body(ROW, keys=["a", "b"]), None, "keys", "2 keys for 1 rows"),
    (body(ROW, keys="a"), None, "keys", "Input should be a valid array"),
    (body(ROW, ROW, keys=["a", 7]), 1, "keys", "Input should be a valid string"),
    (body(ROW, time="2026-11-21T03:00:00"), None, "time", "Input should have timezone info"),
    (body(ROW, time="yesterday"), None, "time", "Input should be a valid datetime"),
    (body(ROW, tim="2026-11-21T03:00:00Z"), None, "tim", "is not known; did you mean 'time'?"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "row", "field", "problem"), REFUSALS, ids=[str(n) for n in range(len(REFUSALS))])
def test_a_bad_request_is_refused_by_row_and_field(two: Any, asked: bytes, row: Any, field: Any, problem: str) -> None:
    """400; which row (from 0), which field, what is wrong; nothing of it is logged."""
    answer = two.predict([asked])[0]
    assert answer.status == 400
    assert answer.logged == b""
    said = say(answer)
    number = len(said["detail"])
    assert said["error"] == f"refused, nothing was predicted: {number} {'fault' if number == 1 else 'faults'}"
    found = [fault for fault in said["detail"] if (fault["row"], fault["field"]) == (row, field)]
    assert len(found) == 1, said
    assert found[0]["problem"].startswith(problem), found


@pytest.mark.parametrize(
    ("asked", "row", "field", "problem"),
    [
        (b"{", None, None, NOT_JSON),
        (b"{}", None, "row", "is missing"),
        (b'{"rows": [{}]}', None, "rows", "is not known; did you mean 'row'?"),
        (b'{"row": []}', None, "row", "Input should be an object"),
        (json.dumps({"row": without("kind")}).encode(), 0, "kind", "is missing"),
        (json.dumps({"row": {**ROW, "row": 1}}).encode(), 0, "row", "is not known; known: hour, kind, place, size"),
        (json.dumps({"row": {**ROW, "hour": "6"}}).encode(), 0, "hour", "Input should be a valid integer"),
    ],
)
def test_a_bad_request_for_an_explanation_is_refused_too(
    two: Any, asked: bytes, row: Any, field: Any, problem: str
) -> None:
    """In the same words."""
    answer = two.explain(asked)
    assert answer.status == 400
    found = [f for f in say(answer)["detail"] if (f["row"], f["field"]) == (row, field)]
    assert len(found) == 1, answer.body
    assert found[0]["problem"].startswith(problem)


def test_a_refusal_repeats_nothing_of_what_was_asked_but_names_of_fields(two: predictor.Predictor) -> None:
    """Answers and logs are read by others than who asked."""
    for value in ("SECRET", {"SECRET": 1}, ["SECRET"]):
        for name in ROW:
            assert b"SECRET" not in two.predict([body({**ROW, name: value})])[0].body.replace(b"String", b"")


def test_a_hundred_faults_are_told_and_all_are_counted(two: predictor.Predictor) -> None:
    """A large bad request gets no larger answer, and soon."""
    asked = {"rows": [{f"x{n}": n for n in range(200)}] * 20}
    begin = time.process_time()
    said = say(two.predict([json.dumps(asked).encode()])[0])
    assert time.process_time() - begin < 2
    assert said["error"] == f"refused, nothing was predicted: {20 * 202} faults"
    assert len(said["detail"]) == 100


# ── what the model fails on ───────────────────────────────────────────────────────────────────────


class Picky(TransformerMixin, BaseEstimator):
    """Fails on one value, and tells it."""

    def fit(self, X: Any, y: Any = None) -> Picky:  # noqa: N803 - scikit-learn's name
        """Learn nothing."""
        return self

    def transform(self, X: Any) -> Any:  # noqa: N803 - scikit-learn's name
        """Codes, but for SECRET."""
        if "SECRET" in list(X["place"]):
            raise ArithmeticError("SECRET is too much")
        return X


@pytest.fixture
def picky(made: Any, tmp_path: Path) -> predictor.Predictor:
    """A release whose model fails on one place."""
    releases.write(tmp_path, made["lines"].pipeline, "classification", [0, 1])
    release = predictor.Predictor(tmp_path)
    release.pipeline = Pipeline([("picky", Picky().fit(None)), *made["lines"].pipeline.steps])
    return release


def test_a_request_that_the_model_fails_on_gets_500_and_the_others_their_answers(
    picky: predictor.Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    """It goes alone; what failed is told by its kind and place, and never what was asked."""
    bad = body(ROW, {**ROW, "place": "SECRET"})
    first, failed, refused, last = picky.predict([body(ROW), bad, b"{", body(ROW, ROW)])
    assert [one.status for one in (first, failed, refused, last)] == [200, 500, 400, 200]
    assert len(say(last)["predictions"]) == 2
    assert say(failed) == {"error": "the model fails on this request (ArithmeticError); nothing was predicted"}
    assert failed.logged == b""
    told = capsys.readouterr().err
    assert "the model fails on a request: ArithmeticError in " in told
    assert "SECRET" not in told
    assert picky.explain(json.dumps({"row": {**ROW, "place": "SECRET"}}).encode()).status == 500
    assert picky.explain(json.dumps({"row": ROW}).encode()).status == 200


def test_a_number_that_overflows_inside_the_model_is_no_end_of_it(made: Any, recwarn: Any) -> None:
    """1e308 is a valid number, and infinite once it is scaled: a linear model refuses that."""
    statuses = [one.status for one in made["lines"].predict([body({**ROW, "size": 1e308}), body(ROW)])]
    assert statuses == [500, 200]


def test_a_model_that_fails_on_its_own_example_does_not_start(tmp_path: Path, made: Any, monkeypatch: Any) -> None:
    """Better now than at the first request."""
    releases.write(tmp_path, made["lines"].pipeline, "classification", [0, 1])

    def fail(*_: Any) -> Any:
        raise ArithmeticError("no")

    monkeypatch.setattr(decisions, "probabilities", fail)
    with pytest.raises(ArithmeticError):
        predictor.Predictor(tmp_path)


# ── what is explained ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "of"), [("two", "probability of 1"), ("lines", "probability of 1"), ("plain", "prediction")]
)
def test_an_explanation_adds_up_to_the_prediction(made: Any, kind: str, of: str) -> None:
    """Every feature has its part, the largest first, and an error."""
    release = made[kind]
    said = say(release.explain(json.dumps({"row": ROW}).encode()))
    predicted = predict(release, ROW)[0]
    assert said["of"] == of
    assert said["value"] == predicted.get("probability", predicted["prediction"])
    parts = said["contributions"]
    assert {part["feature"]: part["value"] for part in parts} == ROW
    assert said["base"] + sum(part["contribution"] for part in parts) == pytest.approx(said["value"], abs=1e-9)
    sizes = [abs(part["contribution"]) for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert all(part["error"] >= 0 for part in parts)


def test_of_several_classes_the_most_probable_is_explained(made: Any) -> None:
    """It is the one that was answered."""
    for row in ASKED[:5]:
        said = say(made["text"].explain(json.dumps({"row": row}).encode()))
        predicted = predict(made["text"], row)[0]
        assert said["of"] == f"probability of {predicted['prediction']}"
        assert said["value"] == max(predicted["probabilities"].values())


def test_an_explanation_counts_nothing_and_is_the_same_every_time(two: predictor.Predictor) -> None:
    """It predicts hundreds of rows that nobody asked."""
    before = (list(two.counts), dict(two.unseen))
    asked = json.dumps({"row": {**ROW, "place": "nowhere"}}).encode()
    assert two.explain(asked) == two.explain(asked)
    assert (two.counts, two.unseen) == before


def test_what_moved_the_prediction_is_what_the_label_was_made_of(made: Any) -> None:
    """SCORE knows hour, size and kind, and no place."""
    parts = say(made["plain"].explain(json.dumps({"row": {**ROW, "hour": 23, "size": 0.6}}).encode()))["contributions"]
    moved = {part["feature"]: part["contribution"] for part in parts}
    assert moved["hour"] > 10 * abs(moved["place"])
    assert moved["size"] > 10 * abs(moved["place"])


# ── whatever is posted ────────────────────────────────────────────────────────────────────────────

anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(["rows", "row", "keys", "time", *ROW]), st.text(max_size=9)), inner),
    ),
    max_leaves=12,
)
nearly = st.fixed_dictionaries({"rows": st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(ROW, anything)))})


bodies = st.one_of(st.binary(max_size=60), st.one_of(anything, nearly).map(lambda value: json.dumps(value).encode()))


@settings(max_examples=150, deadline=None)
@given(asked=bodies)
def test_whatever_is_posted_is_answered_or_refused(made: Any, asked: bytes) -> None:
    """Never an exception, and always JSON."""
    for release in (made["two"], made["interval"]):
        for answer in (release.predict([asked])[0], release.explain(asked)):
            assert answer.status in (200, 400)
            assert isinstance(say(answer), dict)
