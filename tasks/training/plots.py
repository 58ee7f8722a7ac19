"""Pictures of an evaluation. Each title states the result, with its number.

The curves are also JSON, for `dvc plots`: roc.json, pr.json and calibration.json, all with `x` and `y`, so that
dvc.yaml names the whole folder, whichever of them a model has.

Drawn with matplotlib's Figure alone, no pyplot: nothing global is left behind, and equal input gives equal bytes.
Colours are those of Okabe and Ito (2008), which people with a colour vision deficiency can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.ground import files, numbers
from tasks.modelling import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tasks.ground.params import Feature
    from tasks.training.appraisal import Appraisal
    from tasks.training.explain import Curve

Floats = npt.NDArray[np.float64]

BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
INK, GREY, PALE = "#222222", "#6B6B6B", "#E3E3E3"
DENSITY = LinearSegmentedColormap.from_list("density", ["#F4F8FB", "#9CC4E0", "#3B82B0", "#0B3C5D"])

WIDTH, DPI = 7.3, 110  # about 800 pixels
LONGEST = 75
"""Characters of a title that fit; a longer one is set smaller."""

CURVES = 4
"""Features whose partial dependence is drawn."""

FEATURES, SLICES, POINTS = 15, 30, 200
"""Most features and slices in a picture; most points of a curve in a JSON file."""

NAMES = {
    "log_loss": "log loss",
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "mae": "mean absolute error",
    "calibration_error": "calibration error",
}


def draw(
    folder: Path, appraisal: Appraisal, importance: pd.DataFrame, curves: list[Curve], features: Mapping[str, Feature]
) -> None:
    """Draw everything that fits the task into a folder: PNG files for people, JSON files for `dvc plots`.

    Args:
        folder: made if it is not there.
        appraisal: of the model on its holdout.
        importance: of `explain.permutation_importance`.
        curves: of `explain.partial_dependence`.
        features: of params.yaml, for units.
    """
    folder.mkdir(exist_ok=True)
    defaults = {key: value for key, value in mpl.rcParamsDefault.items() if key not in _NOT_STYLE}
    plain = {**defaults, "axes.unicode_minus": True, "path.simplify": True, "text.parse_math": False}
    if appraisal.task == "regression":
        of_task = (_predicted_observed, _residuals)
    else:
        of_task = (_ranking if len(appraisal.predictions.columns) == 2 else _confusion, _calibration)
    with mpl.rc_context(plain):  # whatever a person's matplotlibrc says
        for picture in (*of_task, _slices):
            picture(folder, appraisal)
        _importance(folder, appraisal, importance)
        _partial_dependence(folder, appraisal, curves, features)


# ── two classes ───────────────────────────────────────────────────────────────────────────────────


def _ranking(folder: Path, appraisal: Appraisal) -> None:
    """ROC and precision-recall, side by side; nothing where all rows are of one class."""
    if "roc_auc" not in appraisal.overall:
        return
    scores, positive = metrics.top_label(appraisal.rows["label"], appraisal.predictions)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # rows of equal score come in together
    hits = np.cumsum(positive[order])[last]
    false = np.cumsum(1 - positive[order])[last]
    recall, precision = hits / hits[-1], hits / (hits + false)
    fallout, base = np.append(0, false / false[-1]), positive.mean()
    files.write_json(folder / "roc.json", _curve_records(fallout, np.append(0, recall)))
    files.write_json(folder / "pr.json", _curve_records(recall, precision))

    auc, ap = appraisal.overall["roc_auc"], appraisal.overall["average_precision"]
    figure, (left, right) = _figure(
        f"A positive row ranks above a negative one in {_percent(auc['value'])} of pairs",
        _basis(appraisal),
        (1, 2),
        4.5,
    )
    left.plot([0, 1], [0, 1], color=GREY, lw=1, ls=(0, (4, 3)))
    left.plot(*_thinned(fallout, np.append(0, recall)), color=BLUE, lw=2)
    _axes(left, "False positive rate", "True positive rate", f"ROC: AUC {_with_range(auc)}")
    left.text(0.62, 0.56, "chance", color=GREY, fontsize=8.5, rotation=42, ha="center", va="center")
    right.axhline(base, color=GREY, lw=1, ls=(0, (4, 3)))
    right.plot(*_thinned(recall, precision), color=BLUE, lw=2)
    _axes(right, "Recall", "Precision", f"Precision-recall: AP {_with_range(ap)}")
    right.text(0.01, base - 0.015, f"all rows: {_percent(base)} positive", color=GREY, fontsize=8.5, va="top")
    for panel in (left, right):
        panel.set(xlim=(0, 1), ylim=(0, 1.02))
    _save(figure, folder / "ranking.png")


def _calibration(folder: Path, appraisal: Appraisal) -> None:
    """What was predicted against what came true, in bins of equal mass; with two classes of the positive one."""
    confidence, right = metrics.top_label(appraisal.rows["label"], appraisal.predictions)
    table = _binned(folder, confidence, right, appraisal.blocks)

    many = len(appraisal.predictions.columns) > 2
    error = appraisal.overall["calibration_error"]
    title = f"Predicted and observed shares differ by {100 * error['value']:.1f} points on average"
    figure, (axes,) = _figure(title, _basis(appraisal), (1, 1), 4.9, right=0.97)
    highest = float(np.nanmax(table[["x", "high", "y"]].to_numpy()))
    top = 1.0 if highest > 0.7 else max(1.08 * highest, 0.01)
    axes.plot([0, top], [0, top], color=GREY, lw=1, ls=(0, (4, 3)))
    _dots(axes, table["x"], table["y"], table["low"], table["high"], BLUE, joined=True)
    what = "Probability of the predicted class" if many else "Predicted probability of the positive class"
    came = "Share of right predictions" if many else "Share that was positive"
    _axes(axes, what, came)
    axes.set(xlim=(0, 1.01 * top), ylim=(0, 1.02 * top))
    axes.text(0.985 * top, 0.9 * top, "perfect", color=GREY, fontsize=8.5, ha="right", va="top")
    counts, edges = np.histogram(confidence, bins=40, range=(0, top))
    beneath = axes.inset_axes((0, 0, 1, 0.13), zorder=0)
    beneath.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=PALE)
    beneath.set(xlim=(0, 1.01 * top), ylim=(0, counts.max() * 1.05))
    beneath.axis("off")
    rows = _count(int(table["rows"].median()))
    note = f"Dots: bins of {rows} rows, with intervals. Grey: how the rows are spread."
    _save(figure, folder / "calibration.png", note)


# ── more classes ──────────────────────────────────────────────────────────────────────────────────


def _confusion(folder: Path, appraisal: Appraisal) -> None:
    """Which class is taken for which: shares of the true class."""
    names = [column.removeprefix("p_") for column in appraisal.predictions.columns]
    predicted = np.array(names)[appraisal.predictions.to_numpy().argmax(axis=1)]
    table = pd.crosstab(appraisal.rows["label"].astype(str).to_numpy(), predicted)
    counts = table.reindex(index=names, columns=names, fill_value=0).to_numpy()
    wrong = counts - np.diag(np.diag(counts))
    title = f"{_percent(appraisal.overall['accuracy']['value'], 1)} of rows get the right label"
    if wrong.sum():
        i, j = np.unravel_index(wrong.argmax(), wrong.shape)
        title += f"; most often {names[i]} is taken for {names[j]} ({wrong[i, j]} of {counts[i].sum()})"
    figure, (axes,) = _figure(title, _basis(appraisal), (1, 1), 6.2, left=0.1, right=0.97)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap=DENSITY, vmin=0, vmax=1, aspect="auto")  # the root: rare mistakes are to be seen
    if len(names) <= 20:
        for i, j in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[i, j] > 0.3 else INK
            axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=colour, fontsize=9)
    _axes(axes, "Predicted label", "True label", grid=False)
    step = -(-len(names) // 20)
    shown = [_fitting(name, 10) for name in names[::step]]
    long = sum(map(len, shown)) > 80
    axes.set_xticks(range(0, len(names), step), shown, rotation=90 if long else 0)
    axes.set_yticks(range(0, len(names), step), shown)
    if long:
        figure.subplots_adjust(left=0.16, bottom=0.2)
    _save(figure, folder / "confusion.png")


# ── regression ────────────────────────────────────────────────────────────────────────────────────


def _predicted_observed(folder: Path, appraisal: Appraisal) -> None:
    """Where rows lie, and the mean label of rows with like predictions."""
    predicted = appraisal.predictions["prediction"].to_numpy(dtype=np.float64)
    label = appraisal.rows["label"].to_numpy(dtype=np.float64)
    table = _binned(folder, predicted, label, appraisal.blocks)

    title = f"Predictions are off by {_short(appraisal.overall['mae']['value'])} on average"
    if label.min() >= 0 and label.sum() > 0:
        total = predicted.sum() / label.sum() - 1
        title += f", and {_percent(abs(total), 1)} too {'high' if total > 0 else 'low'} in total"
    figure, (axes,) = _figure(title, _basis(appraisal), (1, 1), 5.3)
    low, high = np.quantile(np.concatenate([predicted, label]), [0.001, 0.999])
    low, high = (0.0 if 0 <= low < 0.1 * high else low), high + (0.02 * (high - low) or 1.0)
    whole = np.array_equal(label, np.round(label)) and high - low <= 80
    edges = np.arange(np.floor(low) - 0.5, np.ceil(high) + 1) if whole else np.linspace(low, high, 41)
    density, _, _ = np.histogram2d(predicted, label, bins=[np.linspace(low, high, 41), edges])
    shown = np.ma.masked_equal(np.log1p(density.T), 0)
    axes.pcolormesh(np.linspace(low, high, 41), edges, shown, cmap=DENSITY, rasterized=True)
    axes.plot([low, high], [low, high], color=GREY, lw=1, ls=(0, (4, 3)))
    _dots(axes, table["x"], table["y"], table["low"], table["high"], ORANGE)
    _axes(axes, "Prediction", "Label")
    axes.set(xlim=(low, high), ylim=(min(low, float(edges[0])), high))
    _save(
        figure,
        folder / "predicted_observed.png",
        "Blue: rows, darker is more. Dots: means of a tenth of the rows each, with intervals.",
    )


def _residuals(folder: Path, appraisal: Appraisal) -> None:
    """How far predictions are off, day by day: the mean, and the middle 80 % of rows."""
    residual = pd.Series(
        appraisal.predictions["prediction"].to_numpy() - appraisal.rows["label"].to_numpy(dtype=np.float64)
    )
    by_day = residual.groupby(appraisal.rows["time"].dt.normalize().to_numpy())
    table = pd.DataFrame({"mean": by_day.mean(), "low": by_day.quantile(0.1), "high": by_day.quantile(0.9)})
    days = pd.DatetimeIndex(table.index)
    worst = int(table["mean"].abs().to_numpy().argmax())
    value = float(table["mean"].iloc[worst])
    title = f"Worst on {days[worst]:%Y-%m-%d}: {_short(abs(value))} too {'high' if value > 0 else 'low'} on average"
    figure, (axes,) = _figure(title, _basis(appraisal, interval=False), (1, 1), 4.2)
    axes.axhline(0, color=GREY, lw=1)
    axes.vlines(days, table["low"], table["high"], color=SKY, lw=2.5, alpha=0.55)
    axes.plot(days, table["mean"], color=BLUE, lw=1, marker="o", ms=4)
    axes.plot(days[worst : worst + 1], [value], color=ORANGE, marker="o", ms=7, ls="")
    _axes(axes, "", "Prediction minus label")
    _date_ticks(axes, days)
    _save(figure, folder / "residuals.png", "Dots: mean of a day. Bars: the middle 80 % of its rows.")


# ── every task ────────────────────────────────────────────────────────────────────────────────────


def _slices(folder: Path, appraisal: Appraisal) -> None:
    """The headline metric of each slice, with its interval, beside the overall one."""
    metric = metrics.headline(appraisal.task)
    records: list[dict[str, Any]] = [
        {"slice": f"{column} {value}", "rows": entry["rows"], "low": None, "high": None, **entry["metrics"][metric]}
        for column, values in appraisal.slices.items()
        for value, entry in values.items()
        if metric in entry["metrics"]
    ]
    if not records:
        return
    largest = sorted(records, key=lambda r: (-r["rows"], r["slice"]))[:SLICES]
    ranked = sorted(largest, key=lambda r: (r["value"], r["slice"]))
    table = pd.DataFrame(ranked).astype({"low": np.float64, "high": np.float64})
    overall, name = appraisal.overall[metric], NAMES[metric]
    title, height = _slices_title(table, overall["value"], name), 1.5 + 0.19 * max(len(table), 6)
    figure, (axes,) = _figure(title, _basis(appraisal), (1, 1), height, left=0.17, right=0.9)
    at = np.arange(len(table))
    if "low" in overall:
        axes.axvspan(overall["low"], overall["high"], color=PALE, lw=0, zorder=0)
    axes.axvline(overall["value"], color=GREY, lw=1)
    worse = table["low"].to_numpy(dtype=float) > overall["value"]
    for members, colour in ((~worse, BLUE), (worse, ORANGE)):
        part = table.loc[members]
        axes.hlines(at[members], part["low"], part["high"], color=colour, lw=2, alpha=0.6)
        axes.plot(part["value"], at[members], color=colour, marker="o", ms=5, ls="")
    _axes(axes, f"{name[0].upper()}{name[1:]}", "", grid="x")
    axes.set_yticks(at, table["slice"].map(_fitting).tolist())
    axes.set_ylim(-0.7, len(table) - 0.3)
    transform = axes.get_yaxis_transform()
    for position, text in enumerate([*map(_count, table["rows"].tolist()), "rows"]):
        axes.text(1.01, position, text, transform=transform, color=GREY, fontsize=8, va="center_baseline")
    _save(figure, folder / "slices.png", "Grey: overall. Orange: slices whose whole interval is worse than that.")


def _slices_title(table: pd.DataFrame, overall: float, name: str) -> str:
    """The slice that is worst for certain: the one whose interval begins highest, not one of four unlucky rows."""
    certain = table[table["low"] > overall]
    if certain.empty:
        return f"No slice stands out from the overall {name} of {_short(overall)}"
    worst = certain.iloc[int(certain["low"].to_numpy().argmax())]
    return f"Hardest slice: {worst['slice']}, {name} {_short(worst['value'])} (overall {_short(overall)})"


def _importance(folder: Path, appraisal: Appraisal, importance: pd.DataFrame) -> None:
    """How much worse the headline metric gets without each feature."""
    table = importance.head(FEATURES)[::-1].reset_index(drop=True)
    first, name = importance.iloc[0], NAMES[metrics.headline(appraisal.task)]
    title = f"{first['feature']} matters most: shuffled, the {name} grows by {_short(first['importance'])}"
    basis, height = _basis(appraisal, sample=int(first["rows"])), 1.5 + 0.22 * max(len(table), 6)
    figure, (axes,) = _figure(title, basis, (1, 1), height, left=0.17)
    at = np.arange(len(table))
    axes.axvline(0, color=GREY, lw=1)
    axes.barh(at, table["importance"], color=SKY, height=0.62)
    axes.hlines(at, table["low"], table["high"], color=INK, lw=1.4)
    _axes(axes, f"Growth of the {name} when the feature is shuffled", "", grid="x")
    axes.set_yticks(at, table["feature"].map(_fitting).tolist())
    axes.set_ylim(-0.6, len(table) - 0.4)
    shown = "" if len(table) == len(importance) else f" The first {len(table)} of {len(importance)} features."
    _save(figure, folder / "importance.png", f"Bars: means over permutations. Lines: intervals.{shown}")


def _partial_dependence(
    folder: Path, appraisal: Appraisal, curves: list[Curve], features: Mapping[str, Feature]
) -> None:
    """The mean prediction along each of the most important features."""
    if not curves:
        return
    shape, basis = (2, 2) if len(curves) > 2 else (1, len(curves)), _basis(appraisal, sample=curves[0].rows)
    figure, panels = _figure(_dependence_title(curves), basis, shape, 3.1 + 2.5 * (shape[0] - 1))
    shown = _most_moving(curves)
    for panel, curve in zip(panels, curves, strict=False):
        _draw_curve(panel, curve, shown, features)
    limits = np.array([panel.get_ylim() for panel in panels[: len(curves)]])
    for number, panel in enumerate(panels):
        panel.set_ylim(limits[:, 0].min(), limits[:, 1].max())
        panel.set_visible(number < len(curves))
        if number % 2:
            panel.set_ylabel("")
    if len(shown) > 1:
        panels[0].legend(fontsize=8, frameon=False, ncols=2, loc="upper left")
    _save(figure, folder / "partial_dependence.png")


def _draw_curve(panel: Axes, curve: Curve, shown: list[str], features: Mapping[str, Feature]) -> None:
    words = isinstance(curve.points[0], str)
    x: Any = np.arange(len(curve.points)) if words else np.array(curve.points)
    for colour, column in zip((BLUE, ORANGE, GREEN, PURPLE), shown, strict=False):
        i = curve.columns.index(column)
        if words:
            panel.vlines(x, curve.low[:, i], curve.high[:, i], color=colour, lw=2, alpha=0.5)
            panel.plot(x, curve.mean[:, i], color=colour, marker="o", ms=4.5, ls="", label=_class_name(column))
        else:
            panel.fill_between(x, curve.low[:, i], curve.high[:, i], color=colour, alpha=0.2, lw=0)
            panel.plot(x, curve.mean[:, i], color=colour, lw=1.8, marker="o", ms=2.5, label=_class_name(column))
    unit = features[curve.feature].unit
    label = "Mean prediction" if curve.columns == ["prediction"] else "Mean probability"
    _axes(panel, f"{curve.feature} ({unit})" if unit else curve.feature, label)
    if words:
        panel.set_xticks(x, [_fitting(str(v), 40 // len(x)) for v in curve.points], fontsize=8)
        panel.set_xlim(-0.6, len(x) - 0.4)
    elif features[curve.feature].type == "integer":
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _dependence_title(curves: list[Curve]) -> str:
    first = curves[0]
    i = int(np.ptp(first.mean, axis=0).argmax())
    low, high = first.mean[:, i].min(), first.mean[:, i].max()
    digits = int(np.clip(2 - np.floor(np.log10(max(abs(low), abs(high), 1e-9))), 0, 4))
    span = f"{low:.{digits}f} to {high:.{digits}f}"
    if first.columns[i] != "prediction":
        span = f"{_percent(low)} to {_percent(high)}"
    of = f" for {_class_name(first.columns[i])}" if len(first.columns) > 1 else ""
    return f"Along {first.feature}, the mean prediction{of} goes from {span}"


def _most_moving(curves: list[Curve]) -> list[str]:
    """The columns to draw: of many classes the four whose probability moves most."""
    columns = curves[0].columns
    moves = np.max([np.ptp(curve.mean, axis=0) for curve in curves], axis=0)
    return [columns[i] for i in sorted(np.argsort(-moves, kind="stable")[:4])]


# ── one style ─────────────────────────────────────────────────────────────────────────────────────

_NOT_STYLE = {
    key
    for key in mpl.rcParamsDefault
    if key.startswith(("backend", "tk.", "webagg.", "savefig.directory", "interactive"))
}


def _figure(
    title: str, subtitle: str, shape: tuple[int, int], height: float, *, left: float = 0.09, right: float = 0.985
) -> tuple[Figure, list[Axes]]:
    """A figure with a title that says the finding, and its panels row by row.

    Margins are fixed, in inches: a layout engine takes longer than all of the drawing.
    """
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    size = min(12.0, 12 * LONGEST / max(len(title), 1))
    figure.text(0.015, 1 - 0.13 / height, title, fontsize=size, fontweight="bold", color=INK, va="top")
    figure.text(0.015, 1 - 0.42 / height, subtitle, fontsize=8.5, color=GREY, va="top")
    head = 0.72 if shape == (1, 1) else 0.95
    panels = figure.subplots(*shape, squeeze=False).ravel().tolist()
    figure.subplots_adjust(
        left=left, right=right, top=1 - head / height, bottom=0.72 / height, wspace=0.22, hspace=0.38
    )
    return figure, panels


def _axes(axes: Axes, x: str, y: str, title: str = "", grid: Any = "both") -> None:
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)
    if title:
        axes.set_title(title, fontsize=9.5, color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=8.5, colors=INK, length=3, color=GREY)
    if grid:
        axes.grid(axis=grid, color=PALE, lw=0.6)
        axes.set_axisbelow(True)


def _dots(axes: Axes, x: Any, y: Any, low: Any, high: Any, colour: str, joined: bool = False) -> None:
    axes.vlines(x, low, high, color=colour, lw=2, alpha=0.5)
    axes.plot(x, y, color=colour, marker="o", ms=5.5, lw=1 if joined else 0, mec="white", mew=0.6)


def _date_ticks(axes: Axes, days: pd.DatetimeIndex) -> None:
    chosen = days[:: -(-len(days) // 8)]
    axes.set_xticks(chosen, [f"{day:%d %b}" if i else f"{day:%d %b %Y}" for i, day in enumerate(chosen)])


def _save(figure: Figure, path: Path, note: str = "") -> None:
    figure.text(0.985, 0.012, note, color=GREY, fontsize=8, ha="right")
    with files.replacing(path) as beside:
        figure.savefig(beside, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4})


# ── numbers and words ─────────────────────────────────────────────────────────────────────────────


def _basis(appraisal: Appraisal, *, interval: bool = True, sample: int | None = None) -> str:
    """How much a picture rests on."""
    time = appraisal.rows["time"]
    span = f"{time.min():%Y-%m-%d} to {time.max():%Y-%m-%d}" if appraisal.days > 1 else f"{time.min():%Y-%m-%d}"
    unit = f"{appraisal.days} days" if appraisal.by_day else "rows"
    rows = _count(len(time)) if sample in (None, len(time)) else f"{_count(sample or 0)} of {_count(len(time))}"
    return f"{rows} holdout rows, {span}" + (f" · intervals: 95 %, resampling {unit}" if interval else "")


def _interval(values: Floats, blocks: npt.NDArray[np.int64]) -> tuple[float, float]:
    return metrics.interval(metrics.bootstrap_means(values, blocks, 500, 0), 0.95)


def _with_range(entry: Mapping[str, float]) -> str:
    return f"{entry['value']:.3f}" + (f" ({entry['low']:.3f} to {entry['high']:.3f})" if "low" in entry else "")


def _class_name(column: str) -> str:
    return column.removeprefix("p_")


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _count(number: int) -> str:
    return f"{number:,}"


def _short(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _fitting(text: str, most: int = 18) -> str:
    """A text for a tick, cut where there is no room for more."""
    most = max(most, 4)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _plain(record: Mapping[Any, Any]) -> dict[str, Any]:
    """A record as JSON has it: nine digits, null for what is not known."""

    def plain(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        return numbers.short(value) if np.isfinite(value) else None

    return {str(key): plain(value) for key, value in record.items()}


def _thinned(*columns: Floats) -> Iterable[Floats]:
    """At most POINTS points, evenly along the curve's length, with both ends."""
    x, y = columns
    along = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    at = np.unique(np.searchsorted(along, np.linspace(0, along[-1], POINTS)))
    return x[at], y[at]


def _curve_records(x: Floats, y: Floats) -> list[dict[str, Any]]:
    return [_plain({"x": float(a), "y": float(b)}) for a, b in zip(*_thinned(x, y), strict=True)]


def _binned(folder: Path, predicted: Floats, observed: Floats, blocks: npt.NDArray[np.int64]) -> pd.DataFrame:
    """What was predicted (x) and what came true (y, low, high) in bins of equal mass; written as calibration.json."""
    bins = metrics.calibration_bins(predicted)
    records = []
    for number in np.unique(bins):
        members = bins == number
        low, high = _interval(observed[members], blocks[members])
        means = {"x": float(predicted[members].mean()), "y": float(observed[members].mean())}
        records.append({**means, "low": low, "high": high, "rows": int(members.sum())})
    files.write_json(folder / "calibration.json", [_plain(record) for record in records])
    return pd.DataFrame(records)
