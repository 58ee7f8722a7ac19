"""Scorer of a release, as a script for an interpreter of its own: no code of this project is imported here.

`python -I scorer_worker.py <release>` reads a task per line: `{"rows": <Parquet>, "to": <Parquet>, "as": "requests"}`,
and prints an empty line when the answers are written. Isolated (-I), it finds the installed packages and, of this
project, only the code in the release. Rows are the features as columns. As "requests" they are checked and answered as
online; where the column `json` is not null, it is the row as a client would post it. As a "frame" the model predicts
them as its evaluation did.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_ANSWERS = {"q10": "low", "q90": "high"}
"""Prediction column → its name in a part, where that is another."""

MOST_FAULTS, LONGEST_NAME = 10, 100  # that are reported of one row


class ReleaseScorer:
    """A release whose model is loaded."""

    def __init__(self, folder: Path) -> None:
        self.facts: dict[str, Any] = json.loads((folder / "release.json").read_text(encoding="utf-8"))
        self.model_file = _module("model_file", "model_file")
        own = f"models.{self.facts['name']}"
        self.pipeline = self.model_file.load(folder / "model.skops", self.facts["model_sha256"], own=own)

    @cached_property
    def features(self) -> dict[str, Any]:
        """The features in the order of the model's columns."""
        return {name: self.facts["features"][name] for name in self.facts["columns"]}

    @cached_property
    def types(self) -> Any:
        """The release's feature types; older releases have none but categories and numbers."""
        try:
            return import_module("tasks.runtime.feature_types")
        except ModuleNotFoundError:
            return None

    @cached_property
    def row(self) -> Any:
        """The schema of a row."""
        return _module("request_schema", "schema").request_row(self.features)

    @cached_property
    def columns(self) -> list[str]:
        """The columns of an answer, also where a chunk has no valid row."""
        return list(self._scored(self._frame([_module("request_schema", "schema").example_row(self.features)])))

    def frame(self, table: pa.Table) -> pa.Table:
        """The model's predictions of rows that are not checked."""
        import pyarrow as pa

        return pa.Table.from_pandas(self._predicted(table.to_pandas()))

    def _predicted(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The model's predictions; releases from before there was a decision take the most probable class."""
        decision = (self.facts["decision"],) if "decision" in self.facts else ()
        answers: pd.DataFrame = self.model_file.predict(self.pipeline, frame, self.facts["task"], *decision)
        return answers

    def requests(self, table: pa.Table) -> pa.Table:
        """The prediction of every row, or its problem; a row per row."""
        import numpy as np
        import pyarrow as pa

        plain = self._plainly_valid(table)
        others = table.filter(pa.array(~plain))
        checked = [self._checked(*row) for row in self._rows(others)]
        valid = [row for row in checked if isinstance(row, dict)]
        problems = np.full(len(table), None, dtype=object)
        problems[~plain] = [None if isinstance(row, dict) else row for row in checked]
        places = np.cumsum(plain) - 1  # in the frame: first the plain rows, then the others
        is_valid = plain.copy()
        is_valid[~plain] = [isinstance(row, dict) for row in checked]
        places[is_valid & ~plain] = plain.sum() + np.arange(len(valid))
        scored = self._scored(self._frames(table.filter(pa.array(plain)), valid)) if is_valid.any() else {}
        order = pa.array(places, mask=~is_valid)
        answer = {n: pa.array(scored[n]).take(order) if scored else pa.nulls(len(table)) for n in self.columns}
        answer["problem"] = pa.array(problems, pa.string())
        return pa.table({name: values.cast(self._type(name)) for name, values in answer.items()})

    def _plainly_valid(self, table: pa.Table) -> Any:
        """Of each row, whether it is valid by a look at whole columns; the schema is asked about the others."""
        import numpy as np
        import pyarrow.compute as pc

        limits = getattr(_module("request_schema", "schema"), "limits", None)
        known = self.types is not None and set(self.features) <= set(table.column_names)
        kinds = {name: feature["type"] for name, feature in self.features.items()}
        if limits is None or not known or not all(_is_plain(table[name].type, kinds[name]) for name in kinds):
            return np.zeros(len(table), dtype=bool)
        plain = np.ones(len(table), dtype=bool)
        if "json" in table.column_names:
            plain &= table["json"].is_null().to_numpy()
        for name, feature in self.features.items():
            within = _within(table[name], feature["type"], limits(feature))
            plain &= pc.fill_null(within, bool(feature.get("nullable"))).to_numpy()
        return plain

    def _frames(self, plain: pa.Table, valid: list[dict[str, Any]]) -> pd.DataFrame:
        """The frame of the plain rows, and below them of those that the schema read."""
        import pandas as pd

        if not len(plain):
            return self._frame(valid)
        columns = {name: _values(plain[name], feature["type"]) for name, feature in self.features.items()}
        frame = pd.DataFrame(columns)
        return pd.concat([frame, self._frame(valid)], ignore_index=True) if valid else frame

    def _rows(self, table: pa.Table) -> Any:
        texts = table["json"].to_pylist() if "json" in table.column_names else [None] * len(table)
        if not set(self.features) <= set(table.column_names):
            return (({}, text) for text in texts)  # all of it is JSON
        columns = [_plain(table[name], feature["type"]) for name, feature in self.features.items()]
        names = list(self.features)
        return ((dict(zip(names, values, strict=True)), text) for *values, text in zip(*columns, texts, strict=True))

    def _checked(self, row: dict[str, Any], text: str | None) -> dict[str, Any] | str:
        """A row as the model takes it; or what is wrong with it, as /predict would say."""
        from pydantic import ValidationError

        try:
            read = self.row.model_validate(row) if text is None else self.row.model_validate_json(text)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)[:MOST_FAULTS]
            return "; ".join(self._problem(fault) for fault in faults)
        return dict(read.__dict__)

    def _problem(self, fault: Any) -> str:
        did_you_mean = _module("errors", "errors").did_you_mean
        name = str(fault["loc"][0])[:LONGEST_NAME] if fault["loc"] else None
        problem = {
            "missing": "is missing",
            "extra_forbidden": f"is not known{did_you_mean(name or '', list(self.features))}",
            "json_invalid": f"the line is not JSON: {fault['msg'].removeprefix('Invalid JSON: ')}",
        }.get(fault["type"], fault["msg"])
        return problem if name is None else f"{name}: {problem}"

    def _scored(self, frame: pd.DataFrame) -> dict[str, Any]:
        table = self._predicted(frame)
        outputs = self.facts.get("outputs")
        if outputs is None:
            return {**self._answer(table, self.facts["classes"]), "unseen": self._unseen(frame)}
        answer: dict[str, Any] = {}
        for output in outputs:  # of several labels, each by its name
            own = table[[name for name in table if str(name).startswith(f"{output}:")]]
            classes = (self.facts["classes"] or {}).get(output)
            of_output = self._answer(own.rename(columns=lambda n: n.partition(":")[2]), classes)
            answer |= {f"{output}:{name}": values for name, values in of_output.items()}
        return {**answer, "unseen": self._unseen(frame)}

    def _answer(self, table: pd.DataFrame, classes: list[Any] | None) -> dict[str, Any]:
        """What is answered of one label, from the model's predictions of it."""
        import numpy as np

        answer: dict[str, Any] = {}
        if self.facts["task"] == "classification":
            classes = classes or []
            decided = table.pop("prediction").to_numpy(dtype=object) if "prediction" in table else None
            most_probable = np.array(classes, dtype=object)[table.to_numpy().argmax(axis=1)]
            answer["prediction"] = most_probable if decided is None else decided
            if len(classes) == 2:
                answer["probability"] = table.iloc[:, 1].to_numpy()
        return answer | {_ANSWERS.get(str(name), str(name)): table[name].to_numpy() for name in table}

    def _frame(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        """As the pipeline was fitted on them: categories str, integers and numbers float64, null is missing."""
        import numpy as np
        import pandas as pd

        if self.types is not None:
            frame: pd.DataFrame = self.types.frame({n: [row[n] for row in rows] for n in self.features}, self.features)
            return frame
        columns: dict[str, Any] = {}
        for name, feature in self.features.items():
            values = [row[name] for row in rows]
            is_category = feature["type"] == "category"
            columns[name] = pd.array(values, dtype="str") if is_category else np.array(values, dtype="float64")
        return pd.DataFrame(columns)

    def _unseen(self, frame: pd.DataFrame) -> Any:
        """Of each row, the features whose category the model was never trained on; null where there is none."""
        import numpy as np

        unseen = np.full(len(frame), None, dtype=object)
        for name, trained in self.facts["categories"].items():
            for i in np.flatnonzero((frame[name].notna() & ~frame[name].isin(trained)).to_numpy()):
                unseen[i] = [*(unseen[i] or []), name]
        return unseen

    def _type(self, name: str) -> Any:
        """The type of a column of the answer: the same in every chunk."""
        import pyarrow as pa

        if name in {"problem", "unseen"}:
            return pa.string() if name == "problem" else pa.list_(pa.string())
        output, _, own = name.rpartition(":") if "outputs" in self.facts else ("", "", name)
        if own != "prediction" or self.facts["task"] != "classification":
            return pa.float64()
        classes: list[Any] = self.facts["classes"][output] if output else self.facts["classes"]
        kinds = {type(label) for label in classes}
        return {frozenset({int}): pa.int64(), frozenset({bool}): pa.bool_()}.get(frozenset(kinds), pa.string())


def _module(name: str, before: str) -> Any:
    """A module of the release's runtime; releases from before state version 2 have it in `tasks`, by another name."""
    try:
        return import_module(f"tasks.runtime.{name}")
    except ModuleNotFoundError:
        return import_module(f"tasks.{before}")


def _is_plain(type_: Any, kind: str) -> bool:
    """Whether a column's values are checked as a whole: they are of the feature's type already."""
    import pyarrow as pa

    text, types = pa.string(), {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
    types |= {"category": text, "text": text}
    return bool(types.get(kind) == type_)


def _within(column: Any, kind: str, limits: dict[str, Any]) -> Any:
    """Of each value whether it keeps the schema's limits; null where it is missing."""
    import pyarrow.compute as pc

    if kind == "boolean":
        return pc.is_valid(column) if not column.null_count else pc.or_(column, pc.invert(column))
    measure, least, most = pc.utf8_length(column) if kind in {"category", "text"} else column, "ge", "le"
    if kind in {"category", "text"}:
        least, most = "min_length", "max_length"
    within = pc.is_finite(column) if kind == "number" else pc.equal(measure, measure)
    if kind == "integer":  # beyond, a float64 is not exact
        within = pc.and_(pc.less_equal(column, 2**53), pc.greater_equal(column, -(2**53)))
    if least in limits:
        within = pc.and_(within, pc.greater_equal(measure, limits[least]))
    return pc.and_(within, pc.less_equal(measure, limits[most])) if most in limits else within


def _values(column: Any, kind: str) -> Any:
    """A plain column's values as a pipeline was fitted on them: texts str, others float64."""
    import pyarrow as pa

    if kind in {"category", "text"}:
        return column.to_pandas().astype("str")
    return column.cast(pa.float64()).to_numpy()


def _plain(column: Any, kind: str) -> list[Any]:
    """A column's values as JSON would have them: a whole number where the feature is an integer."""
    values: list[Any] = column.to_pylist()
    if kind != "integer":
        return values
    return [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]


def main() -> None:
    """Load the release, then score one chunk after the other until the input ends."""
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever is printed meanwhile is no part of the answer
    sys.dont_write_bytecode = True  # a release stays as it is
    sys.path.insert(0, sys.argv[1])
    from pyarrow import parquet

    scorer = ReleaseScorer(Path(sys.argv[1]))
    for line in sys.stdin:
        task = json.loads(line)
        answers = getattr(scorer, task["as"])(parquet.read_table(task["rows"]))
        parquet.write_table(answers, task["to"], compression="none")
        print(file=answer_to, flush=True)


if __name__ == "__main__":
    main()
