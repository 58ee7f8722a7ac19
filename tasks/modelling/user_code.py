"""A team's own code, loaded by the name of the model: models/<name>/rows and models/<name>/pipeline."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from tasks.ground.errors import ModelCodeError
from tasks.ground.params import Estimator, Model
from tasks.runtime import families
from tasks.runtime.errors import did_you_mean
from tasks.runtime.feature_types import table_columns

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

    from tasks.tables.partitions import WantedPartition


def rows_function(
    name: str, model: Model, partition: WantedPartition
) -> Callable[[dict[str, pd.DataFrame]], pd.DataFrame]:
    """models/<name>/rows: raw tables → rows of one partition, with the model's options from params.yaml applied.

    A function with a parameter `partition` is told which one, unless an option has that name.
    """
    make = _attribute(f"models.{name}.rows", "rows")
    takes = "partition" in signature(make).parameters
    return partial(make, **({"partition": partition} if takes else {}) | model.options)


def build_pipeline(name: str, model: Model) -> Pipeline:
    """models/<name>/pipeline: an unfitted pipeline from request columns to prediction.

    Raises:
        ModelCodeError: it cannot be made, or cannot be fitted on this machine.
    """
    build = _attribute(f"models.{name}.pipeline", "build")
    pipeline: Pipeline = build(make_estimator(model.estimator), **_columns_by_kind(name, model, build))
    if problem := families.problem(pipeline):
        raise ModelCodeError(f"params.yaml: models.{name}.estimator, or models/{name}/pipeline: {problem}")
    families.prepare(pipeline)
    return pipeline


def _columns_by_kind(name: str, model: Model, build: Callable[..., Any]) -> dict[str, Any]:
    """What `build` takes of the columns: `categories` and `numbers`, and the other kinds if it names them.

    Booleans are 1 and 0: they are among the numbers of a function that does not take `booleans`.

    Raises:
        ModelCodeError: params.yaml has features of a kind that the function does not take.
    """
    vectors = {f: table_columns({f: described}) for f, described in model.described().items() if f in _vectors(model)}
    kinds: dict[str, Any] = {
        "booleans": model.of_type("boolean"),
        "datetimes": model.of_type("datetime"),
        "texts": model.of_type("text"),
        "vectors": vectors,
    }
    taken = signature(build).parameters
    takes_all = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in taken.values())
    refused = {kind: of for kind, of in kinds.items() if of and kind not in taken and not takes_all}
    numbers = ["integer", "number", *(["boolean"] if refused.pop("booleans", None) else [])]
    if refused:
        lines = "; ".join(f"`{kind}` ({', '.join(list(of)[:5])})" for kind, of in refused.items())
        raise ModelCodeError(f"models/{name}/pipeline: build takes no {lines}, which params.yaml has: add the argument")
    own = {kind: of for kind, of in kinds.items() if kind in taken or (takes_all and of)}
    return {"categories": model.of_type("category"), "numbers": model.of_type(*numbers), **own}


def _vectors(model: Model) -> list[str]:
    return model.of_type("vector")


def make_estimator(wanted: Estimator) -> BaseEstimator:
    """The estimator that params.yaml names, with its hyper-parameters and its seed.

    Raises:
        ModelCodeError: it is not installed, is no estimator, or does not take these hyper-parameters.
    """
    module, _, attribute = wanted.class_.rpartition(".")
    kind = _attribute(module, attribute, hint="params.yaml: estimator.class: ")
    if not _is_estimator(kind) and (isinstance(kind, type) or not module.startswith("models.")):  # or makes one
        raise ModelCodeError(_no_estimator(wanted.class_))
    takes = _parameters(kind)
    seeded = {"random_state": wanted.seed} if "random_state" in takes else {}
    try:
        estimator: BaseEstimator = kind(**{**seeded, **wanted.params})
    except TypeError as error:
        raise ModelCodeError(
            f"params.yaml: estimator.params does not fit {wanted.class_}: {error}. It takes: {', '.join(sorted(takes))}"
        ) from None
    if not _is_estimator(estimator):
        raise ModelCodeError(_no_estimator(wanted.class_))
    return estimator


def _is_estimator(value: Any) -> bool:
    return all(callable(getattr(value, method, None)) for method in ("fit", "get_params", "set_params"))


def _no_estimator(name: str) -> str:
    return (
        f"params.yaml: estimator.class: {name} is no estimator: it has no fit, get_params and set_params, as "
        f"scikit-learn's have. Name the library's class that has them, as lightgbm.LGBMClassifier or "
        f"xgboost.XGBRegressor"
    )


def _parameters(kind: Any) -> list[str]:
    """The hyper-parameters of an estimator: by scikit-learn's rule all stand in its signature; XGBoost's do not."""
    parameters = signature(kind).parameters
    names = [name for name, each in parameters.items() if each.kind is not Parameter.VAR_KEYWORD]
    if len(names) < len(parameters) and hasattr(kind, "get_params"):
        names += [name for name in kind().get_params() if name not in names]
    return names


def _attribute(module: str, attribute: str, hint: str = "") -> Any:
    package = module.partition(".")[0]
    if find_spec(package) is None:
        raise ModelCodeError(f"{hint}{families.not_installed(package)}")
    try:
        is_missing = find_spec(module) is None
    except ModuleNotFoundError:
        is_missing = True
    if is_missing:
        raise ModelCodeError(f"{hint}there is no module {module} ({module.replace('.', '/')}/__init__.py)")
    loaded = getattr(import_module(module), attribute, None)
    if not callable(loaded):
        near = did_you_mean(attribute, [name for name in dir(import_module(module)) if not name.startswith("_")])
        raise ModelCodeError(f"{hint}{module} has no {attribute}{near if near.startswith('; did') else ''}")
    return loaded
