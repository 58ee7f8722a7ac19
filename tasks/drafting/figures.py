"""Figures of a first evaluation in words: what they mean, against the baseline."""

from __future__ import annotations

from typing import Any


def in_words(task: str, measured: dict[str, Any]) -> list[str]:
    """Sentences for whoever sees such figures for the first time.

    Args:
        task: of the model.
        measured: metrics.json, as `evaluate` writes it.
    """
    rows = f"On {measured.get('rows', 0):,} rows that it did not learn from"
    if task == "anomaly":
        return _of_alerts(measured, rows)
    measure = "log_loss" if task == "classification" else "mae"
    loss, base = measured.get(measure), measured.get("baseline", {}).get(measure)
    if loss is None or base is None or not base:
        return [f"{rows}: see `dvc metrics show`"]
    gain = 1 - loss / base
    if gain < 0.01:
        looks = "which says what was a season before" if task == "forecast" else "which looks at no feature"
        return [f"{rows} it is no better than the baseline, {looks}: what training has seen does not hold there."]
    sentences = [_of_loss(task, rows, loss, base)]
    if (area := measured.get("roc_auc")) is not None and task == "classification":
        sentences.append(
            f"Of two rows, one of each class, it puts the right one first in {area:.0%} (by chance: half)."
        )
    if (share := measured.get("coverage")) is not None and task == "forecast":
        sentences.append(f"{share:.0%} of the values lie within its intervals; eight of ten are meant to.")
    if gain > 0.98:
        sentences.append("That is nearly perfect: is a column among the features that is known only afterwards?")
    return sentences


def _of_loss(task: str, rows: str, loss: float, base: float) -> str:
    gain = f"{1 - loss / base:.0%} less"
    if task == "classification":
        trivial = "the baseline, which always answers the shares of the classes,"
        return f"{rows} its log loss is {loss:.3g}; {trivial} has {base:.3g}: {gain}."
    answers = "says what was a season before" if task == "forecast" else "always answers the mean"
    return f"{rows} it is off by {loss:,.4g} on average; the baseline, which {answers}, by {base:,.4g}: {gain}."


def _of_alerts(measured: dict[str, Any], rows: str) -> list[str]:
    sentences = [f"{rows} it raises an alert for {measured.get('alert_rate', 0):.2%}: the strangest."]
    if (stability := measured.get("stability")) is not None:
        sentences.append(
            f"Two models of a half of the rows each rank rows alike by {stability:.2f} (1: the same, 0: chance)."
        )
    if (precision := measured.get("precision_at_k")) is None:
        return [*sentences, "Whether alerts are right nobody has said: rows with a `label` (1, 0, or missing) would."]
    found = measured.get("recall_at_k", 0)
    return [*sentences, f"Of its alerts {precision:.0%} are anomalies by the label, and of these it finds {found:.0%}."]
