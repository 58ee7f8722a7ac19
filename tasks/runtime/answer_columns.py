"""Names of columns of answers and labels, in tables.

A model of one label has the columns `label`, `prediction`, `p_<class>` and so on. Of several labels each has these by
its name: `rain:label`, `rain:p_yes`.
"""

from __future__ import annotations

from collections.abc import Iterable

COLUMNS = ("prediction", "q10", "q90", "anomaly_score")
"""Prediction columns that are called the same in every model; those of classes are p_<class>."""

OTHERS = ("slice",)
"""What stands before a colon and is no label: the monitor keeps slices as `slice:<name>`."""

IN_JSON = {"q10": "low", "q90": "high", "anomaly_score": "score"}
"""Prediction column → its name in an answer, where that is another."""


def column(output: str, name: str) -> str:
    """The column of one of several labels: `rain`, `prediction` → `rain:prediction`."""
    return f"{output}:{name}"


def split(name: str) -> tuple[str, str]:
    """The label that a column is of, and its name for that label alone; "" where it is of the only label, or of none.

    `rain:p_yes` → `rain`, `p_yes`. A class may hold a colon, the name of a label none.
    """
    output, _, own = name.partition(":")
    is_of_label = output and output not in OTHERS and not output.startswith("p_")
    return (output, own) if is_of_label and (own == "label" or is_plain(own)) else ("", name)


def is_plain(name: str) -> bool:
    """Whether a column is a prediction column of a model of one label."""
    return name.startswith("p_") or name in COLUMNS


def is_prediction(name: str) -> bool:
    """Whether a column is a prediction column, of whichever label."""
    return is_plain(split(name)[1])


def is_own(name: str) -> bool:
    """Whether a column is of labels or predictions, so that nothing else may be called so."""
    return is_prediction(name) or split(name)[1] == "label"


def labels(names: Iterable[str]) -> list[str]:
    """Those of some columns that are labels: `label`, or `<label>:label` of each of several."""
    return [name for name in names if split(name)[1] == "label"]
