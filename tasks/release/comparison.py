"""The verdict on what build/<model> holds: everything that the gate asks for, gathered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, params, paths, settings
from tasks.ground.errors import EvergreenError, RegistryUnavailable
from tasks.modelling import metrics, rows
from tasks.release.gate import gate
from tasks.release.gate.training_overlap import Learned, learned, load
from tasks.release.gate.verdict import Verdict
from tasks.release.package import package
from tasks.release.registry import registry, tracking
from tasks.release.scorer import predict_frame
from tasks.runtime import model_file

if TYPE_CHECKING:
    import pandas as pd

UNSCORABLE = (ArithmeticError, AttributeError, EvergreenError, ImportError, LookupError, OSError, TypeError, ValueError)
"""What a champion of another day may raise when it meets the rows, the code and the packages of today."""


def judge_candidate(model_name: str) -> Verdict:
    """Compare the candidate in build/<model> with the champion, on the holdout rows. Nothing is recorded.

    A champion that cannot be loaded or scored makes the verdict a refusal that says so.

    Raises:
        RegistryUnavailable: without the registry nobody knows who is champion.
    """
    model = params.load().model(model_name)
    case = comparison(model_name, model, registry.champion(model_name))
    return gate.judge(case, model.gate, resamples=model.evaluate.resamples)


def comparison(model_name: str, model: params.Model, champion: registry.ModelVersion | None) -> gate.Comparison:
    """What the gate is to judge.

    Raises:
        DataMissing: build/<model> holds no packaged candidate.
        ModelFileRefused: build/<model>/release was changed after it was packaged.
    """
    import pandas as pd

    build = settings.BUILD / model_name
    candidate = package.identity_of(build / "release")
    evaluated = pd.read_parquet(build / "evaluation" / "predictions.parquet")
    holdout = evaluated[[c for c in ("id", "time", "label", *model.evaluate.slices) if c in evaluated]]
    facts = tracking.measured(model_name, candidate)
    release = files.read_json(build / "release" / "release.json")
    challenger = gate.Contender(
        candidate=candidate,
        predictions=evaluated.drop(columns=holdout.columns),
        trained_on=load(build / "model" / "train_ids.npy"),
        features=release["features"],
        when_missing=None if champion is None else when_missing(model_name, build / "release", release, holdout["id"]),
    )
    return gate.Comparison(
        model=model_name,
        task=model.task,
        holdout=holdout,
        slices=tuple(model.evaluate.slices),
        challenger=challenger,
        champion=None if champion is None else score_champion(model_name, champion, evaluated["id"]),
        baseline=metrics.baseline_predictions(files.read_json(build / "model" / "training.json"), len(evaluated)),
        champion_age=None if champion is None else _age(model_name, champion),
        latency_ms=facts.get("latency_ms"),
        size_mb=facts.get("size_mb"),
        split=model.split.by,
        without=rows.without(build, list(model.features)),
    )


def score_champion(model_name: str, champion: registry.ModelVersion, ids: pd.Series[Any]) -> gate.Contender:
    """The champion's answers for the holdout rows with these ids, in their order; or why there are none."""
    candidate = champion.candidate
    try:
        folder = registry.fetch_cached(model_name, champion)
        release = files.read_json(folder / "release" / "release.json")
        training = folder / "training"
        trained_on = load(training / "train_ids.npy")
        its_rows: Learned = learned(settings.BUILD / model_name, training, release, ids)
    except RegistryUnavailable:  # it may be there again in a minute: no reason for a verdict
        raise
    except UNSCORABLE as error:
        fault = f"the champion, candidate {candidate}, could not be had: {_said(error)}"
        return gate.Contender(candidate, None, None, None, fault)
    fault, predictions = "", None
    try:
        predictions = _answers(model_name, folder / "release", release, ids)
    except UNSCORABLE as error:
        fault = f"the champion, candidate {candidate}, could not be scored on this holdout: {_said(error)}"
    return gate.Contender(
        candidate,
        predictions,
        trained_on,
        release.get("features"),
        fault,
        seen=its_rows.seen,
        seen_by=its_rows.note,
        doubt=its_rows.doubt,
        when_missing=None if predictions is None else when_missing(model_name, folder / "release", release, ids),
    )


def _answers(model_name: str, release: Path, said: dict[str, Any], ids: pd.Series[Any]) -> pd.DataFrame:
    return scorer(model_name, release, said)(_held(model_name, said, ids))


def _held(model_name: str, said: dict[str, Any], ids: pd.Series[Any]) -> pd.DataFrame:
    """The features of the holdout rows with these ids, in their order."""
    features = list(said["features"])
    held = rows.read(settings.BUILD / model_name, "holdout", [*features, "id"]).set_index("id")
    return held.loc[ids.to_numpy(), features].reset_index(drop=True)


MISSING_ROWS = 2000
"""Of so many holdout rows it is asked what a release answers when a source of its features fails."""


def when_missing(model_name: str, release: Path, said: dict[str, Any], ids: pd.Series[Any]) -> pd.DataFrame | None:
    """Its answers to some of the holdout rows, had every feature that may be missing been; None where it has none.

    Args:
        model_name: whose release.
        release: its folder.
        said: its release.json.
        ids: of the holdout rows.
    """
    try:
        held = _held(model_name, said, ids.iloc[:: -(-len(ids) // MISSING_ROWS)])
        return scorer(model_name, release, said)(without_optional(held, said["features"]))
    except UNSCORABLE:
        return None


def without_optional(frame: pd.DataFrame, features: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Rows in which every feature is missing that may be."""
    optional = [name for name, feature in features.items() if feature["nullable"]]
    return frame.assign(**{name: frame[name].mask(frame[name].notna()) for name in optional})


def scorer(model_name: str, release: Path, said: dict[str, Any]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """What scores rows by a release's model as its evaluation did.

    Args:
        model_name: whose release.
        release: its folder.
        said: its release.json.
    """
    if _holds_own_code(model_name, release) and _code_differs(release):
        return partial(predict_frame, release)  # today's code could make another model of the same file
    pipeline = model_file.load(release / "model.skops", said["model_sha256"], own=f"models.{model_name}")
    return partial(model_file.predict, pipeline, task=said["task"])


def _holds_own_code(model_name: str, release: Path) -> bool:
    """Whether the model file asks for types of the team's own, so that its answers depend on their code."""
    import skops.io

    asked = skops.io.get_untrusted_types(file=release / "model.skops")
    return any(name.startswith(f"models.{model_name}.") for name in asked)


def _code_differs(release: Path) -> bool:
    packaged = files.tree(release / "models")
    return any(sha != _sha_or_none(settings.ROOT / "models" / path) for path, sha in packaged.items())


def _sha_or_none(path: Path) -> str | None:
    return files.sha256(path) if path.is_file() else None


def _age(model_name: str, champion: registry.ModelVersion) -> int | None:
    """How many partitions of the model are newer than the champion's training; None when that is not known."""
    known = paths.champions() / champion.candidate / "training" / "training.json"
    if not known.exists():
        return None
    split = files.read_json(settings.BUILD / model_name / "split.json")
    in_order = split.get("partitions") or [*split["train"], *split["holdout"]]  # by the times of their rows
    learned_from = files.read_json(known)["partitions"]
    places = [place for place, partition in enumerate(in_order) if partition in learned_from]
    return len(in_order) - 1 - places[-1] if places else None


def _said(error: Exception) -> str:
    """An error in words that are the same in every checkout."""
    text = f"{error.args[0]!s} is missing" if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.replace(f"{settings.ROOT}/", "").split()) or type(error).__name__
