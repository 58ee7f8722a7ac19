"""CatBoost: its model file is its own binary format, within the archive of the pipeline."""

from __future__ import annotations

import json
import os
from typing import Any

from tasks.runtime.families.family import Family, choose, gpu_problem


class CatBoost(Family):
    """Writes a random name and the time of day into each model; they are taken out."""

    title = "CatBoost"
    package = group = "catboost"
    distributions = ("catboost",)
    reviewed = frozenset(
        {
            "catboost.core.CatBoostClassifier",  # of the bytes of a model, which the library's own parser reads
            "catboost.core.CatBoostRanker",
            "catboost.core.CatBoostRegressor",
        }
    )
    most_probable = frozenset({"CatBoostClassifier"})

    def errors(self) -> tuple[type[Exception], ...]:
        """CatBoostError is no ValueError."""
        from catboost import CatBoostError

        return (CatBoostError,)

    def problem(self, estimator: Any) -> str | None:
        """A graphics processor that is not there."""
        kind = estimator.get_params().get("task_type")
        if str(kind).upper() != "GPU":
            return None
        return gpu_problem("task_type", kind, "leave it out, and CatBoost computes on the processor")

    def prepare(self, estimator: Any) -> None:
        """No folder of logs beside the data, no lines per tree, and as many threads as OpenMP would have."""
        choose(estimator, "allow_writing_files", False)
        choose(estimator, "verbose", False, "silent", "logging_level", "verbose_eval")
        choose(estimator, "thread_count", int(os.environ.get("OMP_NUM_THREADS", "1")))

    def settle(self, fitted: Any) -> None:
        """Without its random name, its time, and the number of its threads, which changes nothing that it learned."""
        fitted._init_params["thread_count"] = 1  # set_params refuses a fitted one
        if not fitted.is_fitted():
            return
        facts = fitted.get_metadata()
        for name in ("model_guid", "train_finish_time"):
            if name in facts.keys():  # noqa: SIM118 - no dict
                facts[name] = ""
        params = json.loads(facts["params"])
        for section in ("system_options", "flat_params"):
            if section in params:
                params[section]["thread_count"] = 1
        facts["params"] = json.dumps(params, sort_keys=True)


FAMILY = CatBoost()
