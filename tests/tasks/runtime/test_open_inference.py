"""The Open Inference Protocol: tensors in, tensors out, and the same numbers as `/predict`."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tasks.ground import files
from tasks.runtime import feature_types, inference_body, model_file, predictor
from tasks.runtime.open_inference import Translator
from tasks.runtime.outputs import Outputs
from tasks.runtime.tensors import DATATYPES

FEATURES: dict[str, dict[str, Any]] = {
    "place": {"type": "category", "about": "x", "example": "north", "nullable": True},
    "hour": {"type": "integer", "about": "x", "example": 6, "min": 0, "max": 23},
    "size": {"type": "number", "about": "x", "example": 1.5, "nullable": True},
    "open": {"type": "boolean", "about": "x", "example": True, "nullable": True},
    "at": {"type": "datetime", "about": "x", "example": "2026-11-01T08:00:00", "nullable": True},
    "note": {"type": "text", "about": "x", "example": "all is well"},
    "image": {"type": "vector", "about": "x", "example": 0.5, "length": 3, "nullable": True},
}
AT = "2026-11-01T08:00:00"
ROWS: list[dict[str, Any]] = [
    {
        "place": "north",
        "hour": 6,
        "size": 0.1,
        "open": True,
        "at": "2026-11-01T08:00:00",
        "note": "é",
        "image": [1, 2, 3],
    },
    {"place": None, "hour": 7, "size": None, "open": None, "at": None, "note": "", "image": None},
    {
        "place": "far",
        "hour": 23,
        "size": -0.0,
        "open": False,
        "at": "2026-11-01T08:00:00Z",
        "note": "b",
        "image": [0.1] * 3,
    },
]
SENT = {
    "place": "BYTES",
    "hour": "INT64",
    "size": "FP64",
    "open": "BOOL",
    "at": "BYTES",
    "note": "BYTES",
    "image": "FP64",
}


def released(
    folder: Path,
    features: dict[str, dict[str, Any]],
    pipeline: Pipeline,
    classes: list[Any] | None,
    labels: pd.DataFrame | None = None,
) -> Any:
    """A release that is loaded, and its translator; of several labels, if they are given."""
    rows = [{name: ROWS[n % 3].get(name, n % 5) for name in features} for n in range(30)]
    columns = {name: [row[name] for row in rows] for name in features}
    for row, at in enumerate(columns.get("at", [])):
        columns["at"][row] = at and feature_types.local_time(at, "UTC")
    learnt = feature_types.frame(columns, features)
    label = np.arange(30) % len(classes) if classes else np.arange(30.0)
    pipeline.fit(learnt, labels if labels is not None else np.array(classes)[label] if classes else label)
    model_file.dump(pipeline, folder / "model.skops")
    of_classes = classes is not None or labels is not None
    facts = {
        "name": "small", "task": "classification" if of_classes else "regression", "about": "?", "classes": classes,
        "decision": "most_probable" if of_classes else None, "columns": list(features), "features": features,
        "categories": {"place": ["north", "south"]} if "place" in features else {}, "max_rows": 20,
        "prediction_edges": [0.5], "model_sha256": files.sha256(folder / "model.skops"),
    }  # fmt: skip
    if labels is not None:
        facts |= {"outputs": list(labels), "classes": None}
    files.write_json(folder / "release.json", facts)
    files.write_json(folder / "background.json", rows[:4])
    files.write_json(folder / "candidate.json", {"candidate": "0123456789abcdef"})
    loaded = predictor.Predictor(folder, "7")
    return loaded, Translator(loaded)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A classifier that takes every type of feature."""
    numbers = ["hour", "size", "open", "image_0", "image_1", "image_2"]
    columns = ColumnTransformer(
        [
            ("place", OneHotEncoder(handle_unknown="ignore"), ["place"]),
            ("numbers", SimpleImputer(), numbers),
            ("note", HashingVectorizer(n_features=16), "note"),
        ]
    )
    pipeline = make_pipeline(columns, LogisticRegression())
    return released(tmp_path_factory.mktemp("mixed"), FEATURES, pipeline, ["high", "low", "mid"])


@pytest.fixture(scope="module")
def numeric(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A regressor whose features are all numbers."""
    features = {name: FEATURES[name] for name in ("hour", "image", "size", "open")}
    pipeline = make_pipeline(HistGradientBoostingRegressor(max_iter=4, min_samples_leaf=2))
    return released(tmp_path_factory.mktemp("numeric"), features, pipeline, None)


# ── a client ──────────────────────────────────────────────────────────────────────────────────────


def tensor(name: str, values: list[Any], datatype: str, shape: list[int] | None = None, **more: Any) -> dict[str, Any]:
    """In JSON."""
    return {"name": name, "shape": shape or [len(values)], "datatype": datatype, "data": values, **more}


def tensors(rows: list[dict[str, Any]] = ROWS, **instead: Any) -> list[dict[str, Any]]:
    """Rows as named tensors; some of them other ones, or (None) left out."""
    named = {}
    for name, datatype in SENT.items():
        values = [row[name] for row in rows]
        if name == "image":
            flat = [number for value in values for number in value or [None] * 3]
            named[name] = tensor(name, flat, datatype, [len(rows), 3])
        else:
            named[name] = tensor(name, values, datatype)
    return [one for one in {**named, **instead}.values() if one is not None]


def as_bytes(one: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """A tensor of JSON as a head and its bytes, missing values as what bytes have for them."""
    if one["datatype"] == "BYTES":
        texts = [(value or "").encode() for value in one["data"]]
        content = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    else:
        content = np.array(one["data"], dtype=DATATYPES[one["datatype"]]).tobytes()
    head = {key: one[key] for key in one if key != "data"}
    return {**head, "parameters": {"binary_data_size": len(content)}}, content


def binary(inputs: list[dict[str, Any]], **more: Any) -> tuple[int, bytes]:
    """A request whose tensors are bytes."""
    heads, contents = zip(*map(as_bytes, inputs), strict=True)
    text = json.dumps({"inputs": heads, **more}).encode()
    return len(text), text + b"".join(contents)


def asked(model: Any, inputs: Any, **more: Any) -> tuple[int, dict[str, Any], bytes]:
    """Status, JSON and bytes of the answer to tensors, or to a body with the length of its JSON."""
    if not isinstance(inputs, tuple):
        body = inputs if isinstance(inputs, bytes) else json.dumps({"inputs": inputs, **more}).encode()
        inputs = len(body), body
    loaded, translator = model
    inference = translator.read(inference_body.pack(*inputs))
    answer = inference.respond(loaded.predict([inference.rows])[0])
    length, content = inference_body.unpack(answer.body)
    return answer.status, json.loads(content[:length]), content[length:]


def values(answer: dict[str, Any]) -> dict[str, Any]:
    """Output → its data; without ids, which are others each time."""
    return {one["name"]: one["data"] for one in answer["outputs"] if one["name"] != "id"}


def expected(model: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The same, of what `/predict` answers."""
    answer = model[0].predict([json.dumps({"rows": rows}).encode()])[0]
    assert answer.status == 200, answer.body
    predictions = json.loads(answer.body)["predictions"]
    found = {name: [one[name] for one in predictions] for name in predictions[0] if name not in ("id", "unseen")}
    if "probabilities" in found:
        found["probabilities"] = [p for one in found["probabilities"] for p in one.values()]
    return {**found, "unseen": [json.dumps(one.get("unseen", []), separators=(",", ":")) for one in predictions]}


# ── the same answers ──────────────────────────────────────────────────────────────────────────────


def test_named_tensors_are_answered_as_rows_are(mixed: Any) -> None:
    """To the bit, in JSON: flat, as columns, and nested."""
    status, answer, _ = asked(mixed, tensors(), id="mine")
    assert status == 200, answer
    assert values(answer) == expected(mixed, ROWS)
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("small", "7", "mine")
    assert answer["parameters"] == {"release": "small:0123456789abcdef"}
    columns = [{**one, "shape": [3, 1]} if len(one["shape"]) == 1 else one for one in tensors()]
    assert values(asked(mixed, columns)[1]) == values(answer)
    image = [[1, 2, 3], [None] * 3, [0.1] * 3]
    nested = tensors(
        image=tensor("image", image, "FP64", [3, 3]), hour=tensor("hour", [[6], [7], [23]], "INT64", [3, 1])
    )
    assert values(asked(mixed, nested)[1]) == values(answer)


def test_bytes_are_answered_as_json_is(mixed: Any) -> None:
    """NaN is missing, and of a category or a time an empty text; a truth value that may be missing is a number."""
    given = tensors(open=tensor("open", [1, None, 0], "FP32"))
    status, answer, _ = asked(mixed, binary(given))
    assert status == 200, answer
    assert values(answer) == expected(mixed, ROWS)


def test_outputs_come_as_bytes_where_they_are_asked_for(mixed: Any) -> None:
    """All of them, or one by one; each says how many bytes are its own."""
    wanted = expected(mixed, ROWS)
    _, answer, content = asked(mixed, tensors(), parameters={"binary_data_output": True})
    at, found = 0, {}
    for one in answer["outputs"]:
        size = one["parameters"]["binary_data_size"]
        found[one["name"]] = content[at : at + size]
        at += size
    assert at == len(content)
    assert np.frombuffer(found["probabilities"], "<f8").tolist() == wanted["probabilities"]
    assert found["prediction"] == b"".join(struct.pack("<I", len(t)) + t.encode() for t in wanted["prediction"])
    asked_for = [{"name": "prediction"}, {"name": "probabilities", "parameters": {"binary_data": True}}]
    _, answer, content = asked(mixed, tensors(), outputs=asked_for)
    assert [one["name"] for one in answer["outputs"]] == ["prediction", "probabilities"]
    assert answer["outputs"][0]["data"] == wanted["prediction"]
    assert np.frombuffer(content, "<f8").tolist() == wanted["probabilities"]


def test_the_metadata_says_what_is_taken_and_given(mixed: Any, numeric: Any) -> None:
    """Classes are named beside their probabilities; numbers of a regression are FP64."""
    described = mixed[1].metadata()
    assert {one["name"]: one["datatype"] for one in described["inputs"]} == SENT
    assert described["inputs"][6]["shape"] == [-1, 3]
    outputs = {one["name"]: one for one in described["outputs"]}
    assert list(outputs) == ["id", "prediction", "probabilities", "unseen"]
    assert (outputs["probabilities"]["shape"], outputs["prediction"]["datatype"]) == ([-1, 3], "BYTES")
    assert json.loads(outputs["probabilities"]["parameters"]["classes"]) == ["high", "low", "mid"]
    assert [one["datatype"] for one in numeric[1].metadata()["outputs"]] == ["BYTES", "FP64", "BYTES"]


def test_the_example_works(mixed: Any) -> None:
    """As the OpenAPI document shows it."""
    request, _ = mixed[1].schemas()
    assert asked(mixed, json.dumps(request["example"]).encode())[0] == 200


def test_numbers_alone_may_come_as_one_tensor(numeric: Any) -> None:
    """In the order of params.yaml, with a vector in its place; JSON or bytes; whatever it is called."""
    rows = [
        {"hour": 3, "image": [1, 2, 3], "size": 0.1, "open": True},
        {"hour": 4, "image": None, "size": None, "open": None},
    ]
    matrix = [[3, 1, 2, 3, 0.1, 1], [4, None, None, None, None, None]]
    wanted = expected(numeric, rows)
    flat = [number for row in matrix for number in row]
    for one in (tensor("input-0", matrix, "FP64", [2, 6]), tensor("x", flat, "FP64", [2, 6])):
        assert values(asked(numeric, [one])[1]) == wanted
    assert values(asked(numeric, binary([tensor("x", matrix, "FP64", [2, 6])]))[1]) == wanted


def test_a_number_of_32_bits_is_what_it_is_in_bytes(numeric: Any) -> None:
    """0.1 in FP32 is another number than in FP64, in JSON too."""
    image = tensor("image", [0.1] * 3, "FP32", [1, 3])
    given = [tensor("hour", [3], "UINT8"), image, tensor("size", [0.1], "FP32")]
    near = float(np.float32(0.1))
    wanted = expected(numeric, [{"hour": 3, "image": [near] * 3, "size": near}])
    assert values(asked(numeric, given)[1]) == values(asked(numeric, binary(given))[1]) == wanted


def test_columns_of_mlserver_whose_elements_are_json_are_read(mixed: Any) -> None:
    """Its pandas codec writes them so where a column holds missing texts, or lists."""
    is_json = {"parameters": {"content_type": "pd_json"}}
    place = tensor("place", ['"north"', "null", '"far"'], "BYTES", [3, 1], **is_json)
    image = tensor("image", ["[1,2,3]", "null", "[0.1,0.1,0.1]"], "BYTES", [3, 1], **is_json)
    status, answer, _ = asked(mixed, tensors(place=place, image=image), parameters={"content_type": "pd"})
    assert status == 200, answer
    assert values(answer) == expected(mixed, ROWS)


def test_names_of_rows_and_the_time_are_taken_along(mixed: Any) -> None:
    """As `keys` and `time` of `/predict`, to the prediction log."""
    loaded, translator = mixed
    keys = tensor("keys", ["a", "b", "c"], "BYTES")
    body = json.dumps({"inputs": [*tensors(), keys], "parameters": {"time": "2026-11-01T08:00:00Z"}}).encode()
    answer = loaded.predict([translator.read(inference_body.pack(len(body), body)).rows])[0]
    assert answer.time.isoformat() == "2026-11-01T08:00:00+00:00"
    assert json.loads(b"{" + answer.logged + b"}")["keys"] == ["a", "b", "c"]


def test_several_labels_are_a_tensor_each(tmp_path: Path) -> None:
    """By the name of the label, each of its own datatype; probabilities with the classes of theirs."""
    features = {name: FEATURES[name] for name in ("hour", "size")}
    labels = pd.DataFrame({"late": np.arange(30) % 2 == 0, "kind": np.where(np.arange(30) % 3, "a", "b")})
    pipeline = make_pipeline(SimpleImputer(), Outputs(LogisticRegression(), ["late", "kind"], True))
    model = released(tmp_path, features, pipeline, None, labels)
    described = {one["name"]: (one["datatype"], one["shape"]) for one in model[1].metadata()["outputs"]}
    assert described["prediction.late"] == ("BOOL", [-1])
    assert described["prediction.kind"] == ("BYTES", [-1])
    assert described["probabilities.kind"] == ("FP64", [-1, 2])
    found = values(asked(model, [tensor("hour", [3, 4], "INT64"), tensor("size", [0.5, None], "FP64")])[1])
    body = json.dumps({"rows": [{"hour": 3, "size": 0.5}, {"hour": 4}]}).encode()
    predicted = json.loads(model[0].predict([body])[0].body)["predictions"]
    for label in labels:
        assert found[f"prediction.{label}"] == [one["prediction"][label] for one in predicted]
        assert found[f"probabilities.{label}"] == [p for one in predicted for p in one["probabilities"][label].values()]


# ── what is refused ───────────────────────────────────────────────────────────────────────────────

HOUR = tensor("hour", [6, 7, 23], "INT64")
BASE64, PANDAS = {"content_type": "base64"}, {"content_type": "pd_json"}
NO_WHOLE = "hour: is no whole number, as INT64 must be: send FP64, or null"


def with_hour(**changes: Any) -> list[dict[str, Any]]:
    """Three rows, whose hours come otherwise."""
    return tensors(hour={key: value for key, value in {**HOUR, **changes}.items() if value is not None})


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ([], "hour: is missing: send it as INT64 of shape [rows]; note: is missing"),
        (tensors(hour=None), "hour: is missing: send it as INT64 of shape [rows]"),
        (
            tensors(image=None, place=None, hours=tensor("hours", [6, 7, 23], "INT64")),
            "hours: is not known; did you mean 'hour'?",
        ),
        ([*tensors(), HOUR], "hour: comes twice: send each tensor once"),
        (with_hour(datatype="INT"), "hour: has a datatype that is not known; did you mean "),
        (
            with_hour(datatype="BYTES", data=["6", "7", "8"]),
            "hour: is BYTES, but a number: send it as INT64 of shape [rows]",
        ),
        (
            tensors(place=tensor("place", [1, 2, 3], "INT64")),
            "place: is INT64, but text: send it as BYTES of shape [rows]",
        ),
        (with_hour(shape=[4]), "hour: has 3 values, but its shape [4] means 4"),
        (with_hour(shape=[-3]), "hour: has a negative number in its shape [-3]: say how many rows there are"),
        (with_hour(shape=[1, 3]), "hour: has 1 rows, but place has 3: send as many in each tensor"),
        (with_hour(shape=[]), "hour: has 3 values, but its shape [] means 1"),
        (with_hour(shape=[], data=[1]), "hour: has no dimension: send shape [rows]"),
        (with_hour(shape=[3, 1, 1]), "hour: has shape [3, 1, 1]: send it as INT64 of shape [rows]"),
        (with_hour(data=[6, 7]), "hour: has 2 values, but its shape [3] means 3"),
        (
            with_hour(data=[[6], [7], [8]], shape=[3, 2]),
            "hour: is not nested as its shape [3, 2] says; flat data will do",
        ),
        (with_hour(data=None), "hour: has no data: send `data`, or its bytes behind the JSON"),
        (with_hour(data=[6, 7, 8.5]), f"row 2, {NO_WHOLE}"),
        (with_hour(data=[6, float("nan"), 8]), f"row 1, {NO_WHOLE}"),
        (with_hour(data=[6, 7, 2**63]), "row 2, hour: is not between -9223372036854775808 and 9223372036854775807"),
        (with_hour(data=[6, "7", 8]), "row 1, hour: is not a whole number or null, as INT64 in JSON must be"),
        (with_hour(data=[6, None, 8]), "row 1, hour: Input should be a valid integer"),
        (with_hour(data=[6, 7, 24]), "row 2, hour: Input should be less than or equal to 23"),
        (tensors(size=tensor("size", [1, float("inf"), 3], "FP64")), "row 1, size: is infinite, or too large for FP64"),
        (tensors(size=tensor("size", [1, 2, 1e39], "FP32")), "row 2, size: is infinite, or too large for FP32"),
        (tensors(open=tensor("open", [1, 0, 2], "INT8")), "row 2, open: is no truth value: send BOOL, or 0 and 1"),
        (tensors(open=tensor("open", [True, 0, 1], "BOOL")), "row 1, open: is not true, false or null"),
        (
            tensors(note=tensor("note", ["a", 1, "b"], "BYTES")),
            "row 1, note: is not text or null, as BYTES in JSON must be",
        ),
        (
            tensors(note=tensor("note", ["YQ==", "", ""], "BYTES", parameters=BASE64)),
            "note: has a content type that is not read",
        ),
        (
            tensors(place=tensor("place", ["a", "b", "{"], "BYTES", parameters=PANDAS)),
            "row 0, place: its content type is pd_json, but it is no JSON",
        ),
        (
            tensors(image=tensor("image", [1] * 6, "FP64", [3, 2])),
            "image: has shape [3, 2]: send it as FP64 of shape [rows, 3]",
        ),
        (tensors([]), "rows: holds no row"),
        (tensors(ROWS * 7), "rows: holds more than 20 rows"),
        ([tensor("x", [1, 2], "FP64", [1, 2])], "x: holds numbers, but place is none: send a tensor for each feature"),
        (tensors(keys=tensor("keys", ["a", None, "c"], "BYTES")), "row 1, keys: Input should be a valid string"),
        (tensors(keys=tensor("keys", ["a", "b"], "BYTES")), "keys: has 2 rows, but place has 3"),
    ],
)
def test_a_tensor_that_is_wrong_is_told_by_its_name_and_how_to_do_better(mixed: Any, inputs: Any, told: str) -> None:
    """In the text of the error, which is all that clients show; and listed, as `/predict` lists it."""
    status, answer, _ = asked(mixed, inputs)
    assert status == 400
    assert told in answer["error"], answer["error"]
    assert answer["error"].startswith("refused, nothing was predicted: ")
    assert {"row", "field", "problem"} == set(answer["detail"][0])


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"output": []}, "output: is not known; did you mean 'outputs'?"),
        ({"id": 7}, "id: Input should be a valid string"),
        ({"outputs": [{"name": "predictions"}]}, "predictions: is no output of this model; did you mean 'prediction'?"),
        ({"outputs": [{"name": "id"}, {"name": "id"}]}, "id: is asked for twice: name each output once"),
        ({"parameters": {"binary_data_output": 1}}, "the parameter binary_data_output must be true or false"),
        ({"parameters": {"time": "yesterday"}}, "time: Input should be a valid datetime"),
    ],
)
def test_a_request_that_is_wrong_around_its_tensors_is_told(mixed: Any, more: dict[str, Any], told: str) -> None:
    """With what may have been meant."""
    status, answer, _ = asked(mixed, tensors(), **more)
    assert (status, told in answer["error"]) == (400, True), answer


def edited(change: Any) -> tuple[int, bytes]:
    """A request in bytes, whose head was changed."""
    length, body = binary(tensors())
    head = json.loads(body[:length])
    change(head)
    text = json.dumps(head).encode()
    return len(text), text + body[length:]


LENGTH, WHOLE = binary(tensors())


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            (LENGTH, WHOLE[:-8]),
            "image: has 72 bytes by its binary_data_size, but 64 are left of the body. Is the header",
        ),
        ((LENGTH, WHOLE + b"1234"), "the last 4 bytes of the body belong to no tensor"),
        ((LENGTH - 1, WHOLE), "the body is not JSON"),
        ((0, WHOLE), "the body is not JSON"),
        (
            edited(lambda head: head["inputs"][1].update(shape=[4])),
            "hour: has 24 bytes, but INT64 of shape [4] is 32 bytes",
        ),
        (
            edited(lambda head: head["inputs"][1].update(datatype="BOOL")),
            "hour: has 24 bytes, but BOOL of shape [3] is 3",
        ),
        (edited(lambda head: head["inputs"][1].update(data=[1])), "hour: has both data and a binary_data_size"),
        (
            edited(lambda head: head["inputs"][1]["parameters"].update(binary_data_size=-1)),
            "hour: its binary_data_size is no",
        ),
        ((LENGTH, WHOLE.replace(b"\3\0\0\0far", b"\4\0\0\0far")), "row 2, place: ends beyond its bytes"),
        (
            (LENGTH, WHOLE.replace(b"\3\0\0\0far", b"\2\0\0\0far")),
            "place: 1 bytes follow its last text: its shape is [3]",
        ),
        ((LENGTH, WHOLE.replace(b"north", b"n\xffrth")), "row 0, place: is no UTF-8 at its byte 1"),
    ],
)
def test_bytes_that_do_not_match_are_told(mixed: Any, body: tuple[int, bytes], told: str) -> None:
    """Too short, too long, cut in two at the wrong place, of another datatype."""
    status, answer, _ = asked(mixed, body)
    assert (status, told in answer["error"]) == (400, True), answer


@pytest.mark.parametrize(("header", "size", "length"), [("", 7, 7), ("0", 7, 0), ("7", 7, 7)])
def test_the_header_says_how_much_is_json(header: str, size: int, length: int) -> None:
    """Without one, all."""
    assert inference_body.json_length(header, size) == length


@pytest.mark.parametrize("header", ["8", "-1", "1.5", "²", "x", "9" * 30])
def test_a_header_that_is_no_length_is_told(header: str) -> None:
    """More than there is, or no number."""
    with pytest.raises(inference_body.Refused) as refused:
        inference_body.json_length(header, 7)
    assert b"Inference-Header-Content-Length must be a number of bytes, at most 7" in inference_body.refusal(
        refused.value
    )


def test_faults_are_named_up_to_a_number(mixed: Any) -> None:
    """The text stays short; the list has more."""
    _, answer, _ = asked(mixed, [tensor(f"f{n}", [1], "FP64") for n in range(300)])
    assert answer["error"].endswith("; …")
    assert len(answer["error"]) < 1000
    assert len(answer["detail"]) == 100


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([*SENT, "a", "é", ""]),
    lambda deeper: st.lists(deeper, max_size=4),
    max_leaves=12,
)
SHAPES = st.lists(st.integers(-2, 4) | st.just(2**62), max_size=3)
ANY = st.fixed_dictionaries(
    {
        "name": st.sampled_from([*SENT, "keys", "x"]),
        "shape": SHAPES | JSON,
        "datatype": st.sampled_from([*DATATYPES, "FP65"]),
    },
    optional={
        "data": st.lists(JSON, max_size=9) | JSON,
        "parameters": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "binary_data_size": st.integers(-1, 40) | JSON,
                "content_type": st.sampled_from(["pd_json", "str", "x"]) | JSON,
            },
        ),
    },
)


@settings(max_examples=100, deadline=None)
@given(
    inputs=st.lists(ANY, max_size=8),
    more=st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), JSON),
    rest=st.binary(max_size=80),
    one=st.booleans(),
)
def test_whatever_is_posted_is_answered_or_refused(
    mixed: Any, numeric: Any, inputs: Any, more: Any, rest: bytes, one: bool
) -> None:
    """Nothing else is raised: it would end the replica, and each that is asked again."""
    text = json.dumps({"inputs": inputs, **more}).encode()
    status, answer, _ = asked(mixed if one else numeric, (len(text), text + rest))
    assert (status, "error" in answer) == (400, True) or (status == 200 and answer["outputs"])


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, len(WHOLE)), content=st.binary(min_size=1, max_size=6), shift=st.integers(-5, 5))
def test_bytes_that_are_changed_anywhere_are_answered_or_refused(
    mixed: Any, place: int, content: bytes, shift: int
) -> None:
    """In the JSON and behind it."""
    body = WHOLE[:place] + content + WHOLE[place + len(content) :]
    assert asked(mixed, (LENGTH + shift, body))[0] in (200, 400)
