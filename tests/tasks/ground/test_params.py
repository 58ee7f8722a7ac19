"""params.yaml: what it says, and what is said of one that is wrong."""

# ruff: noqa: E501
# (a fault and what is said of it stand in one line)

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from tasks.ground import params
from tasks.ground.errors import ParamsError
from tests.conftest import REPOSITORY

SMALL: dict[str, Any] = yaml.safe_load((REPOSITORY / "tests" / "small" / "params.yaml").read_text())


@pytest.fixture
def fault(tmp_path: Path) -> Callable[..., str]:
    """What is said of a params.yaml in which the value at a path is another one (or gone, or the text is another)."""

    def told(path: str = "", value: Any = None, *, gone: bool = False, text: str | None = None) -> str:
        content = deepcopy(SMALL)
        if path:
            *parents, last = path.replace("tiny", "models.tiny").split(".")
            place = content
            for part in parents:
                place = place[part]
            if gone:
                del place[last]
            else:
                place[last] = value
        file = tmp_path / "params.yaml"
        file.write_text(text if text is not None else yaml.safe_dump(content))
        with pytest.raises(ParamsError) as caught:
            params.load(file)
        return str(caught.value)

    return told


@pytest.mark.parametrize("path", [REPOSITORY / "params.yaml", REPOSITORY / "tests" / "small" / "params.yaml"])
def test_params_yaml_as_it_ships_is_read(path: Path) -> None:
    """What a person wrote is what a step gets."""
    said = params.load(path)
    raw = yaml.safe_load(path.read_text())
    assert list(said.models) == list(raw["models"])
    for name, model in said.models.items():
        assert list(model.features) == sorted(raw["models"][name]["features"])
        assert model.estimator.class_ == raw["models"][name]["estimator"]["class"]


def test_what_is_asked_of_the_whole() -> None:
    """Datasets, and who reads them; a model's features by type, in order."""
    said = params.load(REPOSITORY / "params.yaml")
    assert said.datasets == ["flights", "weather"]
    assert said.readers("weather") == ["flight_delay", "hourly_departures"]
    assert said.model("flight_delay").of_type("category") == ["carrier", "dest", "origin"]
    assert said.model("flight_delay").of_type("integer", "number")[:3] == ["dewp", "distance", "hour"]


def written(tmp_path: Path, old: str, new: str) -> params.Params:
    """The parameters of the tiny model, with an edit."""
    text = (REPOSITORY / "tests" / "small" / "params.yaml").read_text()
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new))
    return params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("C: 1.0", "C: 1"),
        ("fails_above: 0", "fails_above: 0.0"),
        ("{type: category, example: north, about: Where the pump is}", "{about: Where the pump is, example: north, type: category}"),
        ("min: 1, max: 7", "min: 1.0, max: 7.0"),
    ],
)  # fmt: skip
def test_what_dvc_takes_for_equal_is_equal_here(tmp_path: Path, old: str, new: str) -> None:
    """A stage is skipped when DVC sees no difference: then none may reach a result, not even in the bytes."""
    before = params.load(REPOSITORY / "tests" / "small" / "params.yaml").model_dump_json()
    assert written(tmp_path, old, new).model_dump_json() == before


def test_a_share_that_could_be_a_count_is_refused(tmp_path: Path) -> None:
    """To scikit-learn 1.0 is all features and 1 is one; to DVC they are the same."""
    with pytest.raises(ParamsError, match=r"estimator\.params: max_features: write null for all of them, or 1 for one"):
        written(tmp_path, "{C: 1.0}", "{max_features: 1.0}")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("010", 10), ("0o10", 8), ("0x1F", 31), ("1_000", 1000), ("on", "on"), ("1:30", "1:30"), (".5", 0.5), ("true", True)],
)  # fmt: skip
def test_a_value_is_read_as_dvc_reads_it(tmp_path: Path, text: str, value: object) -> None:
    """Else a change could be one here and none there."""
    from dvc.utils.serialize import parse_yaml

    (mine,) = written(tmp_path, "{C: 1.0}", f"\n        C: {text}").model("tiny").estimator.params.values()
    dvcs = parse_yaml(f"C: {text}", "params.yaml")["C"]
    assert (mine, type(mine)) == (value, type(value)) == (dvcs, type(dvcs))


def test_git_is_left_alone_unless_asked(tmp_path: Path) -> None:
    """A checkout that somebody works in is not committed to; a branch that cannot be one is refused at the door."""
    assert written(tmp_path, "upstream: null", "upstream: null").git == params.Git()
    said = written(tmp_path, "upstream: null", "git: {commit: true, branch: data/arrivals}").git
    assert (said.commit, said.branch, said.remote) == (True, "data/arrivals", "origin")
    for wrong, message in {
        "{branch: --force}": "git.branch",
        "{comit: true}": "git.comit: unknown key; did you mean 'commit'",
    }.items():
        with pytest.raises(ParamsError, match=message):
            written(tmp_path, "upstream: null", f"git: {wrong}")


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("America/New York", "; did you mean 'America/New_York'?"),
        ("europe/berlin", "; did you mean 'Europe/Berlin'?"),
        ("America", ""),
        ("/etc/localtime", ""),
        ("", ""),
    ],
)
def test_a_time_zone_that_is_none_is_told(fault: Callable[..., str], zone: str, hint: str) -> None:
    """Days would be taken by another; a folder of zones is none either."""
    told = fault("tiny.timezone", zone)
    assert told.startswith(f"params.yaml: models.tiny.timezone: {zone!r} is no time zone")
    assert hint in told
    assert len(told) < 200


def test_times_are_of_utc_where_no_zone_is_named(tmp_path: Path) -> None:
    """As they were before there was one to name."""
    assert written(tmp_path, "upstream: null", "upstream: null").model("tiny").timezone == "UTC"
    assert params.load(REPOSITORY / "params.yaml").model("flight_delay").timezone == "America/New_York"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("keys", "models.keys: a model cannot be called 'keys': var/serving/keys.json is there already"),
        ("reports", "models.reports: a model cannot be called 'reports': the page /reports is there already"),
        ("tiny_", "models.tiny_: string should match pattern"),
        ("a" * 64, "string should have at most 63 characters"),
    ],
)
def test_a_name_that_would_fail_in_the_last_stage_is_told_at_the_door(name: str, said: str, tmp_path: Path) -> None:
    """What a Bento cannot be called, and what lies where the model's own would lie."""
    with pytest.raises(ParamsError) as caught:
        written(tmp_path, "\n  tiny:", f"\n  {name}:")
    assert said in str(caught.value)


def test_what_dvc_yaml_reads_has_no_default() -> None:
    """DVC reads the file and knows no defaults: what is left out would fail in the middle of the graph."""
    graph = (REPOSITORY / "dvc.yaml").read_text()
    named = set(re.findall(r"models\.\$\{key\}\.(\w+)", graph))
    assert {"options", "serving"} < named
    fields = {field.alias or name: field for name, field in params.Model.model_fields.items()}
    assert not [name for name in named if not fields[name].is_required()]


def test_nothing_of_it_can_be_changed() -> None:
    """Read once, at the door: no step changes it for another."""
    said = params.load(REPOSITORY / "params.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        said.model("flight_delay").gate.margin = 1.0


def test_an_unknown_model_is_told_with_what_was_meant() -> None:
    """Or with what there is."""
    said = params.load(REPOSITORY / "params.yaml")
    with pytest.raises(ParamsError) as caught:
        said.model("flight_dely")
    assert str(caught.value) == (
        "params.yaml: there is no model 'flight_dely' below `models`; did you mean 'flight_delay'?"
    )
    with pytest.raises(ParamsError, match=r"no model 'x' below `models`; known: flight_delay, hourly_departures$"):
        said.model("x")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        # unknown keys
        ("landig", "x", "landig: unknown key; did you mean 'landing'?"),
        ("tiny.gaet", {}, "models.tiny.gaet: unknown key; did you mean 'gate'?"),
        ("tiny.gate.margn", 1, "models.tiny.gate.margn: unknown key; did you mean 'margin'?"),
        ("tiny.features.hour.nulable", True, "models.tiny.features.hour.nulable: unknown key; did you mean 'nullable'?"),
        ("tiny.estimator.clas", "x", "models.tiny.estimator.clas: unknown key; did you mean 'class'?"),
        ("tiny.serving.rows", 1, "models.tiny.serving.rows: unknown key; did you mean 'max_rows'?"),
        ("tiny.labels", ["wait", "cost"], "models.tiny: labels: is no key. " + params.SEVERAL_LABELS.format(task="classification", labels="wait, cost")),
        ("tiny.task", {"anomaly": ["a", "b"]}, "models.tiny.task: task: anomaly has one label: of several, classification or regression, or a model each"),
        ("tiny.task", {"regression": ["a"]}, "models.tiny.task: ['a'] are not several labels: name two or more, each once"),
        ("tiny.task", {"classification": ["a", "b:c"]}, "models.tiny.task: a label cannot be called 'b:c': that is a column of the platform's own, or holds : or /. Let models/<name>/rows give another name"),
        ("tiny.task", {"classification": ["a", "hour"]}, "models.tiny: task: hour is a label, and a feature or a slice: what is to be answered is not known when it is asked"),
        ("tiny.task", {"classification": ["a", "b"], "x": 1}, "models.tiny.task: {'classification': ['a', 'b'], 'x': 1} is no task; write one of classification, regression, forecast, anomaly, or of several labels {regression: [one, other]}"),
        ("tiny.split.zzz", 1, "models.tiny.split.zzz: unknown key; known: by, forecast, holdout, look_ahead"),
        # wrong types
        ("landing", 3, "landing: input should be a valid string, not 3"),
        ("models", [], "models: input should be a valid dictionary"),
        ("tiny.gate.margin", "much", "models.tiny.gate.margin: input should be a valid number, unable to parse string as a number, not 'much'"),
        ("tiny.evaluate.resamples", 100.5, "models.tiny.evaluate.resamples: input should be a valid integer, got a number with a fractional part, not 100.5"),
        ("tiny.features", None, "models.tiny.features: input should be a valid dictionary, not None"),
        ("tiny.gate.margin", float("nan"), "models.tiny.gate.margin: nan is no finite number; write null, or put it in quotes"),
        # impossible values
        ("settle_seconds", -1, "settle_seconds: input should be greater than or equal to 0, not -1"),
        ("upstream", "os.system", r"upstream: string should match pattern '^models(\.\w+)+$', not 'os.system'"),
        ("tiny.task", "clustering", "models.tiny.task: 'clustering' is no task; write one of classification, regression, forecast, anomaly, or of several labels {regression: [one, other]}"),
        ("tiny.datasets", {}, "models.tiny.datasets: dictionary should have at least 1 item after validation, not 0"),
        ("tiny.datasets.readings", "some", "models.tiny.datasets.readings: 'some' is no way to read a dataset; write partition, {history: N}, static or all"),
        ("tiny.datasets.readings", "all", "models.tiny: datasets: at least one must be read by partition or history: rows are made by partition"),
        ("tiny.datasets.readings", {"history": 0}, "models.tiny.datasets.readings: history: 0 is no number of partitions, 1 or more"),
        ("tiny.estimator.class", "Ridge", r"models.tiny.estimator.class: string should match pattern '^[A-Za-z_]\w*(\.\w+)+$', not 'Ridge'"),
        ("tiny.gate.confidence", 95, "models.tiny.gate.confidence: input should be less than 1, not 95"),
        ("tiny.gate.rule", "best", "models.tiny.gate.rule: input should be 'better' or 'not_worse', not 'best'"),
        ("tiny.serving.max_rows", 0, "models.tiny.serving.max_rows: input should be greater than or equal to 1, not 0"),
        ("tiny.split", {"by": "random", "holdout": 2}, "models.tiny.split: holdout is a share below 1 when the split is random"),
        ("tiny.split", {"by": "time", "holdout": 0.2}, "models.tiny.split: holdout is a whole number of partitions when the split is by time"),
        ("tiny.split", {"by": "time", "holdout": 0}, "models.tiny.split.holdout: input should be greater than 0, not 0"),
        # what does not go together
        ("tiny.gate.loss", "squared", "models.tiny: gate.loss: 'squared' is not for classification; one of log_loss, brier, cost"),
        ("tiny.task", "regression", "models.tiny: gate.loss: 'log_loss' is not for regression; one of absolute, squared, poisson"),
        ("tiny.evaluate.slices", ["weight"], "models.tiny: evaluate.slices: weight is a reserved name"),
        ("tiny.evaluate.slices", ["p_region", "seasonal_naive"], "models.tiny: evaluate.slices: p_region, seasonal_naive is a reserved name"),
        ("tiny.gate.coverage", [0.9, 0.7], "models.tiny.gate: coverage: [0.9, 0.7] is at least and at most: the lower one comes first"),
        ("tiny.gate.fairness", [{"column": "staton", "metric": "recall", "at_most": 0.1}], "models.tiny: gate.fairness: 'staton' is none of evaluate.slices: add it there; did you mean 'station'?"),
        ("tiny.gate.loss", "cost", "models.tiny: gate.loss: cost needs what errors cost: estimator: {…, decision: {cost: {false_positive: 1, false_negative: 10}}}"),
        ("tiny.estimator.decision", {"threshold": 0.1, "maximise": "f1"}, "models.tiny.estimator.decision: threshold and maximise are two ways to decide: give one of them"),
        ("tiny.estimator.decision", {}, "models.tiny.estimator.decision: give a threshold, or what it is chosen by: cost, or maximise"),
        ("tiny.estimator.decision", {"cost": {"false_positive": 0, "false_negative": 0}}, "models.tiny.estimator.decision.cost: errors that cost nothing give no reason to decide one way: give one of them a cost"),
        ("tiny.features.weight", {"type": "number", "about": "x", "example": 1}, "models.tiny: features: weight is a reserved name. Let models/<name>/rows give it another one"),
        # features
        ("tiny.features.json", {"type": "number", "about": "x", "example": 1}, "models.tiny: features: json is a reserved name. Let models/<name>/rows give it another one"),
        ("tiny.features.model_config", {"type": "number", "about": "x", "example": 1}, "models.tiny: features: model_config is a reserved name. Let models/<name>/rows give it another one"),
        ("tiny.features.label", {"type": "number", "about": "x", "example": 1}, "models.tiny: features: label is a reserved name. Let models/<name>/rows give it another one"),
        ("tiny.features.p_class", {"type": "number", "about": "x", "example": 1}, "models.tiny: features: p_class: p_… are the probabilities that a model answers, and prediction, q10, q90, anomaly_score its numbers. Let models/<name>/rows give it another name"),
        ("tiny.features._hour", {"type": "number", "about": "x", "example": 1}, "models.tiny.features._hour: a feature cannot be called '_hour': it begins with _. Let models/<name>/rows give another name"),
        ("tiny.features. hour", {"type": "number", "about": "x", "example": 1}, "models.tiny.features. hour: a feature cannot be called ' hour': it begins or ends with a blank, or holds what cannot be seen. Let models/<name>/rows give another name"),
        ("tiny.features.Hoehe\u0308", {"type": "number", "about": "x", "example": 1}, "models.tiny.features.Hoehe\u0308: a feature cannot be called 'Hoehe\u0308': it is written with accents that stand alone (Unicode NFD); write 'Hoeh\u00eb' (NFC). Let models/<name>/rows give another name"),
        ("tiny.features.station.min", 1, "models.tiny.features.station: a category has no min or max"),
        ("tiny.features.pressure.min", 11, "models.tiny.features.pressure: min 11 is above max 10"),
        ("tiny.features.station.example", 3, "models.tiny.features.station: example 3.0 is no category"),
        ("tiny.features.station.example", "", "models.tiny.features.station: example has 0 characters; a category has 1 to 200"),
        ("tiny.features.station.example", "x" * 201, "models.tiny.features.station: example has 201 characters; a category has 1 to 200"),
        ("tiny.features.starts.example", 2**60, "models.tiny.features.starts: example 1.15292e+18 is no integer from min to max"),
        ("tiny.features.hour.example", "six", "models.tiny.features.hour: example 'six' is no integer"),
        ("tiny.features.hour.example", 6.5, "models.tiny.features.hour: example 6.5 is no integer from min to max"),
        ("tiny.features.hour.example", 24, "models.tiny.features.hour: example 24 is no integer from min to max"),
        ("tiny.features.hour.example", None, "models.tiny.features.hour: example is null, but the feature is not nullable"),
        ("tiny.features.hour.type", "int", "models.tiny.features.hour.type: input should be 'category', 'integer', 'number', 'boolean', 'datetime', 'text' or 'vector', not 'int'"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place(fault: Callable[..., str], path: str, value: Any, said: str) -> None:
    """File, path of the key, what is wrong, and what may have been meant."""
    assert fault(path, value) == f"params.yaml: {said}"


def test_a_key_that_is_missing_is_named(fault: Callable[..., str]) -> None:
    """With its path."""
    assert fault("tiny.gate.loss", gone=True) == "params.yaml: models.tiny.gate.loss: is missing"
    assert fault("tiny.features.hour.example", gone=True) == (
        "params.yaml: models.tiny.features.hour.example: is missing"
    )


def test_every_fault_has_a_line(tmp_path: Path) -> None:
    """So that one reading mends them all."""
    content = deepcopy(SMALL)
    content["landing"] = 1
    content["models"]["tiny"]["gate"]["margin"] = -1
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ParamsError) as caught:
        params.load(tmp_path / "params.yaml")
    assert str(caught.value).splitlines() == [
        "params.yaml: landing: input should be a valid string, not 1",
        "params.yaml: models.tiny.gate.margin: input should be greater than or equal to 0, not -1",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("landing: a\nlanding: b\n", 'params.yaml is not YAML: line 2, column 1: found duplicate key "landing"'),
        ("models: {a: {b: 1, b: 2}}", 'params.yaml is not YAML: line 1, column 20: found duplicate key "b"'),
        ("models: [", "params.yaml is not YAML: line 2, column 1: did not find expected node content"),
        ("a:\n\tb: 1", "params.yaml is not YAML: line 2, column 1: found character that cannot start any token"),
        ("? {a: b}\n: c", "params.yaml is not YAML: line 1, column 3: found unhashable key"),
        ("? [a, b]\n: c", "params.yaml: (top level): ('a', 'b') is no key; put it in quotes"),
        (
            "a: {b: 1:30}",
            "params.yaml is not YAML: line 1, column 9: found unexpected ':'; a text that holds a colon stands in quotes there",
        ),
        ("a: *b", "params.yaml is not YAML: line 1, column 4: found undefined alias"),
        ("a: &a [*a]", "params.yaml: a.0: an anchor that holds itself"),
        ("--- a\n--- b", "params.yaml is not YAML: "),
        ("a: !!python/object/apply:os.system [id]", "params.yaml is not YAML: line 1, column 4: could not determine"),
        ("a: 2013-13-01", "params.yaml is not YAML: month must be in 1..12"),
        ("a: {b: [2013-01-01]}", "params.yaml: a.b.0: 2013-01-01 is a date, which DVC cannot take; put it in quotes"),
        ("a: 2013-01-01 08:00:00", "params.yaml: a: 2013-01-01 08:00:00 is a date, which DVC cannot take"),
        ("a: !!set {b, c}", "params.yaml: a: a set is no text, number, truth value, list or mapping"),
        ("a: !!binary aGVsbG8=", "params.yaml: a: a bytes is no text, number, truth value, list or mapping"),
        ("a: .inf", "params.yaml: a: inf is no finite number; write null, or put it in quotes"),
        ("a: [.nan]", "params.yaml: a.0: nan is no finite number"),
        ("a: {null: 1}", "params.yaml: a: None is no key; put it in quotes"),
        (
            "a: {0: 1, b: 2}",
            "params.yaml: a: some keys are texts, others are numbers: put all of them in quotes, or none",
        ),
    ],
)
def test_what_cannot_be_taken_is_told_with_the_line_or_the_key(fault: Callable[..., str], text: str, said: str) -> None:
    """In one line, without the library's advice to programmers: what DVC would stop at, and what no JSON can hold."""
    message = fault(text=text)
    assert message.startswith(said)
    assert "\n" not in message


def test_a_key_that_is_no_text_is_told_in_a_section(tmp_path: Path) -> None:
    """A number is no feature's name, nor is a truth value."""
    for written_key, said in {
        "1": "models.tiny.features: some keys are texts, others are numbers",
        "true": "models.tiny.features: some keys are texts, others are numbers",
    }.items():
        with pytest.raises(ParamsError) as caught:
            written(tmp_path, "station:  {", f"{written_key}: {{")
        assert f"params.yaml: {said}" in str(caught.value)
    with pytest.raises(ParamsError, match=r"models\.1: input should be a valid string, not 1"):
        written(tmp_path, "  tiny:", "  1:")


def test_what_the_language_offers_can_be_used(tmp_path: Path) -> None:
    """Anchors, merge keys, comments, numbers as keys, great numbers, any script; and a byte order mark is none of it."""
    kept = written(
        tmp_path,
        "options: {fails_above: 0}",
        "options: {fails_above: 0, base: &base {a: 1, b: [x]}, merged: {<<: *base, a: 2}, Größe: 見本, great: "
        "123456789012345678901234567890}  # ü",
    )
    assert kept.model("tiny").options == {
        "fails_above": 0, "base": {"a": 1, "b": ["x"]}, "merged": {"a": 2, "b": ["x"]}, "Größe": "見本",
        "great": 123456789012345678901234567890,
    }  # fmt: skip
    weighted = written(tmp_path, "{C: 1.0}", "{class_weight: {0: 1, 1.0: 5.5}}").model("tiny").estimator.params
    assert weighted == {"class_weight": {0: 1, 1: 5.5}}
    assert {type(key) for key in weighted["class_weight"]} == {int}
    marked = tmp_path / "params.yaml"
    marked.write_text("\ufeff" + (REPOSITORY / "tests" / "small" / "params.yaml").read_text())
    assert params.load(marked) == params.load(REPOSITORY / "tests" / "small" / "params.yaml")


def test_an_empty_file_is_told(fault: Callable[..., str]) -> None:
    """It is YAML, and says nothing."""
    assert fault(text="") == ("params.yaml: (top level): input should be a valid dictionary, not None")


def test_a_file_that_is_not_there_is_told_with_where_it_was_looked_for(tmp_path: Path) -> None:
    """Most often it is the wrong folder."""
    with pytest.raises(ParamsError) as caught:
        params.load(tmp_path / "params.yaml")
    assert str(caught.value) == (
        f"{tmp_path / 'params.yaml'} is not there. Are you in the project's folder? (EVERGREEN_ROOT names another)"
    )


# ── the reference ─────────────────────────────────────────────────────────────────────────────────


def _keys(section: type[params.Section], before: str = "") -> Iterator[str]:
    """Every key of a section and below it; `models.<name>` is left out, as the reference does."""
    for name, field in section.model_fields.items():
        key = f"{before}{field.alias or name}"
        if key != "models":
            yield key
        for below in _sections(field.annotation):
            yield from _keys(below, "" if key == "models" else f"{key}.")


def _sections(annotation: Any) -> Iterator[type[params.Section]]:
    if isinstance(annotation, type) and issubclass(annotation, params.Section):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _described(page: str) -> Iterator[str]:
    """The keys in the first column; `.this` is beside the key before it, and those after «…» are of `retrain.when`."""
    for cell, said in re.findall(r"^\| (.*?) \| (.*) \|$", page, re.MULTILINE):
        section = "retrain.when." if cell.startswith("…") else ""
        for key in re.findall(r"`(.+?)`", cell):
            section = f"{key.rpartition('.')[0]}." if "." in key[1:] else section
            yield section + key.removeprefix(".") if "." not in key[1:] else key
        if cell == "`features`":
            yield from (f"features.{one}" for one in re.findall(r"`(\w+)`", said))


def test_every_key_stands_in_the_reference() -> None:
    """And the reference names none that there is not."""
    keys = set(_keys(params.Params))
    said = set(_described((REPOSITORY / "docs" / "reference" / "params.md").read_text(encoding="utf-8")))
    whole = {one for one in keys if any(other.startswith(f"{one}.") for other in keys)}  # described by what is in it
    assert keys - whole - said == set()
    types = ("category", "integer", "number", "boolean", "datetime", "text", "vector")
    assert said - keys == {f"features.{type_}" for type_ in types}


# ── types of features ─────────────────────────────────────────────────────────────────────────────


def featured(features: dict[str, Any], **more: Any) -> params.Model:
    """The small model with other features."""
    raw = yaml.safe_load((REPOSITORY / "tests" / "small" / "params.yaml").read_text())["models"]["tiny"]
    return params.Model.model_validate({**raw, "evaluate": {}, **more, "features": features})


def test_a_cost_is_named_by_all_of_its_digits() -> None:
    """By its name decisions are judged: a threshold would be chosen by another cost than that."""
    assert params.Cost(false_positive=1, false_negative=0.25).loss == "cost(1, 0.25)"
    assert params.Cost(false_positive=1234567, false_negative=1e-7).loss == "cost(1234567, 1e-07)"


NUMBER = {"type": "number", "about": "x", "example": 0}


def test_a_pattern_is_as_many_features() -> None:
    """As a shell's braces; without data, so that the schema of requests needs none."""
    model = featured({"pixel_{0..783}": NUMBER, "t{08..10}_{a,b}": {**NUMBER, "group": None}, "x{y}": NUMBER})
    assert len(model.features) == 784 + 6 + 1
    assert {"pixel_0", "pixel_783", "t08_a", "t10_b", "x{y}"} <= set(model.features)
    assert model.features["pixel_7"].group == "pixel_{0..783}"
    assert model.features["t08_a"].group is None


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"p{0..2}": NUMBER, "p1": NUMBER}, "'p1' is named twice"),
        ({"p{2..0}": NUMBER}, "counts from the smaller to the larger"),
        ({"p{0..9999}": NUMBER}, "10,000 are more than 2,000"),
        ({"v": {**NUMBER, "type": "vector"}}, "a vector needs its length"),
        ({"v": {**NUMBER, "type": "vector", "length": 2, "example": [1]}}, "example has 1 numbers, its length is 2"),
        ({"v": {**NUMBER, "type": "vector", "length": 2}, "v_1": NUMBER}, "v_1 is a feature, and a number of a vector"),
        ({"n": {**NUMBER, "length": 2}}, "a number has no length"),
        ({"b": {**NUMBER, "type": "boolean"}}, "example 0.0 is no boolean"),
        ({"n": {**NUMBER, "example": True}}, "example True is no number"),
        ({"b": {"type": "boolean", "about": "x", "example": True, "min": 0}}, "a boolean has no min or max"),
        ({"d": {"type": "datetime", "about": "x", "example": "2024-01-01"}}, "example '2024-01-01' is no time"),
        ({"d": {"type": "datetime", "about": "x", "example": "2024-01-01T00:00:00Z"}}, "write it in local time"),
        (
            {"d": {"type": "datetime", "about": "x", "example": "2024-01-01T00:00:00", "min": 3}},
            "is no limit of a datetime",
        ),
        ({"n": {**NUMBER, "max": "5"}}, "min or max '5' is no limit of a number"),
        (
            {"t": {"type": "text", "about": "x", "example": "hello", "max_length": 4}},
            "example has 5 characters; a text has 0 to 4",
        ),
    ],
)
def test_a_feature_that_cannot_be_is_told(features: dict[str, Any], said: str) -> None:
    """Before anything runs."""
    with pytest.raises(ValidationError) as caught:
        featured(features)
    assert said in str(caught.value)


def test_texts_and_vectors_are_no_slices() -> None:
    """Each value is another one."""
    with pytest.raises(ValidationError, match=r"t. is a text, of which each value is another"):
        featured({"t": {"type": "text", "about": "x", "example": ""}}, evaluate={"slices": ["t"]})


# ── tasks ─────────────────────────────────────────────────────────────────────────────────────────


PAYMENTS = yaml.safe_load((REPOSITORY / "tests" / "kinds" / "project" / "params.yaml").read_text())["models"][
    "payments"
]


def test_an_anomaly_model_names_no_key_that_it_has_no_use_for() -> None:
    """Its slices are measured, and not judged; no row of it has a loss that a retrain policy could ask for."""
    assert not {"slice_min_rows", "slice_margin", "calibration"} & set(PAYMENTS["gate"])
    assert params.Model.model_validate(PAYMENTS).task == "anomaly"
    with pytest.raises(
        ValueError, match=r"retrain\.when: measured_loss: no row of an anomaly model has a loss by itself"
    ):
        params.Model.model_validate({**PAYMENTS, "retrain": {"when": [{"measured_loss": 0.1}]}})


def test_of_an_anomaly_model_its_alerts_may_be_compared() -> None:
    """Between groups of so many rows, at least; what takes labels is refused."""
    asked = {"column": "country", "metric": "selection_rate", "at_most": 0.1}
    gate = {**PAYMENTS["gate"], "fairness": [asked]}
    with pytest.raises(ValueError, match=r"gate\.slice_min_rows: is missing: groups with fewer rows are not compared"):
        params.Model.model_validate({**PAYMENTS, "gate": gate})
    assert params.Model.model_validate({**PAYMENTS, "gate": {**gate, "slice_min_rows": 50}}).gate.fairness
    gate["fairness"] = [{**asked, "metric": "recall"}]
    with pytest.raises(ValueError, match=r"gate\.fairness: recall is of labels; of an anomaly model its alerts"):
        params.Model.model_validate({**PAYMENTS, "gate": gate})


@pytest.mark.parametrize("key", ["slice_min_rows", "slice_margin", "calibration"])
def test_another_task_names_what_its_gate_asks(fault: Callable[..., str], key: str) -> None:
    """Nobody's slices are let through because a key was forgotten."""
    assert fault(f"tiny.gate.{key}", gone=True) == f"params.yaml: models.tiny: gate.{key}: is missing"
