"""Rows → a fitted pipeline, and what it was fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks import code, files, model_file, params, settings
from tasks.errors import DataMissing, ModelCodeError

if TYPE_CHECKING:
    import pandas as pd


def train(name: str) -> None:
    """The stage: build/<name>/rows and split.json → build/<name>/model.

    Writes model.skops, training.json (how many rows, of when, the classes, the trivial baseline, and what had arrived,
    the holdout with it), profile.json (the reference profile of the training rows), reference.parquet (their day
    summaries: what later days are held against) and train_ids.npy (a hash per training row: what the gate may not score
    on).

    Raises:
        DataMissing: nothing is left to learn from.
        ModelCodeError: the pipeline cannot be fitted.
    """
    import numpy as np

    from tasks import days, profile, rows

    model = params.load().model(name)
    build = settings.BUILD / name
    learn = rows.read(build, "train")
    if learn.empty or (model.task == "classification" and learn["label"].nunique() < 2):
        raise DataMissing(
            f"{name}: {len(learn)} training rows with {learn['label'].nunique()} different labels: nothing to learn"
        )
    features = learn[list(model.features)]
    pipeline = code.build_pipeline(name, model)
    try:
        pipeline.fit(features, learn["label"])
    except ValueError as error:
        silent = [str(column) for column in features if features[column].isna().all()]
        hint = f" ({', '.join(silent)}: missing in every row)" if silent else ""
        raise ModelCodeError(f"models/{name}/pipeline does not fit {len(learn)} rows: {error}{hint}") from error
    split = files.read_json(build / "split.json")
    described = {name_: feature.model_dump() for name_, feature in model.features.items()}
    reference = profile.reference_profile(learn, described, None)
    with files.replacing(build / "model") as folder:
        folder.mkdir()
        model_file.dump(pipeline, folder / "model.skops")
        files.write_json(
            folder / "training.json",
            {
                **facts(learn, model.task, split.get("train", split.get("partitions"))),
                "arrived": rows.arrived(build),
            },
        )
        files.write_json(folder / "profile.json", reference)
        (folder / "reference.parquet").write_bytes(days.to_bytes(days.summarise(learn, days.columns(reference))))
        np.save(folder / "train_ids.npy", np.sort(rows.row_hashes(learn["id"])))


def facts(learn: pd.DataFrame, task: str, partitions: list[str]) -> dict[str, Any]:
    """What training.json says: the extent of the training rows, and the answer that needs no features."""
    labels = learn["label"]
    said: dict[str, Any] = {
        "task": task,
        "rows": len(learn),
        "from": learn["time"].min().isoformat(),
        "until": learn["time"].max().isoformat(),
        "partitions": partitions,
        "classes": None,
    }
    if task == "classification":
        shares = labels.value_counts(normalize=True).sort_index()
        return {
            **said,
            "classes": shares.index.tolist(),
            "baseline": {"classes": [round(s, 9) for s in shares.tolist()]},
        }
    quantiles = {q: float(labels.quantile(float(q))) for q in ("0.1", "0.9")}
    return {**said, "baseline": {"mean": round(float(labels.mean()), 9), "quantiles": quantiles}}
