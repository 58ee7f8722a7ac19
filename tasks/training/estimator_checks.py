"""Checks of a pipeline before it is fitted on all rows: what cannot be served is told before anything long runs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from tasks.ground.errors import ModelCodeError
from tasks.ground.task_kinds import KINDS
from tasks.modelling import metrics
from tasks.runtime import model_file

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from tasks.ground import params

FEW = 300
"""Rows of the trial."""


def refuse_before_fit(pipeline: Pipeline, name: str, model: params.Model, *, weighted: bool) -> None:
    """Refuse an estimator that cannot do the task, by what it says of itself.

    Raises:
        ModelCodeError: says what it is, and what to name instead.
    """
    from sklearn.utils import get_tags

    last, where = pipeline[-1], f"params.yaml: models.{name}.estimator"
    try:
        kind = get_tags(last).estimator_type
    except (AttributeError, TypeError):  # a team's own, without tags: the fit says what it can do
        kind = None
    wanted = KINDS[model.task].estimator
    if kind and kind != wanted:
        raise ModelCodeError(
            f"{where}: {model.estimator.class_} is a {kind.replace('_', ' ')}, and the task is {model.task}, which "
            f"needs a {wanted}: name one, or another task"
        )
    if model.task == "classification":
        refuse_without_probabilities(last, name, model)
    if weighted and not _takes_weights(last):
        raise ModelCodeError(
            f"{where}: models/{name}/rows gives weights, and {type(last).__name__} takes none when it is fitted "
            f"(sample_weight). Name an estimator that does, or leave the column weight out of the rows"
        )


def refuse_without_probabilities(last: Any, name: str, model: params.Model) -> None:
    """Refuse a classifier that has no probabilities.

    Raises:
        ModelCodeError: says how it gets them.
    """
    if hasattr(last, "predict_proba") or getattr(last, "final_estimator", last) is None:
        return  # a StackingClassifier without a last estimator of its own gets one that has them when it is fitted
    raise ModelCodeError(
        f"params.yaml: models.{name}.estimator: {model.estimator.class_} has no predict_proba as it is, which a "
        f"classification needs: name another class, or other params; or wrap it in models/{name}/pipeline: "
        f"CalibratedClassifierCV(estimator)"
    )


def _takes_weights(estimator: Any) -> bool:
    from sklearn.pipeline import Pipeline
    from sklearn.utils.validation import has_fit_parameter

    if isinstance(estimator, Pipeline):  # it would pass on what is named after its own last step
        return False
    return bool(has_fit_parameter(estimator, "sample_weight"))


def few(learn: pd.DataFrame, task: str) -> pd.DataFrame | None:
    """Some rows of each class for a trial; None where there are few anyway."""
    import numpy as np

    if len(learn) <= 4 * FEW:
        return None
    if task != "classification":
        return learn.iloc[:: -(-len(learn) // FEW)]
    if "label" not in learn:  # of several labels, each class of each occurs soon enough
        return learn.iloc[:: -(-len(learn) // FEW)]
    each = max(FEW // learn["label"].nunique(), 10)
    return learn.iloc[np.sort(np.concatenate([own[:: -(-len(own) // each)] for own in _by_class(learn)]))]


def _by_class(learn: pd.DataFrame) -> list[Any]:
    return list(learn.groupby(learn["label"].to_numpy()).indices.values())


def try_on(
    few: pd.DataFrame, name: str, model: params.Model, pipeline: Pipeline, faults: tuple[type[Exception], ...]
) -> None:
    """Fit it on few rows and write it down: what fails here for certain fails after hours as well.

    A fit that fails on few rows may succeed on all, so that only parameters that no rows make right are told here.

    Raises:
        ModelCodeError: a parameter is wrong, or the model file could not hold what was fitted.
    """
    from sklearn.utils._param_validation import InvalidParameterError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline.fit(few[model.columns], metrics.label_of(few))
    except InvalidParameterError as error:
        raise ModelCodeError(
            f"params.yaml: models.{name}.estimator.params, or models/{name}/pipeline: {error}"
        ) from None
    except faults:
        return
    refuse_unwritable(pipeline, name)


def refuse_unwritable(pipeline: Pipeline, name: str) -> None:
    """Refuse what the model file cannot hold: a lambda, a scorer that is a function, a type that nobody has read.

    Raises:
        ModelCodeError: names the types, and what to do.
    """
    try:
        types = model_file.unreviewed_types(pipeline, own=f"models.{name}")
    except model_file.UNREADABLE as error:
        why = f"{type(error).__name__}: {error}"
    else:
        if not types:
            return
        why = _of_types(types, name)
    raise ModelCodeError(f"models/{name}/pipeline: what is fitted cannot be written to a model file: {why}")


def _of_types(types: list[str], name: str) -> str:
    if nameless := [each for each in types if "<" in each]:
        return (
            f"it holds a function without a name of its own ({', '.join(nameless)}): write it as a function of a file "
            f"below models/{name}/pipeline"
        )
    return (
        f"it holds {', '.join(types)}, which nobody has read yet: use another (a scorer: name it by its text, as "
        f"scoring='f1'), or this. {model_file.advice(f'models.{name}')}"
    )
