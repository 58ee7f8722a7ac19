"""Comparison of the candidate in build/<model> with the champion: everything that the gate asks for, gathered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, params, paths, settings
from tasks.ground.errors import EvergreenError, RegistryUnavailable, ReleaseDiffers
from tasks.modelling import metrics, rows
from tasks.release.gate import gate, training_overlap
from tasks.release.gate.verdict import Verdict
from tasks.release.package import package
from tasks.release.registry import model_state, registry, tracking, version_files
from tasks.release.scorer import predict_frame
from tasks.runtime import answer_columns, decisions, feature_types, model_file

if TYPE_CHECKING:
    import pandas as pd

UNSCORABLE = (ArithmeticError, AttributeError, EvergreenError, ImportError, LookupError, OSError, TypeError, ValueError)
"""What a champion of another day may raise when it meets the rows, the code and the packages of today."""

MISSING_ROWS = 2000
"""So many holdout rows are scored with every nullable feature missing, as when a source of features fails."""


def judge_candidate(model_name: str) -> Verdict:
    """Compare the candidate in build/<model> with the champion, on the holdout rows. Nothing is recorded.

    A champion that cannot be loaded or scored makes the verdict a refusal that says so.
    """
    model = params.load().model(model_name)
    case = comparison(model_name, model, registry.champion(model_name))
    return gate.judge(case, model.gate, resamples=model.evaluate.resamples)


def comparison(model_name: str, model: params.Model, champion: model_state.ModelVersion | None) -> gate.Comparison:
    """What the gate judges."""
    import pandas as pd

    build = settings.BUILD / model_name
    release = build / "release"
    candidate = package.identity_of(release)
    evaluated = pd.read_parquet(build / "evaluation" / "predictions.parquet")
    own = ("id", "time", *answer_columns.labels(evaluated.columns), "weight", *model.evaluate.slices)
    holdout = evaluated[[column for column in own if column in evaluated]]
    training = files.read_json(build / "model" / "training.json")
    measured = tracking.measured(model_name, candidate)
    facts = files.read_json(release / "release.json")
    evaluation = facts.get("metrics", {})
    challenger = gate.Contender(
        candidate=candidate,
        predictions=evaluated.drop(columns=holdout.columns),
        trained_on=training_overlap.load(build / "model" / "train_ids.npy"),
        features=facts["features"],
        when_missing=None if champion is None else when_missing(model_name, release, facts, holdout["id"]),
    )
    return gate.Comparison(
        model=model_name,
        task=model.task,
        holdout=holdout,
        slices=tuple(model.evaluate.slices),
        challenger=challenger,
        champion=None if champion is None else score_champion(model_name, champion, evaluated["id"]),
        baseline=metrics.baseline_of(training, evaluated),
        champion_age=None if champion is None else _age(model_name, champion),
        latency_ms=measured.get("latency_ms"),
        size_mb=measured.get("size_mb"),
        split=model.split.by,
        cost=training.get("cost"),
        decision=describe_decision(training),
        without=rows.without(build, list(model.features)),
        facts={name: evaluation[name] for name in ("stability", "score_shift") if name in evaluation},
    )


def describe_decision(training: dict[str, Any]) -> str:
    """How a candidate decides, in words; empty where it is for the most probable class."""
    decision, chosen = training.get("decision"), training.get("threshold")
    if decision in (None, decisions.MOST_PROBABLE):
        return ""
    if decision == decisions.PREDICT:
        return "decisions are those of the pipeline's own predict, which do not follow from its probabilities"
    positive = training["classes"][-1]
    words = f"it decides for {positive!r} from a probability of {decision['threshold']:.4g} on"
    if chosen is None:
        return words
    better = f"{chosen['by']} {chosen['value']:.4g}, against {chosen['at_half']:.4g} from 0.5 on"
    return f"{words}, chosen on {chosen['rows']:,} training rows out of fold: {better}"


def score_champion(model_name: str, champion: model_state.ModelVersion, ids: pd.Series[Any]) -> gate.Contender:
    """The champion with its answers for the holdout rows with these ids, in their order; or why there are none."""
    name = f"the champion, candidate {champion.candidate}, could not be"
    try:
        folder = version_files.fetch_cached(model_name, champion)
    except RegistryUnavailable:  # it may be there again in a minute: no reason for a verdict
        raise
    except UNSCORABLE as error:
        return gate.Contender(champion.candidate, None, None, None, f"{name} had: {_one_line(error)}")
    return score_release(model_name, champion.candidate, folder / "release", folder / "training", ids, "the champion")


def score_release(
    model_name: str, candidate: str, release: Path, training: Path, ids: pd.Series[Any], who: str = "it"
) -> gate.Contender:
    """As `score_champion`, of any release and what is known of its training; `who` names it in a fault."""
    name = f"{who}, candidate {candidate}, could not be"
    try:
        facts = files.read_json(release / "release.json")
        overlap = training_overlap.find(settings.BUILD / model_name, training, facts, ids)
    except UNSCORABLE as error:
        return gate.Contender(candidate, None, None, None, f"{name} had: {_one_line(error)}")
    contender = gate.Contender(candidate, None, None, facts.get("features"), overlap=overlap)
    try:
        predictions = scorer(model_name, release, facts)(_holdout_features(model_name, facts, ids))
    except UNSCORABLE as error:
        return replace(contender, fault=f"{name} scored on this holdout: {_one_line(error)}")
    missing = when_missing(model_name, release, facts, ids)
    return replace(contender, predictions=predictions, when_missing=missing)


def _age(model_name: str, champion: model_state.ModelVersion) -> int | None:
    """How many partitions of the model are newer than the champion's training; None when that is not known."""
    training = paths.champions() / champion.candidate / "training" / "training.json"
    if not training.exists():
        return None
    split = files.read_json(settings.BUILD / model_name / "split.json")
    in_order = split.get("partitions") or [*split["train"], *split["holdout"]]  # by the times of their rows
    learned_from = files.read_json(training)["partitions"]
    places = [place for place, partition in enumerate(in_order) if partition in learned_from]
    return len(in_order) - 1 - places[-1] if places else None


# ── scoring rows by a release ─────────────────────────────────────────────────────────────────────


def _holdout_features(model_name: str, facts: dict[str, Any], ids: pd.Series[Any]) -> pd.DataFrame:
    features = feature_types.table_columns(facts["features"])
    holdout = rows.read(settings.BUILD / model_name, "holdout", [*features, "id"]).set_index("id")
    return holdout.loc[ids.to_numpy(), features].reset_index(drop=True)


def when_missing(model_name: str, release: Path, facts: dict[str, Any], ids: pd.Series[Any]) -> pd.DataFrame | None:
    """Its answers to some of the holdout rows with every nullable feature missing; None where it has none."""
    try:
        frame = _holdout_features(model_name, facts, ids.iloc[:: -(-len(ids) // MISSING_ROWS)])
        return scorer(model_name, release, facts)(without_optional(frame, facts["features"]))
    except UNSCORABLE:
        return None


def without_optional(frame: pd.DataFrame, features: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The rows with every nullable feature missing."""
    optional = feature_types.table_columns({n: feature for n, feature in features.items() if feature["nullable"]})
    return frame.assign(**{name: frame[name].mask(frame[name].notna()) for name in optional})


def scorer(model_name: str, release: Path, facts: dict[str, Any]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A function that scores rows by a release's model as its evaluation did; `facts` is its release.json."""
    if _holds_own_code(model_name, release) and _code_differs(release):
        return partial(predict_frame, release)  # today's code could make another model of the same file
    pipeline = model_file.load(release / "model.skops", facts["model_sha256"], own=f"models.{model_name}")
    return partial(model_file.predict, pipeline, task=facts["task"], decision=facts.get("decision"))


def golden_scorer(model_name: str, release: Path) -> tuple[Callable[[pd.DataFrame], pd.DataFrame], int]:
    """A `scorer` that gives the release's golden rows what they were evaluated to, and how many these are.

    Raises:
        ReleaseDiffers: it scores them otherwise.
    """
    import pandas as pd

    facts = package.release_facts(release)
    score, golden = scorer(model_name, release, facts), files.read_json(release / "golden.json")
    evaluated = metrics.scores_of(pd.DataFrame([row["predicted"] for row in golden])).astype("float64")
    off = (score(request_frame(facts, [row["row"] for row in golden]))[list(evaluated)] - evaluated).abs()
    if not (off <= package.tolerance(facts) * evaluated.abs().clip(lower=1.0)).all(axis=None):
        raise ReleaseDiffers(f"golden rows are scored up to {off.to_numpy().max():.3g} off what they were evaluated to")
    return score, len(golden)


def request_frame(facts: dict[str, Any], rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a client posts them, as a frame of a release's features in their order."""
    features = {name: facts["features"][name] for name in facts["columns"]}
    return feature_types.frame({name: [row.get(name) for row in rows] for name in features}, features)


def _holds_own_code(model_name: str, release: Path) -> bool:
    """Whether the model file asks for types of the team's own, so that its answers depend on their code."""
    types = model_file.types((release / "model.skops").read_bytes())
    return any(name.startswith(f"models.{model_name}.") for name in types)


def _code_differs(release: Path) -> bool:
    today = settings.ROOT / "models"
    packaged = files.tree(release / "models")
    return any(not (today / path).is_file() or files.sha256(today / path) != sha for path, sha in packaged.items())


def _one_line(error: Exception) -> str:
    """An error in words that are the same in every checkout."""
    return gate.describe_error(error).replace(f"{settings.ROOT}/", "")
