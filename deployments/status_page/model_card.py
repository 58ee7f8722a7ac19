"""A model's page for people who do not build it: what it answers, how good it is in words, what it is not for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from markupsafe import Markup

from deployments.status_page import assets, facts, monitoring
from deployments.status_page.facts import Broken, ModelFacts, ReleaseFacts
from deployments.status_page.parts import fill, part
from tasks.ground import params
from tasks.ground.task_kinds import KINDS
from tasks.ground.words import listed, many
from tasks.pictures.formatting import day, short

Entry = Mapping[str, float]

FEATURES = 12
"""Features that are named, those that matter most first; the others are counted."""

WORST = 3
"""Groups of rows for which it is worst that are named."""


def render(model: ModelFacts, now: datetime) -> str:
    """The whole page; what cannot be read says why in its place."""
    parts = [
        _part("What it answers", model, _answers),
        _part("How good it is", model, _how_good),
        _part("Where it is unsure", model, _unsure),
        _part("What it must not be used for", model, _not_for),
        _part("What it looks at", model, _inputs),
        _part("Since when, and judged by what", model, _judged),
    ]
    return fill("card.html", model=model, title=title(model.name), parts=parts, now=now, assets=assets)


def title(name: str) -> str:
    """A model's name as a heading."""
    return name.replace("_", " ").capitalize()


def _part(heading: str, model: ModelFacts, sentences: Any) -> Markup:
    @part(heading, "h2")
    def made() -> Markup:
        return fill("card_part.html", heading=heading, sentences=list(sentences(model)))

    return made()


# ── what it answers ───────────────────────────────────────────────────────────────────────────────


def _answers(model: ModelFacts) -> Iterator[str]:
    section, card = model.section, model.section.card
    yield KINDS[section.task].card.format(rows=card.rows)
    if section.labels:
        yield f"It answers so of each of these: {', '.join(section.labels)}."
    if card.audience:
        yield f"It is made for {card.audience.rstrip('.')}."
    if card.owner:
        yield f"Questions: {card.owner}"


# ── how good it is ────────────────────────────────────────────────────────────────────────────────


def _how_good(model: ModelFacts) -> Iterator[str]:
    release = _release(model)
    if release is None:
        yield "Nothing is live yet, so nothing can be said."
        return
    rows = release.metrics.get("rows")
    if rows:
        yield (
            f"It was tested on {int(rows):,} {model.section.card.rows} that it had not learned from. Numbers in "
            f"brackets are what chance leaves open."
        )
    yield from in_words(release, model.section)
    promised = monitoring.promised(model)
    newest = monitoring.newest(model, "measured")
    if newest is not None:
        worse = monitoring.is_worse(newest[2], promised)
        yield (
            "In use, it is worse than it was when tested: somebody should look."
            if worse
            else ("In use, it is as good as it was when tested.")
        )
    else:
        yield "How good it is in use was not measured yet: that takes the true answers, which come later."


def in_words(release: ReleaseFacts, section: params.Model) -> Iterator[str]:
    """The metrics of a release that a person without statistics understands."""
    scores = {name: {"value": value} for name, value in release.metrics.items()} | dict(release.overall)
    for label in section.labels:
        own = _of_label(scores, label)
        spoken = (
            _of_classes(own, release, section.card, label)
            if section.task == "classification"
            else _of_numbers(own, _of_label(release.baseline, label))
        )
        yield from (f"{label}: {sentence[0].lower()}{sentence[1:]}" for sentence in spoken)
    if section.labels:
        return
    if section.task == "classification":
        yield from _of_classes(scores, release, section.card)
    else:
        yield from _of_numbers(scores, release.baseline)


def _of_label(scores: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The metrics of one of several labels, by the names that they have for it alone."""
    return {short: of for name, of in scores.items() if (short := name.removesuffix(f":{label}")) != name}


def _of_classes(
    scores: Mapping[str, Entry], release: ReleaseFacts, card: params.Card, label: str = ""
) -> Iterator[str]:
    classes: Any = release.document.get("classes") or []
    baseline = (release.document.get("training") or {}).get("baseline", {})
    if label:
        classes, baseline = classes[label], baseline[label]
    of_second = (
        f"{card.rows} {f'whose {label} is' if label else 'that are'} «{classes[1]}»" if len(classes) == 2 else ""
    )
    positive = of_second if label else card.positive or of_second
    shares = baseline.get("classes") or []
    if len(classes) == 2:
        if len(shares) == 2:
            yield f"Of 100 {card.rows} that it learned from, {_of_hundred(shares[1])} are {positive}."
        if "recall" in scores:
            yield f"Of 100 {positive} it finds {_share(scores['recall'])}."
        if "precision" in scores:
            yield f"Of 100 that it names, {_share(scores['precision'])} are right."
        yield from _threshold(release.document.get("decision"), positive)
        if "roc_auc" in scores:
            yield (
                f"Shown one of the {positive} and one of the others, it gives the right one the higher probability in "
                f"{_share(scores['roc_auc'])} of 100 pairs; guessing would in 50."
            )
    elif "accuracy" in scores:
        yield f"Of 100 {card.rows} it is right about {_share(scores['accuracy'])}."
    if "calibration_error" in scores:
        off = scores["calibration_error"]["value"]
        yield f"Its probabilities are off by {_of_hundred(off)} in 100 on average."


def _threshold(decision: Any, positive: str) -> Iterator[str]:
    if isinstance(decision, Mapping) and "threshold" in decision:
        yield f"It names one of the {positive} from a probability of {_of_hundred(decision['threshold'])} in 100 on."
    elif decision == "most_probable" or decision is None:
        yield f"It names one of the {positive} where that is more likely than not."


def _of_numbers(scores: Mapping[str, Entry], baseline: Mapping[str, float]) -> Iterator[str]:
    if "mae" in scores:
        yield f"Its number is off by {_number(scores['mae'])} on average."
    usual = baseline.get("mae")
    if usual:
        yield f"Giving always the usual number would be off by {short(usual)}."
    if "coverage" in scores:
        inside = _share(scores["coverage"])
        yield f"With each number comes a range in which 80 of 100 true values should lie; {inside} did."
    in_words_already = {"mae", "coverage", "rows", "rmse"}
    if "mae" not in scores:
        for name, entry in sorted(scores.items()):
            if name not in in_words_already and "value" in entry:
                yield f"{name.replace('_', ' ')}: {_number(entry)}."


def _of_hundred(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.01 or share == 0 else f"{100 * share:.1g}"


def _share(entry: Entry) -> str:
    if "low" not in entry:
        return _of_hundred(entry["value"])
    return f"{_of_hundred(entry['value'])} ({_of_hundred(entry['low'])} to {_of_hundred(entry['high'])})"


def _number(entry: Entry) -> str:
    return short(entry["value"]) + (f" ({short(entry['low'])} to {short(entry['high'])})" if "low" in entry else "")


# ── limits ────────────────────────────────────────────────────────────────────────────────────────


def _unsure(model: ModelFacts) -> Iterator[str]:
    release = _release(model)
    if release is not None:
        yield from worst_groups(release, model.section.gate.loss)
    for alarm in model.alarms[:WORST]:
        yield f"Now, since {day(str(alarm.get('opened', ''))[:10])}: {alarm.get('what', alarm.get('kind', ''))}"
    if any(feature.nullable for feature in model.section.features.values()):
        yield "Some of what it looks at may be missing; it answers all the same, with less to go by."
    yield "What it never saw (a new place, a new product) it answers by what is usual, and the answer says so."


def worst_groups(release: ReleaseFacts, loss: str) -> Iterator[str]:
    """The groups of rows for which it is beyond doubt worse than on the whole."""
    usual = release.overall.get(loss, {}).get("value")
    if usual is None:
        return
    groups = [
        (entry["metrics"][loss], column, name)
        for column, of in release.slices.items()
        for name, entry in of.items()
        if "low" in entry["metrics"].get(loss, {}) and entry["metrics"][loss]["low"] > usual
    ]
    named = [f"{column} {name}" for _, column, name in sorted(groups, key=lambda each: -each[0]["low"])[:WORST]]
    if named:
        yield f"It is worse than on the whole for: {', '.join(named)}."


def _not_for(model: ModelFacts) -> Iterator[str]:
    if model.section.card.not_for:
        yield from model.section.card.not_for
    else:
        yield "Its owners have not said it yet (params.yaml: card.not_for)."
    limits = [
        f"{name} between {short(feature.min)} and {short(feature.max)}"
        for name, feature in model.section.features.items()
        if isinstance(feature.min, int | float) and isinstance(feature.max, int | float)
    ]
    if limits:
        yield f"Anything outside of what it is made for is refused, not guessed: {listed(limits, 5)}."
    yield "It says what went along with what in the past, and not what causes what."


def _inputs(model: ModelFacts) -> Iterator[str]:
    release, features = _release(model), model.section.features
    yield f"Its data: {', '.join(model.section.datasets)}."
    if release is not None:
        until = f", the newest of {day(release.until[:10])}" if release.until else ""
        yield f"It learned from {many(release.rows, 'row')}{until}."
    weights = release.importance if release is not None else {}
    ranked = sorted(features, key=lambda name: -weights.get(name, {}).get("value", 0.0))
    units = {name: f" ({feature.unit})" if feature.unit else "" for name, feature in features.items()}
    named = [f"{features[name].about.rstrip('.')}{units[name]}" for name in ranked[:FEATURES]]
    more = f"; and {len(ranked) - FEATURES} more" if len(ranked) > FEATURES else ""
    first = ", what matters most first" if weights else ""
    yield f"For each of the {model.section.card.rows}{first}: {'; '.join(named)}{more}."


def _judged(model: ModelFacts) -> Iterator[str]:
    state = facts.unbroken(model.serving)
    if state.live is None:
        yield "It does not answer anybody yet."
    else:
        yield f"Version {state.live.version} answers since {day(state.live.since[:10])}."
    verdicts = [] if isinstance(model.verdicts, Broken) else model.verdicts
    if not verdicts:
        yield "No candidate was compared with it yet."
        return
    last = verdicts[-1]
    checks = many(len(last["checks"]), "check")
    when = day(last["time"][:10])
    outcome = "promoted" if last["promoted"] else "refused"
    yield f"Version {last['version']} was judged last, on {when}, by {checks}, and {outcome}."
    holdout = last["holdout"]
    if "from" in holdout:
        days = f"{day(holdout['from'][:10])} to {day(holdout['until'][:10])}"
        who = "it and the version before answered" if last["champion"] else "it answered"
        rows = f"{holdout['compared']:,} {model.section.card.rows}"
        yield f"For that, {who} {rows} of {days}, from which nothing was learned."


def _release(model: ModelFacts) -> ReleaseFacts | None:
    return facts.unbroken(model.release) if model.release is not None else None
