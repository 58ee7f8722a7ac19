"""Fast trees: ensembles of trees are scored by the shortest way for the few rows of a request, mostly by Treelite.

scikit-learn walks boosted trees from Python, one by one, and starts a pool of threads for a forest: 0.4 to 3 ms for a
row, for which Treelite takes 0.05 (docs/decisions/serving.md). The trees are the same, and so are the answers: to the
last bit where they are boosted, but for the rounding of its mean where they are a forest. What LightGBM's and
XGBoost's wrappers spend milliseconds on, their families know a shorter way for (families/).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.runtime import families

if TYPE_CHECKING:
    from tasks.runtime.families.family import Scorer

MOST_ROWS = 100
"""With more, scikit-learn, which goes through all rows of a tree at once, is as fast or faster."""

CLOSE = 1e-14
"""How far two answers may be apart, relatively and absolutely: a forest's mean may be rounded otherwise."""


def accelerate(pipeline: Any, score: Callable[[], npt.NDArray[np.float64]]) -> list[Any]:
    """Score the ensembles of a fitted pipeline by the shortest way when there are few rows.

    Args:
        pipeline: is changed. Ensembles are found wherever they are in its steps: calibrated, voting, a team's own.
        score: the pipeline's scores of some rows, not more than `MOST_ROWS`. Called before and after.

    Returns:
        The ensembles that are scored so; none where the scores differ, which is printed.
    """
    fast = [(ensemble, way) for ensemble in _ensembles(pipeline, set()) if (way := _fast(ensemble))]
    if not fast:
        return []
    title = families.of(fast[0][0]).title
    why = f"it does not answer as {title} does"
    try:
        before = score()
        scorers = [(ensemble, method, make()) for ensemble, (method, make) in fast]
        for ensemble, method, scorer in scorers:
            setattr(ensemble, method, scorer)
        after = score()
        near = max(_near(ensemble) for ensemble, _ in fast)
        if after.shape == before.shape and np.allclose(after, before, rtol=near, atol=near, equal_nan=True):
            return [ensemble for ensemble, _ in fast]
    except Exception as error:  # noqa: BLE001 - a team's own code may raise anything; a request will be told
        why = f"the pipeline fails on a row of its background ({type(error).__name__})"
        if type(error).__name__ == "TreeliteError":
            why = str(error)
    for ensemble, (method, _) in fast:
        vars(ensemble).pop(method, None)
    print(f"these trees are scored by {title}, not by Treelite: {why}", file=sys.stderr)
    return []


def _near(ensemble: Any) -> float:
    family = families.of(ensemble)
    return CLOSE if family is families.SKLEARN else family.tolerance


def _ensembles(root: Any, visited: set[int]) -> Iterator[Any]:
    """Every ensemble of trees that an object holds, at any depth."""
    from sklearn.base import BaseEstimator

    if id(root) in visited:
        return
    visited.add(id(root))
    if isinstance(root, (*_boosted(), *_forests())):
        yield root
    elif isinstance(root, list | tuple | dict):
        for member in root.values() if isinstance(root, dict) else root:
            yield from _ensembles(member, visited)
    elif families.of(root) is not families.SKLEARN:
        yield root
    elif isinstance(root, BaseEstimator) or type(root).__module__.startswith("sklearn."):
        yield from _ensembles(getattr(root, "__dict__", {}), visited)


def _fast(ensemble: Any) -> tuple[str, Callable[[], Scorer]] | None:
    """The method of an ensemble that is replaced, and what makes its replacement; None: it stays as it is."""
    family = families.of(ensemble)
    if family is families.SKLEARN:
        return (_replaced(ensemble), lambda: _scorer(ensemble)) if _is_plain(ensemble) else None
    if (method := family.fast_method(ensemble)) is None:
        return None
    return method, lambda: _for_few(family.fast(ensemble), getattr(ensemble, method), ensemble.n_features_in_)


def _for_few(fast: Scorer, slow: Scorer, features: int) -> Scorer:
    def score(rows: Any, *others: Any, **more: Any) -> npt.NDArray[np.float64]:
        return fast(rows) if not (others or more) and _are_few(rows, features) else slow(rows, *others, **more)

    return score


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


def _scorer(ensemble: Any) -> Scorer:
    import treelite

    name, is_boosted, features = _replaced(ensemble), type(ensemble) in _boosted(), ensemble.n_features_in_
    model, slow, predict = treelite.sklearn.import_model(ensemble), getattr(ensemble, name), treelite.gtil.predict
    if is_boosted:
        _move_baseline(model, ensemble.n_trees_per_iteration_)
        shape: tuple[int, ...] = (-1, ensemble.n_trees_per_iteration_)
    else:
        shape = (-1, ensemble.n_classes_) if name == "predict_proba" else (-1,)

    def score(rows: Any, *others: Any) -> npt.NDArray[np.float64]:
        if not _are_few(rows, features):
            return slow(rows, *others)  # type: ignore[no-any-return]
        matrix = rows
        if not is_boosted:  # a forest compares 32 bits, and refuses what is larger
            with np.errstate(over="ignore"):
                matrix = rows.astype(np.float32).astype(np.float64)
            if np.isinf(matrix).any():
                return slow(rows)  # type: ignore[no-any-return]
        scores: npt.NDArray[np.float64] = predict(model, matrix, nthread=1, pred_margin=is_boosted)
        return scores.reshape(shape)

    return score


def _move_baseline(model: Any, outputs: int) -> None:
    """Add the baseline of boosting to the first trees, in scikit-learn's order. Treelite would add it last."""
    header = model.get_header_accessor()
    baseline = header.get_field("base_scores")
    for tree, begin in zip(map(model.get_tree_accessor, range(outputs)), baseline, strict=True):
        tree.set_field("leaf_value", tree.get_field("leaf_value") + begin)
    header.set_field("base_scores", np.zeros_like(baseline))


def _are_few(rows: Any, features: int) -> bool:
    """Whether it is a matrix of few rows, as Treelite takes it; scikit-learn takes anything else, or refuses it."""
    is_matrix = type(rows) is np.ndarray and rows.dtype == np.float64 and rows.ndim == 2
    return is_matrix and rows.shape[1] == features and 0 < len(rows) <= MOST_ROWS
