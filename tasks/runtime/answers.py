"""Answers: what a model of each task gives for a row, as columns of a table and as JSON.

| task | columns of the table | in JSON |
| --- | --- | --- |
| classification | `p_<class>`, and `prediction` where it is not always the most probable class | `prediction`, `probabilities`; of two classes `probability` |
| regression, forecast | `prediction`, perhaps `q10` and `q90` | `prediction`, perhaps `low` and `high` |
| anomaly | `prediction` (1: an alert), `anomaly_score` | `prediction`, `score` |
| several labels | those of each label, as `<label>:prediction` | label → its `prediction`; label → its `probabilities` |

How columns are named is in answer_columns.py.
"""  # noqa: E501 - a table

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

from tasks.runtime import decisions
from tasks.runtime.answer_columns import column

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from sklearn.pipeline import Pipeline

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

NUMBERS = ("prediction", "q10", "q90")
ALERTS = ("prediction", "anomaly_score")


class Answers(Protocol):
    """What a task answers."""

    def values(self, pipeline: Pipeline, columns: Any) -> Floats:
        """The numbers of each row, of whatever the pipeline's first step takes: shape (rows, numbers)."""

    def decided(self, pipeline: Pipeline, columns: Any) -> Floats:
        """As `values`; behind them the place of each class that is decided for, where numbers do not tell it."""

    def table(self, pipeline: Pipeline, frame: pd.DataFrame) -> pd.DataFrame:
        """Prediction columns for the rows of a frame, with its index."""

    def answer(self, scores: list[float]) -> tuple[dict[str, Any], float]:
        """A row of `decided` as JSON has it, and the number by which a release counts its predictions."""

    def explained(self, scores: list[float], output: str | None = None, /) -> tuple[str, int]:
        """What of a row of `decided` is explained, and which of its numbers that is."""


def of(
    task: str,
    pipeline: Pipeline,
    decision: decisions.Decision | None = None,
    classes: list[Any] | dict[str, list[Any]] | None = None,
) -> Answers:
    """The answers of a fitted pipeline.

    Args:
        task: of params.yaml.
        pipeline: its last step is an `Outputs` where there are several labels.
        decision: as the release has it; None: for the most probable class.
        classes: as the release has them; None: as the pipeline has them. Several labels: by label.
    """
    last = pipeline[-1]
    if hasattr(last, "of_classes") and not last.of_classes:
        return _AnswersToSeveral({name: _NumberAnswers() for name in last.names})
    if hasattr(last, "of_classes"):
        of_labels = classes if isinstance(classes, dict) else dict(zip(last.names, last.classes_, strict=True))
        return _AnswersToSeveral({name: _ClassAnswers(of_labels[name], decision) for name in last.names})
    if task == "classification":
        known = classes if isinstance(classes, list) else sorted(pipeline.classes_.tolist())
        return _ClassAnswers(known, decision, decisions.class_order(pipeline))
    return _AlertAnswers() if task == "anomaly" else _NumberAnswers()


class _ClassAnswers:
    """Of one label that is a class."""

    def __init__(self, classes: list[Any], decision: decisions.Decision | None, order: Ints | None = None) -> None:
        """`order` is `decisions.class_order` of the pipeline."""
        self.classes, self.texts, self.order = classes, [str(each) for each in classes], order
        self.decision = decision or decisions.MOST_PROBABLE
        self.threshold = self.decision["threshold"] if isinstance(self.decision, dict) else None
        self.is_asked = self.decision == decisions.PREDICT

    def values(self, pipeline: Pipeline, columns: Any) -> Floats:
        return decisions.probabilities(pipeline, columns, self.order)

    def decided(self, pipeline: Pipeline, columns: Any) -> Floats:
        scores = self.values(pipeline, columns)
        return _beside(scores, decisions.positions(pipeline, columns)) if self.is_asked else scores

    def table(self, pipeline: Pipeline, frame: pd.DataFrame) -> pd.DataFrame:
        matrix = self.values(pipeline, frame)
        places = decisions.positions(pipeline, frame) if self.is_asked else None
        return self.columns(matrix, places, frame.index)

    def columns(self, matrix: Floats, places: Ints | None, index: Any) -> pd.DataFrame:
        """The columns of probabilities, and of the places of the classes that `predict` decides for."""
        import numpy as np
        import pandas as pd

        answers = pd.DataFrame(matrix, columns=[f"p_{text}" for text in self.texts], index=index)
        if self.decision == decisions.MOST_PROBABLE:
            return answers
        at = decisions.by_probability(self.decision, matrix) if places is None else places
        classes = np.array(self.classes, dtype=object)
        return answers.assign(prediction=pd.Series(classes[at], index=index).infer_objects())

    def answer(self, scores: list[float]) -> tuple[dict[str, Any], float]:
        place = self.place(scores)
        if len(self.classes) == 2:
            probability = scores[1]
            shares = dict(zip(self.texts, scores, strict=True))
            return {"prediction": self.classes[place], "probability": probability, "probabilities": shares}, probability
        shares = dict(zip(self.texts, scores, strict=True))
        return {"prediction": self.classes[place], "probabilities": shares}, max(scores)

    def place(self, scores: list[float]) -> int:
        """The place of the class that is decided for; takes it from the scores where it is a number of its own."""
        if self.is_asked:
            return int(scores.pop())
        return scores.index(max(scores)) if self.threshold is None else int(scores[1] >= self.threshold)

    def explained(self, scores: list[float], _output: str | None = None, /) -> tuple[str, int]:
        """The probability of the second of two classes, or of the answer."""
        place = self.place(scores)
        at = 1 if len(self.classes) == 2 else place
        return f"probability of {self.classes[at]}", at


class _NumberAnswers:
    """Of one label that is a number."""

    def values(self, pipeline: Pipeline, columns: Any) -> Floats:
        import numpy as np

        if not hasattr(pipeline[-1], "predict_quantiles"):
            return np.asarray(pipeline.predict(columns), dtype=np.float64)[:, None]
        matrix = pipeline[:-1].transform(columns) if len(pipeline) > 1 else columns
        return np.column_stack([pipeline[-1].predict(matrix), pipeline[-1].predict_quantiles(matrix)])

    decided = values

    def table(self, pipeline: Pipeline, frame: pd.DataFrame) -> pd.DataFrame:
        return _named(self.values(pipeline, frame), NUMBERS, frame.index)

    def answer(self, scores: list[float]) -> tuple[dict[str, Any], float]:
        return dict(zip(("prediction", "low", "high"), scores, strict=False)), scores[0]

    def explained(self, _scores: list[float], _output: str | None = None, /) -> tuple[str, int]:
        return "prediction", 0


class _AlertAnswers:
    """Of rows that may be anomalies: the decision function with its sign changed; above 0 is an alert."""

    def values(self, pipeline: Pipeline, columns: Any) -> Floats:
        import numpy as np

        score = -np.asarray(pipeline.decision_function(columns), dtype=np.float64)
        return np.column_stack([score > 0, score])

    decided = values

    def table(self, pipeline: Pipeline, frame: pd.DataFrame) -> pd.DataFrame:
        return _named(self.values(pipeline, frame), ALERTS, frame.index)

    def answer(self, scores: list[float]) -> tuple[dict[str, Any], float]:
        return {"prediction": int(scores[0]), "score": scores[1]}, scores[1]

    def explained(self, _scores: list[float], _output: str | None = None, /) -> tuple[str, int]:
        return "score", 1


class _AnswersToSeveral:
    """Of several labels: what each of them answers, by its name."""

    def __init__(self, parts: Mapping[str, _ClassAnswers | _NumberAnswers]) -> None:
        self.parts = parts
        ends = list(accumulate(len(part.classes) if isinstance(part, _ClassAnswers) else 1 for part in parts.values()))
        self.spans = dict(zip(parts, map(slice, [0, *ends], ends), strict=False))
        self.is_asked = any(isinstance(part, _ClassAnswers) and part.is_asked for part in parts.values())

    def values(self, pipeline: Pipeline, columns: Any) -> Floats:
        import numpy as np

        if pipeline[-1].of_classes:
            return np.hstack(pipeline.predict_proba(columns))
        return np.asarray(pipeline.predict(columns), dtype=np.float64)

    def decided(self, pipeline: Pipeline, columns: Any) -> Floats:
        scores = self.values(pipeline, columns)
        return _beside(scores, decisions.positions(pipeline, columns)) if self.is_asked else scores

    def table(self, pipeline: Pipeline, frame: pd.DataFrame) -> pd.DataFrame:
        import pandas as pd

        matrix = self.values(pipeline, frame)
        places = decisions.positions(pipeline, frame) if self.is_asked else None
        tables = []
        for i, (name, part) in enumerate(self.parts.items()):
            own = matrix[:, self.spans[name]]
            if isinstance(part, _ClassAnswers):
                of_label = part.columns(own, None if places is None else places[:, i], frame.index)
            else:
                of_label = _named(own, NUMBERS, frame.index)
            tables.append(of_label.add_prefix(column(name, "")))
        return pd.concat(tables, axis=1)

    def answer(self, scores: list[float]) -> tuple[dict[str, Any], float]:
        places = scores[-len(self.parts) :] if self.is_asked else []
        given: dict[str, dict[str, Any]] = {}
        total = 0.0
        for i, (name, part) in enumerate(self.parts.items()):
            of_label, main = part.answer([*scores[self.spans[name]], *places[i : i + 1]])
            total += main
            for key in ("prediction", "probabilities"):
                if key in of_label:
                    given.setdefault(key, {})[name] = of_label[key]
        return dict(given), total / len(self.parts)

    def explained(self, scores: list[float], output: str | None = None, /) -> tuple[str, int]:
        assert output is not None  # the request's schema asks for it
        i, span = list(self.parts).index(output), self.spans[output]
        places = scores[-len(self.parts) :] if self.is_asked else []
        what, at = self.parts[output].explained([*scores[span], *places[i : i + 1]])
        return f"{output}: {what}", span.start + at


def _named(matrix: Floats, names: tuple[str, ...], index: Any) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(matrix, columns=names[: matrix.shape[1]], index=index)


def _beside(scores: Floats, places: Ints) -> Floats:
    import numpy as np

    return np.column_stack([scores, places])
