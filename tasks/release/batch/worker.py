"""A script, for an interpreter of its own: scores chunks of rows with a release. No code of this project is used.

`python -I scoring.py <release>`, a chunk per line of its standard input: `{"rows": <Parquet>, "to": <Parquet>}`; when
the answers are written, a line of its standard output: `{"rows": n, "refused": m}`. Isolated (-I), so that the only
code it finds beside the installed packages is that of the release: its schema, its pipeline, its model file.

Rows are the features as columns; where the column `json` is not null, it is the row as a client would post it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MOST_FAULTS, LONGEST_NAME = 10, 100  # that are told of one row


class Scorer:
    """A release whose model is loaded."""

    def __init__(self, folder: Path) -> None:
        from tasks.runtime import model_file, request_schema

        self.facts: dict[str, Any] = json.loads((folder / "release.json").read_text(encoding="utf-8"))
        self.features = {name: self.facts["features"][name] for name in self.facts["columns"]}
        self.row = request_schema.request_row(self.features)
        own = f"models.{self.facts['name']}"
        self.pipeline = model_file.load(folder / "model.skops", self.facts["model_sha256"], own=own)
        self.columns = list(self._scored([request_schema.example_row(self.features)]))

    def score(self, table: pa.Table) -> pa.Table:
        """The prediction of every row, or its problem; a row per row."""
        import numpy as np
        import pyarrow as pa

        checked = [self._checked(*row) for row in self._rows(table)]
        good = np.array([isinstance(one, dict) for one in checked], dtype=bool)
        asked = [one for one in checked if isinstance(one, dict)]
        scored = self._scored(asked) if asked else {}
        answer = {name: _spread(scored[name], good) if asked else pa.nulls(len(good)) for name in self.columns}
        answer["problem"] = pa.array([one if isinstance(one, str) else None for one in checked], pa.string())
        return pa.table({name: values.cast(self._type(name)) for name, values in answer.items()})

    def _rows(self, table: pa.Table) -> Any:
        """Each row as columns give it, and as JSON."""
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
            return "; ".join(self._said(fault) for fault in faults)
        return read.__dict__

    def _said(self, fault: Any) -> str:
        from tasks.ground.errors import did_you_mean

        name = str(fault["loc"][0])[:LONGEST_NAME] if fault["loc"] else None
        problem = {
            "missing": "is missing",
            "extra_forbidden": f"is not known{did_you_mean(name or '', list(self.features))}",
            "json_invalid": f"the line is not JSON: {fault['msg'].removeprefix('Invalid JSON: ')}",
        }.get(fault["type"], fault["msg"])
        return problem if name is None else f"{name}: {problem}"

    def _scored(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The columns of the answer to valid rows."""
        import numpy as np

        from tasks.runtime import model_file

        frame = self._frame(rows)
        table = model_file.predict(self.pipeline, frame, self.facts["task"])
        answer: dict[str, Any] = {}
        if self.facts["task"] == "regression":
            told = table.rename(columns={"q10": "low", "q90": "high"})
            answer = {str(name): told[name].to_numpy() for name in told}
        else:
            classes = self.facts["classes"]
            top = table.to_numpy().argmax(axis=1)
            answer["prediction"] = np.array(classes, dtype=object)[top]
            if len(classes) == 2:
                answer["probability"] = table.iloc[:, 1].to_numpy()
            answer |= {str(name): table[name].to_numpy() for name in table}
        return {**answer, "unseen": self._unseen(frame)}

    def _frame(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        """As the pipeline was fitted on them: categories str, integers and numbers float64, null is missing."""
        import numpy as np
        import pandas as pd

        columns: dict[str, Any] = {}
        for name, feature in self.features.items():
            values = [row[name] for row in rows]
            is_category = feature["type"] == "category"
            columns[name] = pd.array(values, dtype="str") if is_category else np.array(values, dtype="float64")
        return pd.DataFrame(columns)

    def _unseen(self, frame: pd.DataFrame) -> Any:
        """Of each row, the features whose category the model was never trained on; null where there is none."""
        import numpy as np

        found = np.full(len(frame), None, dtype=object)
        for name, known in self.facts["categories"].items():
            for i in np.flatnonzero((frame[name].notna() & ~frame[name].isin(known)).to_numpy()):
                found[i] = [*(found[i] or []), name]
        return found

    def _type(self, name: str) -> Any:
        """The type of a column of the answer: the same in every chunk."""
        import pyarrow as pa

        if name in {"problem", "unseen"}:
            return pa.string() if name == "problem" else pa.list_(pa.string())
        if name != "prediction" or self.facts["task"] == "regression":
            return pa.float64()
        kinds = {type(one) for one in self.facts["classes"]}
        return {frozenset({int}): pa.int64(), frozenset({bool}): pa.bool_()}.get(frozenset(kinds), pa.string())


def _plain(column: Any, kind: str) -> list[Any]:
    """A column's values as JSON would have them: a whole number where the feature is an integer."""
    values: list[Any] = column.to_pylist()
    if kind != "integer":
        return values
    return [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]


def _spread(values: Any, good: Any) -> Any:
    """The values of the good rows at their places, null at the others."""
    import numpy as np
    import pyarrow as pa

    held = pa.array(values)
    places = np.cumsum(good) - 1
    return held.take(pa.array(places, mask=~good))


def main() -> None:
    """Load the release, then score what is asked until nobody asks any more."""
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever is printed meanwhile is no part of the answer
    sys.dont_write_bytecode = True  # a release stays as it is
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(folder))
    from pyarrow import parquet

    scorer = Scorer(folder)
    for line in sys.stdin:
        task = json.loads(line)
        answers = scorer.score(parquet.read_table(task["rows"]))
        parquet.write_table(answers, task["to"], compression="none")
        refused = len(answers) - answers["problem"].null_count
        answer_to.write(json.dumps({"rows": len(answers), "refused": refused}) + "\n")
        answer_to.flush()


if __name__ == "__main__":
    main()
