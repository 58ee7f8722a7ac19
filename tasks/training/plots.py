"""Pictures of an evaluation. Each title states the result, with its number.

The curves are also JSON, for `dvc plots`: roc.json, pr.json and calibration.json, all with `x` and `y`, so that
dvc.yaml names the whole folder, whichever of them a model has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tasks.ground import files, numbers
from tasks.ground.task_kinds import KINDS
from tasks.modelling import metrics
from tasks.pictures.figures import BLUE, GREEN, GREY, INK, ORANGE, PALE, PURPLE, SKY, png, styled
from tasks.runtime import answer_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tasks.ground.params import Feature
    from tasks.training.appraisal import Appraisal
    from tasks.training.explain import Curve

Floats = npt.NDArray[np.float64]

DENSITY = LinearSegmentedColormap.from_list("density", ["#F4F8FB", "#9CC4E0", "#3B82B0", "#0B3C5D"])
DASHED: dict[str, Any] = {"color": GREY, "lw": 1, "ls": (0, (4, 3))}

TICKS = {"labelsize": 8.5, "labelcolor": INK, "color": GREY, "major.size": 3}
STYLE = {
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelsize": 9.5,
    "axes.titlesize": 9.5,
    "grid.linewidth": 0.6,
    **{f"{axis}tick.{name}": value for axis in "xy" for name, value in TICKS.items()},
}
WIDTH, DPI = 7.3, 110  # about 800 pixels
LONGEST = 75
"""Characters of a title that fit; a longer one is set smaller."""

CURVES = 4
"""Features whose partial dependence is drawn."""

FEATURES, SLICES, POINTS = 15, 30, 200
"""Most features and slices in a picture; most points of a curve in a JSON file."""


def draw(
    folder: Path, appraisal: Appraisal, importance: pd.DataFrame, curves: list[Curve], features: Mapping[str, Feature]
) -> None:
    """Draw everything that fits the task into a folder: PNG files for people, JSON files for `dvc plots`.

    `importance` and `curves` are as explain.py gives them; `features` has the units.
    """
    folder.mkdir(exist_ok=True)
    with styled(STYLE):
        if "label" in appraisal.rows:
            _of_task(folder, appraisal)
        for column in answer_columns.labels(appraisal.rows.columns) if "label" not in appraisal.rows else []:
            output = answer_columns.split(column)[0]
            (folder / output).mkdir()
            _of_task(folder / output, appraisal.of_output(output))
        _slices(folder, appraisal)
        _importance(folder, appraisal, importance)
        if curves:
            _partial_dependence(folder, appraisal, curves, features)


def _of_task(folder: Path, appraisal: Appraisal) -> None:
    """What is drawn of one label."""
    of_task: tuple[Callable[[Path, Appraisal], None], ...]
    if appraisal.task in ("regression", "forecast"):
        of_task = (_predicted_observed, _residuals) if appraisal.days else (_predicted_observed,)
    elif appraisal.task == "anomaly":
        of_task = (_alerts, _ranking) if appraisal.days else (_ranking,)
    else:
        of_task = (_ranking if len(metrics.scores_of(appraisal.predictions).columns) == 2 else _confusion, _calibration)
    for picture in of_task:
        picture(folder, appraisal)


# ── two classes ───────────────────────────────────────────────────────────────────────────────────


def _ranking(folder: Path, appraisal: Appraisal) -> None:
    """ROC and precision-recall, side by side; nothing where all rows are of one class."""
    if "roc_auc" not in appraisal.overall:
        return
    from sklearn.metrics import precision_recall_curve, roc_curve

    scores, positive = _scores_and_truth(appraisal)
    fallout, sensitivity, _ = roc_curve(positive, scores, drop_intermediate=False)
    precision, recall, _ = precision_recall_curve(positive, scores)
    roc = _thinned(fallout, sensitivity)
    ranked = _thinned(recall[-2::-1], precision[-2::-1])  # without the point (0, 1), which no threshold has
    _write_points(folder / "roc.json", roc)
    _write_points(folder / "pr.json", ranked)

    auc, ap = appraisal.overall["roc_auc"], appraisal.overall["average_precision"]
    title = f"A positive row ranks above a negative one in {_percent(auc['value'])} of pairs"
    with _picture(folder / "ranking.png", title, _basis(appraisal), 4.5, shape=(1, 2)) as (left, right):
        left.plot([0, 1], [0, 1], **DASHED)
        left.plot(roc["x"], roc["y"], color=BLUE, lw=2)
        left.set(xlabel="False positive rate", ylabel="True positive rate", title=f"ROC: AUC {_with_range(auc)}")
        left.text(0.62, 0.56, "chance", color=GREY, fontsize=8.5, rotation=42, ha="center", va="center")
        base = positive.mean()
        right.axhline(base, **DASHED)
        right.plot(ranked["x"], ranked["y"], color=BLUE, lw=2)
        right.set(xlabel="Recall", ylabel="Precision", title=f"Precision-recall: AP {_with_range(ap)}")
        right.text(0.01, base - 0.015, f"all rows: {_percent(base)} positive", color=GREY, fontsize=8.5, va="top")
        for panel in (left, right):
            panel.set(xlim=(0, 1), ylim=(0, 1.02))


def _calibration(folder: Path, appraisal: Appraisal) -> None:
    """What was predicted against what came true, in bins of equal mass; with two classes of the positive one."""
    confidence, right = metrics.top_label(appraisal.rows["label"], appraisal.predictions)
    table = _binned(folder, confidence, right, appraisal.blocks)
    highest = float(np.nanmax(table[["x", "high", "y"]].to_numpy()))
    top = 1.0 if highest > 0.7 else max(1.08 * highest, 0.01)
    error = appraisal.overall["calibration_error"]["value"]
    title = f"Predicted and observed shares differ by {100 * error:.1f} points on average"
    note = f"Dots: bins of {int(table['rows'].median()):,} rows, with intervals. Grey: how the rows are spread."
    with _picture(folder / "calibration.png", title, _basis(appraisal), 4.9, note=note, right=0.97) as (axes,):
        axes.plot([0, top], [0, top], **DASHED)
        _dots(axes, table, BLUE, joined=True)
        if len(metrics.scores_of(appraisal.predictions).columns) > 2:
            axes.set(xlabel="Probability of the predicted class", ylabel="Share of right predictions")
        else:
            axes.set(xlabel="Predicted probability of the positive class", ylabel="Share that was positive")
        axes.set(xlim=(0, 1.01 * top), ylim=(0, 1.02 * top))
        axes.text(0.985 * top, 0.9 * top, "perfect", color=GREY, fontsize=8.5, ha="right", va="top")
        counts, edges = np.histogram(confidence, bins=40, range=(0, top))
        beneath = axes.inset_axes((0, 0, 1, 0.13), zorder=0)
        beneath.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=PALE)
        beneath.set(xlim=(0, 1.01 * top), ylim=(0, counts.max() * 1.05))
        beneath.axis("off")


def _scores_and_truth(appraisal: Appraisal) -> tuple[Floats, Floats]:
    """The score of each row that has a label, and 1.0 where it is of the positive class, or an anomaly."""
    if appraisal.task != "anomaly":
        return metrics.top_label(appraisal.rows["label"], appraisal.predictions)
    is_known = appraisal.rows["label"].notna().to_numpy()
    return appraisal.predictions["anomaly_score"].to_numpy()[is_known], appraisal.rows["label"].to_numpy()[is_known]


# ── anomalies ─────────────────────────────────────────────────────────────────────────────────────


def _alerts(folder: Path, appraisal: Appraisal) -> None:
    """How many alerts each day has, and how the scores are spread about the threshold."""
    scores, alerts = (appraisal.predictions[name].to_numpy() for name in ("anomaly_score", "prediction"))
    by_day = pd.Series(alerts).groupby(appraisal.rows["time"].dt.normalize().to_numpy()).sum()
    days = pd.DatetimeIndex(by_day.index)
    rate = appraisal.overall["alert_rate"]
    title = f"{_percent(rate['value'], 2)} of the rows raise an alert, {by_day.mean():.3g} a day"
    note = f"In training {_percent(appraisal.baseline['alert_rate'], 2)} were to be expected."
    with _picture(folder / "alerts.png", title, _basis(appraisal), 4.2, shape=(1, 2), note=note) as (left, right):
        left.plot(days, by_day, color=BLUE, lw=1, marker="o", ms=4)
        ticks = days[:: -(-len(days) // 5)]
        left.set_xticks(ticks, [f"{day:%d %b}" for day in ticks])
        left.set(ylabel="Alerts", title="Alerts of each day", ylim=(0, None))
        right.hist(scores, bins=50, color=SKY)
        right.axvline(0, color=ORANGE, lw=1.4)
        right.set(xlabel="Score: above 0 is an alert", ylabel="Rows", yscale="log", title="Scores")


# ── more classes ──────────────────────────────────────────────────────────────────────────────────


def _confusion(folder: Path, appraisal: Appraisal) -> None:
    """Which class is taken for which: shares of the true class."""
    names = [column.removeprefix("p_") for column in metrics.scores_of(appraisal.predictions).columns]
    predicted = np.array(names)[metrics.decided(appraisal.predictions)]
    table = pd.crosstab(appraisal.rows["label"].astype(str).to_numpy(), predicted)
    counts = table.reindex(index=names, columns=names, fill_value=0).to_numpy()
    wrong = counts - np.diag(np.diag(counts))
    title = f"{_percent(appraisal.overall['accuracy']['value'], 1)} of rows get the right label"
    if wrong.sum():
        i, j = np.unravel_index(wrong.argmax(), wrong.shape)
        title += f"; most often {names[i]} is taken for {names[j]} ({wrong[i, j]} of {counts[i].sum()})"
    step = -(-len(names) // 20)
    ticks, texts = range(0, len(names), step), [_cut(name, 10) for name in names[::step]]
    is_long = sum(map(len, texts)) > 80
    margins: dict[str, Any] = {"left": 0.16, "bottom": 0.2} if is_long else {"left": 0.1}
    with _picture(folder / "confusion.png", title, _basis(appraisal), 6.2, right=0.97, **margins) as (axes,):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(np.sqrt(shares), cmap=DENSITY, vmin=0, vmax=1, aspect="auto")  # the root shows rare mistakes
        if len(names) <= 20:
            for i, j in zip(*np.nonzero(counts), strict=True):
                colour = "white" if shares[i, j] > 0.3 else INK
                axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=colour, fontsize=9)
        axes.set(xlabel="Predicted label", ylabel="True label")
        axes.grid(visible=False)
        axes.set_xticks(ticks, texts, rotation=90 if is_long else 0)
        axes.set_yticks(ticks, texts)


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
    low, high = np.quantile(np.concatenate([predicted, label]), [0.001, 0.999])
    low, high = (0.0 if 0 <= low < 0.1 * high else low), high + (0.02 * (high - low) or 1.0)
    is_whole = np.array_equal(label, np.round(label)) and high - low <= 80
    columns = np.linspace(low, high, 41)
    edges = np.arange(np.floor(low) - 0.5, np.ceil(high) + 1) if is_whole else columns
    density, _, _ = np.histogram2d(predicted, label, bins=[columns, edges])
    note = "Blue: rows, darker is more. Dots: means of a tenth of the rows each, with intervals."
    with _picture(folder / "predicted_observed.png", title, _basis(appraisal), 5.3, note=note) as (axes,):
        shown = np.ma.masked_equal(np.log1p(density.T), 0)
        axes.pcolormesh(columns, edges, shown, cmap=DENSITY, rasterized=True)
        axes.plot([low, high], [low, high], **DASHED)
        _dots(axes, table, ORANGE)
        axes.set(xlabel="Prediction", ylabel="Label", xlim=(low, high), ylim=(min(low, float(edges[0])), high))


def _residuals(folder: Path, appraisal: Appraisal) -> None:
    """How far predictions are off, day by day: the mean, and the middle 80 % of rows."""
    predicted, label = appraisal.predictions["prediction"].to_numpy(), appraisal.rows["label"].to_numpy(dtype=float)
    by_day = pd.Series(predicted - label).groupby(appraisal.rows["time"].dt.normalize().to_numpy())
    mean, low, high = by_day.mean(), by_day.quantile(0.1), by_day.quantile(0.9)
    days = pd.DatetimeIndex(mean.index)
    worst = int(mean.abs().to_numpy().argmax())
    value = float(mean.iloc[worst])
    title = f"Worst on {days[worst]:%Y-%m-%d}: {_short(abs(value))} too {'high' if value > 0 else 'low'} on average"
    note = "Dots: mean of a day. Bars: the middle 80 % of its rows."
    with _picture(folder / "residuals.png", title, _basis(appraisal, interval=False), 4.2, note=note) as (axes,):
        axes.axhline(0, color=GREY, lw=1)
        axes.vlines(days, low, high, color=SKY, lw=2.5, alpha=0.55)
        axes.plot(days, mean, color=BLUE, lw=1, marker="o", ms=4)
        axes.plot(days[worst : worst + 1], [value], color=ORANGE, marker="o", ms=7, ls="")
        axes.set_ylabel("Prediction minus label")
        ticks = days[:: -(-len(days) // 8)]
        axes.set_xticks(ticks, [f"{day:%d %b}" if i else f"{day:%d %b %Y}" for i, day in enumerate(ticks)])


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
    overall, name, height = (
        appraisal.overall[metric],
        KINDS[appraisal.task].headline_words,
        1.5 + 0.19 * max(len(table), 6),
    )
    title, basis = _slices_title(table, overall["value"], name), _basis(appraisal)
    note = "Grey: overall. Orange: slices whose whole interval is worse than that."
    with _picture(folder / "slices.png", title, basis, height, note=note, left=0.17, right=0.9) as (axes,):
        at = np.arange(len(table))
        if "low" in overall:
            axes.axvspan(overall["low"], overall["high"], color=PALE, lw=0, zorder=0)
        axes.axvline(overall["value"], color=GREY, lw=1)
        worse = table["low"].to_numpy(dtype=float) > overall["value"]
        for members, colour in ((~worse, BLUE), (worse, ORANGE)):
            part = table.loc[members]
            axes.hlines(at[members], part["low"], part["high"], color=colour, lw=2, alpha=0.6)
            axes.plot(part["value"], at[members], color=colour, marker="o", ms=5, ls="")
        _name_rows(axes, f"{name[0].upper()}{name[1:]}", table["slice"])
        axes.set_ylim(-0.7, len(table) - 0.3)
        transform = axes.get_yaxis_transform()
        for position, text in enumerate([*(f"{rows:,}" for rows in table["rows"]), "rows"]):
            axes.text(1.01, position, text, transform=transform, color=GREY, fontsize=8, va="center_baseline")


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
    first, kind = importance.iloc[0], KINDS[appraisal.task]
    name = kind.headline_words if kind.has_loss_by_row else kind.number
    change = "moves" if appraisal.task == "anomaly" else "grows"
    title = f"{first['feature']} matters most: shuffled, the {name} {change} by {_short(first['importance'])}"
    basis, height = _basis(appraisal, sample=int(first["rows"])), 1.5 + 0.22 * max(len(table), 6)
    part = "" if len(table) == len(importance) else f" The first {len(table)} of {len(importance)} features."
    note = f"Bars: means over permutations. Lines: intervals.{part}"
    with _picture(folder / "importance.png", title, basis, height, note=note, left=0.17) as (axes,):
        at = np.arange(len(table))
        axes.axvline(0, color=GREY, lw=1)
        axes.barh(at, table["importance"], color=SKY, height=0.62)
        axes.hlines(at, table["low"], table["high"], color=INK, lw=1.4)
        what = f"Distance that the {name} moves" if change == "moves" else f"Growth of the {name}"
        _name_rows(axes, f"{what} when the feature is shuffled", table["feature"])
        axes.set_ylim(-0.6, len(table) - 0.4)


def _partial_dependence(
    folder: Path, appraisal: Appraisal, curves: list[Curve], features: Mapping[str, Feature]
) -> None:
    """The mean prediction along each of the most important features; of many classes the four that move most."""
    moves = np.max([np.ptp(curve.mean, axis=0) for curve in curves], axis=0)
    shown = {curves[0].columns[i]: i for i in sorted(np.argsort(-moves, kind="stable")[:4])}
    shape, basis = (2, 2) if len(curves) > 2 else (1, len(curves)), _basis(appraisal, sample=curves[0].rows)
    height, title = 3.1 + 2.5 * (shape[0] - 1), _dependence_title(curves[0])
    with _picture(folder / "partial_dependence.png", title, basis, height, shape=shape) as panels:
        for panel, curve in zip(panels, curves, strict=False):
            _draw_curve(panel, curve, shown, features[curve.feature])
        limits = np.array([panel.get_ylim() for panel in panels[: len(curves)]])
        for number, panel in enumerate(panels):
            panel.set_ylim(limits[:, 0].min(), limits[:, 1].max())
            panel.set_visible(number < len(curves))
            if number % 2:
                panel.set_ylabel("")
        if len(shown) > 1:
            panels[0].legend(fontsize=8, frameon=False, ncols=2, loc="upper left")


def _draw_curve(panel: Axes, curve: Curve, shown: Mapping[str, int], feature: Feature) -> None:
    is_text = isinstance(curve.points[0], str)
    x: Any = np.arange(len(curve.points)) if is_text else np.array(curve.points)
    for colour, (column, i) in zip((BLUE, ORANGE, GREEN, PURPLE), shown.items(), strict=False):
        mean, low, high = curve.mean[:, i], curve.low[:, i], curve.high[:, i]
        style: dict[str, Any] = {"color": colour, "marker": "o", "label": _of_column(column)}
        if is_text:
            panel.vlines(x, low, high, color=colour, lw=2, alpha=0.5)
            panel.plot(x, mean, ms=4.5, ls="", **style)
        else:
            panel.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
            panel.plot(x, mean, lw=1.8, ms=2.5, **style)
    panel.set_xlabel(f"{curve.feature} ({feature.unit})" if feature.unit else curve.feature)
    is_number = all(answer_columns.split(column)[1] == "prediction" for column in curve.columns)
    panel.set_ylabel("Mean prediction" if is_number else "Mean probability")
    if is_text:
        panel.set_xticks(x, [_cut(str(value), 40 // len(x)) for value in curve.points], fontsize=8)
        panel.set_xlim(-0.6, len(x) - 0.4)
    elif feature.type == "integer":
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _of_column(column: str) -> str:
    """What a curve is of: a class, or one of several labels, and its class."""
    output, name = answer_columns.split(column)
    return " ".join(filter(None, [output, name.removeprefix("p_") if name != "prediction" else ""])) or name


def _dependence_title(first: Curve) -> str:
    i = int(np.ptp(first.mean, axis=0).argmax())
    low, high = first.mean[:, i].min(), first.mean[:, i].max()
    digits = int(np.clip(2 - np.floor(np.log10(max(abs(low), abs(high), 1e-9))), 0, 4))
    span = f"{low:.{digits}f} to {high:.{digits}f}"
    if answer_columns.split(first.columns[i])[1] != "prediction":
        span = f"{_percent(low)} to {_percent(high)}"
    of = f" for {_of_column(first.columns[i])}" if len(first.columns) > 1 else ""
    return f"Along {first.feature}, the mean prediction{of} goes from {span}"


# ── parts of pictures ─────────────────────────────────────────────────────────────────────────────


@contextmanager
def _picture(
    path: Path,
    title: str,
    basis: str,
    height: float,
    *,
    shape: tuple[int, int] = (1, 1),
    note: str = "",
    **margins: float,
) -> Iterator[list[Axes]]:
    """A figure with a title that says the finding: its panels, row by row; written when the block ends.

    Margins are fixed: a layout engine takes longer than all of the drawing.
    """
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    size = min(12.0, 12 * LONGEST / max(len(title), 1))
    figure.text(0.015, 1 - 0.13 / height, title, fontsize=size, fontweight="bold", va="top")
    figure.text(0.015, 1 - 0.42 / height, basis, fontsize=8.5, color=GREY, va="top")
    figure.text(0.985, 0.012, note, color=GREY, fontsize=8, ha="right")
    head = 0.72 if shape == (1, 1) else 0.95
    edges = {"left": 0.09, "right": 0.985, "top": 1 - head / height, "bottom": 0.72 / height, **margins}
    figure.subplots_adjust(wspace=0.22, hspace=0.38, **edges)
    yield figure.subplots(*shape, squeeze=False).ravel().tolist()
    with files.replacing(path) as beside:
        beside.write_bytes(png(figure))


def _name_rows(axes: Axes, label: str, names: pd.Series[Any]) -> None:
    """The axes of bars and intervals that lie below each other."""
    axes.set_xlabel(label)
    axes.set_yticks(range(len(names)), names.map(_cut).tolist())
    axes.grid(visible=False, axis="y")


def _dots(axes: Axes, table: pd.DataFrame, colour: str, joined: bool = False) -> None:
    axes.vlines(table["x"], table["low"], table["high"], color=colour, lw=2, alpha=0.5)
    axes.plot(table["x"], table["y"], color=colour, marker="o", ms=5.5, lw=1 if joined else 0, mec="white", mew=0.6)


def _basis(appraisal: Appraisal, *, interval: bool = True, sample: int | None = None) -> str:
    """How much a picture rests on."""
    time = appraisal.rows["time"]
    ends = [f"{end:%Y-%m-%d}" for end in (time.min(), time.max())] if appraisal.days else ["without a time"]
    span = " to ".join(dict.fromkeys(ends))
    unit = f"{appraisal.days} days" if appraisal.by_day else "rows"
    rows = f"{len(time):,}" if sample in (None, len(time)) else f"{sample:,} of {len(time):,}"
    return f"{rows} holdout rows, {span}" + (f" · intervals: 95 %, resampling {unit}" if interval else "")


def _with_range(entry: Mapping[str, float]) -> str:
    return f"{entry['value']:.3f}" + (f" ({entry['low']:.3f} to {entry['high']:.3f})" if "low" in entry else "")


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _short(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _cut(text: str, most: int = 18) -> str:
    """A text for a tick, cut where there is no room for more."""
    most = max(most, 4)
    return text if len(text) <= most else f"{text[: most - 1]}…"


# ── points ────────────────────────────────────────────────────────────────────────────────────────


def _binned(folder: Path, predicted: Floats, observed: Floats, blocks: npt.NDArray[np.int64]) -> pd.DataFrame:
    """What was predicted (x) and what came true (y, low, high) in bins of equal mass; written as calibration.json."""
    bins = metrics.calibration_bins(predicted)
    records = []
    for number in np.unique(bins):
        members = bins == number
        low, high = metrics.interval(metrics.bootstrap_means(observed[members], blocks[members], 500, 0), 0.95)
        means = {"x": predicted[members].mean(), "y": observed[members].mean()}
        records.append({**means, "low": low, "high": high, "rows": int(members.sum())})
    table = pd.DataFrame(records)
    _write_points(folder / "calibration.json", table)
    return table


def _thinned(x: Floats, y: Floats) -> pd.DataFrame:
    """At most POINTS points, evenly along the curve's length, with both ends."""
    along = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    at = np.unique(np.searchsorted(along, np.linspace(0, along[-1], POINTS)))
    return pd.DataFrame({"x": x[at], "y": y[at]})


def _write_points(path: Path, table: pd.DataFrame) -> None:
    """JSON records: nine digits, null for what is not known."""

    def plain(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        return numbers.short(value) if np.isfinite(value) else None

    files.write_json(path, [{str(k): plain(v) for k, v in record.items()} for record in table.to_dict("records")])
