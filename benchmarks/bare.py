"""The baseline of the cycle: one plain script that does what Evergreen's flows do for flight_delay, without Evergreen.

It reads the landed files, validates each month with Great Expectations, makes rows, fits, evaluates, draws, logs to
MLflow and registers; everything anew every time, as such scripts do. From the repository it takes what a team would
have anyway: its own models/flight_delay, the numbers in params.yaml, and the metrics and pictures (the same code draws
them on both sides, so that the difference is what stands around it).

    python -m benchmarks.bare LANDING OUT    LANDING/<dataset>/<month>.csv; OUT keeps the MLflow store and the pictures
"""

from __future__ import annotations

import json
import os
import sys
import time
from calendar import monthrange
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

NAME = "flight_delay"
os.environ.setdefault("MPLBACKEND", "Agg")
MARKS: dict[str, float] = {}
_last = float(os.environ.get("BENCH_BEGIN", time.time()))  # when the process was started


def mark(part: str) -> None:
    """Everything since the last mark was this part."""
    global _last  # noqa: PLW0603 - a script's clock
    now = time.time()
    MARKS[part] = MARKS.get(part, 0.0) + now - _last
    _last = now


mark("start the interpreter")

import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
import yaml  # noqa: E402
from pyarrow import csv  # noqa: E402

from models.flight_delay import pipeline as team_pipeline  # noqa: E402
from models.flight_delay import rows as team_rows  # noqa: E402
from tasks.ground import params  # noqa: E402
from tasks.modelling import metrics  # noqa: E402
from tasks.runtime import families, model_file  # noqa: E402

mark("import pandas and scikit-learn")
import great_expectations as gx  # noqa: E402
from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: E402

mark("import Great Expectations")

TYPES = {"int64": pa.int64(), "float64": pa.float64(), "str": pa.string()}
TYPES |= {"datetime64[us]": pa.timestamp("us"), "datetime64[us, UTC]": pa.timestamp("us", tz="UTC")}


def main(landing: Path, out: Path) -> dict[str, object]:
    """Do it all."""
    model = params.load().model(NAME)
    suites = {d: yaml.safe_load(Path(f"models/{NAME}/expectations/{d}.yaml").read_text()) for d in model.datasets}
    months = sorted(path.stem for path in (landing / "flights").glob("*.csv"))
    raw = {month: {d: read(landing / d / f"{month}.csv", suites[d]) for d in suites} for month in months}
    mark("read")

    validate(raw, suites)
    mark("validate")

    ready = {month: prepare(tables, model) for month, tables in raw.items()}
    learn = pd.concat([ready[month] for month in months[:-1]], ignore_index=True)
    holdout = ready[months[-1]].reset_index(drop=True)
    mark("prepare")

    features = list(model.features)
    module, _, name = model.estimator.class_.rpartition(".")
    estimator = getattr(import_module(module), name)(**model.estimator.params, random_state=model.estimator.seed)
    pipeline = team_pipeline.build(estimator, model.of_type("category"), model.of_type("integer", "number"))
    pipeline.fit(learn[features], learn["label"])
    mark("train")

    appraisal, predictions = evaluate(pipeline, learn, holdout, model, out)
    mark("evaluate, with pictures")

    import mlflow.sklearn  # noqa: F401 - imported where its time can be told

    mark("import MLflow")
    version = log(pipeline, learn, holdout, predictions, appraisal, months, model, out)
    mark("log and register")
    return {"months": len(months), "rows": len(learn), "version": version, "metrics": appraisal.metrics()}


def read(path: Path, suite: dict) -> pd.DataFrame:
    """One CSV with the types that the suite names."""
    types = {column: TYPES[type_] for column, type_ in suite["columns"].items()}
    options = csv.ConvertOptions(column_types=types, null_values=suite["nulls"], strings_can_be_null=True)
    return csv.read_csv(path, convert_options=options).to_pandas()


def validate(raw: dict[str, dict[str, pd.DataFrame]], suites: dict[str, dict]) -> None:
    """Every table against its suite, with the month before as parameters; stop at the first that does not pass."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("landing")
    for dataset, said in suites.items():
        whole = source.add_dataframe_asset(dataset).add_batch_definition_whole_dataframe("month")
        previous: dict[str, float] = {}
        for month, tables in raw.items():
            given = {**of_the_name(month), **previous}
            asked = [e for e in expectations(said) if previous or "previous_" not in json.dumps(e)]
            suite = gx.ExpectationSuite(f"{dataset} {month}", expectations=asked)
            batch = whole.get_batch({"dataframe": tables[dataset]})
            result = batch.validate(suite, result_format="SUMMARY", expectation_parameters=given)
            if not result.success:
                sys.exit(f"{dataset} {month} does not pass:\n{result}")
            previous = statistics(tables[dataset])


def of_the_name(month: str) -> dict[str, float]:
    """What the suites may ask of a month's name."""
    year, number = int(month[:4]), int(month[5:])
    return {"partition_year": year, "partition_month": number, "partition_days": monthrange(year, number)[1]}


def expectations(suite: dict) -> list[dict]:
    """The suite's own, and what its `columns` mean."""
    types = [("expect_column_type_to_be", {"column": c, "type_": t}) for c, t in suite["columns"].items()]
    derived = [("expect_table_columns_to_match_ordered_list", {"column_list": list(suite["columns"])}), *types]
    derived.append(("expect_table_row_count_to_be_between", {"min_value": 1}))
    return [{"type": type_, "kwargs": kwargs} for type_, kwargs in derived] + suite["expectations"]


def statistics(frame: pd.DataFrame) -> dict[str, float]:
    """What the suites may ask of the month before."""
    numbers = frame.select_dtypes("number")
    table = {"mean": numbers.mean(), "median": numbers.median(), "stdev": numbers.std(), "min": numbers.min()}
    table |= {"max": numbers.max(), "nulls": numbers.isna().sum()}
    known = {f"previous_{column}_{name}": float(v) for name, values in table.items() for column, v in values.items()}
    return {"previous_rows": len(frame), **known}


def prepare(tables: dict[str, pd.DataFrame], model: params.Model) -> pd.DataFrame:
    """The team's rows, in the order and types of the features."""
    frame = team_rows.rows(tables, **model.options)
    types = {c: "str" if feature.type == "category" else "float64" for c, feature in model.features.items()}
    return frame[[*types, "label", "time", "id"]].astype(types)


def evaluate(pipeline, learn, holdout, model, out):  # noqa: ANN001, ANN201 - a script
    """Metrics with intervals, overall and per slice; importance and dependence; all the pictures."""
    from tasks.training import evaluate, explain, plots

    features, label = holdout[list(model.features)], holdout["label"]
    predictions = model_file.predict(pipeline, features, model.task)
    shares = learn["label"].value_counts(normalize=True).sort_index()
    trivial = {"task": model.task, "classes": shares.index.tolist(), "baseline": {"classes": shares.tolist()}}
    baseline = metrics.score(model.task, label, metrics.baseline_predictions(trivial, len(holdout)))
    found = evaluate.appraise(model.task, holdout, predictions, baseline, model.evaluate)
    weights = explain.permutation_importance(pipeline, model.task, features, label, found.blocks, 0.95)
    chosen = {feature: model.features[feature].type for feature in weights["feature"].head(plots.CURVES)}
    curves = explain.partial_dependence(pipeline, model.task, features, chosen, found.blocks, 0.95)
    (out / "evaluation").mkdir(exist_ok=True)
    plots.draw(out / "evaluation" / "plots", found, weights, curves, model.features)
    return found, predictions


def log(pipeline, learn, holdout, predictions, found, months, model, out) -> str:  # noqa: ANN001
    """One MLflow run with everything, and a version of the registered model."""
    import mlflow
    from mlflow.models import infer_signature

    mlflow.set_tracking_uri(f"sqlite:///{out / 'mlflow.db'}")
    if mlflow.get_experiment_by_name(NAME) is None:
        mlflow.create_experiment(NAME, artifact_location=(out / "artifacts").as_uri())
    mlflow.set_experiment(NAME)
    scores, details = found.metrics(), found.details()
    folder = out / "evaluation"
    (folder / "metrics.json").write_text(json.dumps(scores, indent=1))
    (folder / "slices.json").write_text(json.dumps(details, indent=1))
    holdout[["id", "time", "label"]].join(predictions).to_parquet(folder / "predictions.parquet", compression="zstd")
    slices = {
        f"slices/{column}/{value}/{metric}": entry["value"]
        for column, values in details["slices"].items()
        for value, said in values.items()
        for metric, entry in said["metrics"].items()
    }
    overall = {name: value for name, value in scores.items() if isinstance(value, int | float)}
    example = holdout[list(model.features)].head(5)
    with mlflow.start_run():
        mlflow.log_params({f"estimator.{name}": value for name, value in model.estimator.params.items()})
        mlflow.log_params({"estimator": model.estimator.class_, "train": " ".join(months[:-1]), "holdout": months[-1]})
        mlflow.log_params({"rows": len(learn), "seed": model.estimator.seed, **model.options})
        mlflow.log_metrics({**overall, **slices})
        mlflow.log_artifacts(str(folder), "evaluation")
        mlflow.log_artifact("params.yaml")
        info = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            signature=infer_signature(example, pipeline.predict(example)),
            input_example=example,
            pip_requirements=[f"{package}=={version(package)}" for package in ("scikit-learn", "skops", "pandas")],
            serialization_format="skops",
            skops_trusted_types=sorted(families.SKLEARN.reviewed),
            registered_model_name=NAME,
        )
    return str(info.registered_model_version)


if __name__ == "__main__":
    out = Path(sys.argv[2]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    done = main(Path(sys.argv[1]), out)
    if told := os.environ.get("BENCH_MARKS"):
        Path(told).write_text(json.dumps({"parts": MARKS, "done": done}))
    print(json.dumps(done))
