"""Ensembles of trees, scored by Treelite where that is sooner: few rows at a time, as requests bring them.

scikit-learn walks boosted trees from Python, one by one, and starts a pool of threads for a forest: 0.4 to 3 ms for a
row, for which Treelite takes 0.05 (docs/decisions/serving.md). The trees are the same, and so are the answers: to the
last bit where they are boosted, but for the rounding of its mean where they are a forest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_ROWS = 100
"""With more, scikit-learn, which goes through all rows of a tree at once, is as fast or faster."""

CLOSE = 1e-14
"""How far two answers may be apart, relatively and absolutely: a forest's mean may be rounded otherwise."""


def hasten(pipeline: Any, score: Callable[[], npt.NDArray[np.float64]]) -> list[Any]:
    """Have Treelite answer for the ensembles of a fitted pipeline when few rows are asked for.

    Args:
        pipeline: is changed. Ensembles are found wherever they are in its steps: calibrated, voting, a team's own.
        score: the answers of the pipeline to some rows, not more than `MOST_ROWS`. Asked before and after.

    Returns:
        The ensembles that Treelite answers for; none if answers were not the same, which is told.
    """
    found = [one for one in _ensembles(pipeline, set()) if _is_plain(one)]
    if not found:
        return []
    import treelite

    why = "it does not answer as scikit-learn does"
    try:
        before = score()
        for one, (name, scorer) in [(one, _scorer(one)) for one in found]:
            setattr(one, name, scorer)
        after = score()
        if after.shape == before.shape and np.allclose(after, before, rtol=CLOSE, atol=CLOSE, equal_nan=True):
            return found
    except treelite.TreeliteError as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001 - a team's own code may raise anything; when it is asked, that is answered
        why = f"the pipeline fails on a row of its background ({type(error).__name__})"
    for one in found:
        vars(one).pop(_replaced(one), None)
    print(f"these trees are scored by scikit-learn, not by Treelite: {why}", file=sys.stderr)
    return []


def _ensembles(of: Any, seen: set[int]) -> Iterator[Any]:
    """Every ensemble of trees that an object holds, at any depth."""
    from sklearn.base import BaseEstimator

    if id(of) in seen:
        return
    seen.add(id(of))
    if isinstance(of, (*_boosted(), *_forests())):
        yield of
    elif isinstance(of, list | tuple | dict):
        for one in of.values() if isinstance(of, dict) else of:
            yield from _ensembles(one, seen)
    elif isinstance(of, BaseEstimator) or type(of).__module__.startswith("sklearn."):
        yield from _ensembles(getattr(of, "__dict__", {}), seen)


def _boosted() -> tuple[type, ...]:
    from sklearn import ensemble

    return (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor)


def _forests() -> tuple[type, ...]:
    from sklearn import ensemble as of

    return (of.RandomForestClassifier, of.RandomForestRegressor, of.ExtraTreesClassifier, of.ExtraTreesRegressor)


def _is_plain(ensemble: Any) -> bool:
    """Whether it is fitted, and Treelite knows all that it does: no type of a team's own, no category as such."""
    if type(ensemble) in _boosted():
        return hasattr(ensemble, "_predictors") and ensemble.is_categorical_ is None
    return type(ensemble) in _forests() and getattr(ensemble, "n_outputs_", None) == 1


def _replaced(ensemble: Any) -> str:
    """The method that Treelite stands in for. Of boosted trees what comes before the link: its own has 32 bits."""
    if type(ensemble) in _boosted():
        return "_raw_predict"
    return "predict_proba" if hasattr(ensemble, "predict_proba") else "predict"


def _scorer(ensemble: Any) -> tuple[str, Callable[..., npt.NDArray[np.float64]]]:
    """That method's name, and what takes its place."""
    import treelite

    name, model = _replaced(ensemble), treelite.sklearn.import_model(ensemble)
    if type(ensemble) in _boosted():
        _begin_at_the_baseline(model, ensemble.n_trees_per_iteration_)
    slow, predict = getattr(ensemble, name), treelite.gtil.predict
    is_boosted, features = type(ensemble) in _boosted(), ensemble.n_features_in_
    shape = {
        "_raw_predict": (-1, getattr(ensemble, "n_trees_per_iteration_", 1)),
        "predict_proba": (-1, getattr(ensemble, "n_classes_", 1)),
        "predict": (-1,),
    }[name]

    def score(rows: Any, *others: Any) -> npt.NDArray[np.float64]:
        if not _are_few(rows, features):
            return slow(rows, *others)  # type: ignore[no-any-return]
        matrix = rows
        if not is_boosted:  # a forest compares 32 bits, and refuses what is larger
            with np.errstate(over="ignore"):
                matrix = rows.astype(np.float32).astype(np.float64)
            if np.isinf(matrix).any():
                return slow(rows)  # type: ignore[no-any-return]
        scored: npt.NDArray[np.float64] = predict(model, matrix, nthread=1, pred_margin=is_boosted)
        return scored.reshape(shape)

    return name, score


def _begin_at_the_baseline(model: Any, outputs: int) -> None:
    """Add where boosting begins to the first trees: as scikit-learn adds it up. Treelite would add it last."""
    header = model.get_header_accessor()
    baseline = header.get_field("base_scores")
    for tree, begin in zip(map(model.get_tree_accessor, range(outputs)), baseline, strict=True):
        tree.set_field("leaf_value", tree.get_field("leaf_value") + begin)
    header.set_field("base_scores", np.zeros_like(baseline))


def _are_few(rows: Any, features: int) -> bool:
    """Whether it is a matrix of few rows, as Treelite takes it; anything else scikit-learn takes, or refuses."""
    is_matrix = type(rows) is np.ndarray and rows.dtype == np.float64 and rows.ndim == 2
    return is_matrix and rows.shape[1] == features and 0 < len(rows) <= MOST_ROWS
