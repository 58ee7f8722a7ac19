"""`python -m tests.repository.family_proof`: docs/reference/families.md, each cell from a run of the real stages.

Each case is the small project's model with another estimator: trained, evaluated, packaged, tracked, judged, asked,
scored as a batch, and harmed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import REPOSITORY, Project, forget_models

PAGE = REPOSITORY / "docs" / "reference" / "families.md"

HEAD = """\
# Families of estimators

`estimator.class` may be a class of any installed package. Of these libraries the platform knows what their model files
may hold, how they come out the same on every machine, and how far their answers may be off (`tasks/runtime/families`):
scikit-learn, LightGBM, XGBoost and CatBoost ([packages](../how-to/packages.md) says how they are installed).

| | model file | the same everywhere because | one row is answered by |
| --- | --- | --- | --- |
| scikit-learn | its objects, by skops | seeds; a search forgets how long its fits took | Treelite (forests, histogram boosting), else itself |
| LightGBM | the library's text, in skops' archive | seeds, `deterministic`, `force_row_wise`, threads by the environment | the library's booster, without its wrapper |
| XGBoost | the library's binary JSON, in skops' archive | seeds, threads by the environment | Treelite, in single precision |
| CatBoost | the library's own format, in skops' archive | seeds; its random name, its time and its number of threads are taken out | itself |

What you set in `estimator.params` stays as you set it. A CatBoost model that was loaded and written again has other
bytes, and answers the same. None of these is loaded through pickle.

## Proof

Written by `python -m tests.repository.family_proof`; `tests/repository/test_families.py` runs the same and holds the
lines against it. Each line is the small test project with another estimator. **same bytes**: the training here, one in
another process, and one there on two threads give one hash; «on one thread»: the last does not, as sums are rounded
otherwise. A project trains on one thread unless `EVERGREEN_THREADS` says more, and that is then part of what a model is
made of ([arithmetic](../decisions/arithmetic.md)). **packaged alone**: its Bento answered the whole holdout as it
was evaluated, in an interpreter that knows the release and the packages of its `requirements.txt`, and nothing else. **golden rows**: answered as evaluated, by the predictor
that serves. **gate**: what its verdict says. **rollout**: behind the router, while four clients ask,
it gives way to another release and comes back; how many requests failed. **explained**: base and contributions add up to the answer. **drift and quality**: the monitor measures
a month of its answers by their labels and opens no alarm, and opens one of drift for a month that is otherwise. **batch**: its
rows, 25 at once, are answered as online one by one, to the bit or as close as is said. **harmed file**: one bit changed, and it is not loaded. **lineage**: the
release's requirements name the library and its version. **tolerance**: how far an answer may be off that is computed
again, relative to values above 1 (`training.tolerance` of release.json). **regression**: the family's regressor on a number of the same project, through the
same stages: the mean absolute error of its packaged release, and of the constant that its gate compares it with.

"""  # noqa: E501 - the lines of a table


@dataclass(frozen=True)
class FamilyCase:
    """An estimator, as params.yaml names it, and as the pipeline wraps it."""

    title: str
    class_: str
    params: str
    distribution: str
    regressor: str = ""
    """The estimator of numbers beside it."""
    wrap: str = "estimator"
    """What stands in the pipeline's place of the estimator."""


BAGGED = "{n_estimators: 20, subsample: 0.8, subsample_freq: 1}"
CALIBRATED = "CalibratedClassifierCV(estimator, cv=2)"
STACKED = "StackingClassifier([('first', estimator)], cv=2)"
SEARCHED = "GridSearchCV(estimator, {'max_depth': [2, 3]}, cv=2)"
TUNED = "TunedThresholdClassifierCV(estimator, scoring='f1', cv=2, random_state=0)"
FIXED = "FixedThresholdClassifier(estimator, threshold=0.4)"

SKLEARN, ENSEMBLE, PROCESS = "scikit-learn", "sklearn.ensemble", "sklearn.gaussian_process"
BOOSTED = "HistGradientBoosting"

CASES = [
    FamilyCase("linear", "sklearn.linear_model.LogisticRegression", "{C: 1.0}", SKLEARN, "Ridge"),
    FamilyCase("tree", "sklearn.tree.DecisionTreeClassifier", "{max_depth: 3}", SKLEARN, "DecisionTreeRegressor"),
    FamilyCase("forest", f"{ENSEMBLE}.RandomForestClassifier", "{n_estimators: 20}", SKLEARN, "RandomForestRegressor"),
    FamilyCase("boosted", f"{ENSEMBLE}.{BOOSTED}Classifier", "{max_iter: 20}", SKLEARN, f"{BOOSTED}Regressor"),
    FamilyCase("Gaussian process", f"{PROCESS}.GaussianProcessClassifier", "{}", SKLEARN, "GaussianProcessRegressor"),
    FamilyCase("LightGBM", "lightgbm.LGBMClassifier", BAGGED, "lightgbm", "LGBMRegressor"),
    FamilyCase("XGBoost", "xgboost.XGBClassifier", "{n_estimators: 20, subsample: 0.8}", "xgboost-cpu", "XGBRegressor"),
    FamilyCase("CatBoost", "catboost.CatBoostClassifier", "{iterations: 20}", "catboost", "CatBoostRegressor"),
    FamilyCase("LightGBM, calibrated", "lightgbm.LGBMClassifier", "{n_estimators: 20}", "lightgbm", wrap=CALIBRATED),
    FamilyCase("LightGBM, searched", "lightgbm.LGBMClassifier", "{n_estimators: 20}", "lightgbm", wrap=SEARCHED),
    FamilyCase("XGBoost, stacked", "xgboost.XGBClassifier", "{n_estimators: 20}", "xgboost-cpu", wrap=STACKED),
    FamilyCase("XGBoost, threshold tuned", "xgboost.XGBClassifier", "{n_estimators: 20}", "xgboost-cpu", wrap=TUNED),
    FamilyCase("CatBoost, threshold fixed", "catboost.CatBoostClassifier", "{iterations: 20}", "catboost", wrap=FIXED),
]  # fmt: skip


def proved(case: FamilyCase, project: Project, *, dear: bool) -> dict[str, str]:
    """Column → cell, of a small project that this process works on; those that take long only where that is asked."""
    from tests.tasks.release.small_release import MODEL, make_release

    project.edit("params.yaml", "class: sklearn.linear_model.LogisticRegression", f"class: {case.class_}")
    project.edit("params.yaml", "params: {C: 1.0}", f"params: {case.params}")
    wrapped = f'("estimator", {case.wrap})'
    project.edit(f"models/{MODEL}/pipeline/__init__.py", '("estimator", estimator)', wrapped)
    imports = (
        "from sklearn.calibration import CalibratedClassifierCV\nfrom sklearn.ensemble import StackingClassifier\n"
        "from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV\n"
    )
    project.edit(f"models/{MODEL}/pipeline/__init__.py", "from sklearn.base", f"{imports}from sklearn.base")
    make_release()
    return {name: check(project, case) for name, check in CHECKS.items() if dear or name not in DEAR}


def line(case: FamilyCase, cells: dict[str, str]) -> str:
    """A line of the table."""
    return f"| {case.title} | {' | '.join(cells[name] for name in COLUMNS)} |"


def _build(project: Project) -> Path:
    return project.root / "build" / "tiny"


def _same_bytes(project: Project, _case: FamilyCase) -> str:
    from tasks.ground import files

    model = _build(project) / "model" / "model.skops"
    own, kept, hashes = files.sha256(model), files.tree(model.parent), {}
    beside = model.parent.with_name("kept")
    model.parent.rename(beside)
    for threads in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tasks", "train", "tiny"], cwd=project.root, check=False, capture_output=True,
            text=True, env={**os.environ, "EVERGREEN_THREADS": threads, "PYTHONHASHSEED": "5"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        hashes[threads] = files.sha256(model)
        files.remove(model.parent)
    beside.rename(model.parent)
    assert files.tree(model.parent) == kept
    if hashes["1"] != own:
        return "no"
    return "✓" if hashes["2"] == own else "on one thread"


def _auc(project: Project, _case: FamilyCase) -> str:
    return f"{json.loads((_build(project) / 'evaluation' / 'metrics.json').read_text())['roc_auc']:.3f}"


def _predictor(project: Project) -> Any:
    from tasks.runtime.predictor import Predictor

    return Predictor(_build(project) / "release")


def _golden(project: Project, _case: FamilyCase) -> str:
    import pandas as pd

    from tasks.release.package import package

    release = _build(project) / "release"
    golden = json.loads((release / "golden.json").read_text())
    body = json.dumps({"rows": [row["row"] for row in golden]}).encode()
    (answer,) = _predictor(project).predict([body])
    evaluated = pd.DataFrame([row["predicted"] for row in golden])
    facts = package.release_facts(release)
    answers = json.loads(answer.body)["predictions"]
    return "no" if package.differences(evaluated, answers, package.tolerance(facts)) else "✓"


def _gate(project: Project, _case: FamilyCase) -> str:
    from tasks.release import comparison

    return "promoted" if comparison.judge_candidate("tiny").promoted else "refused"


def _explained(project: Project, _case: FamilyCase) -> str:
    golden = json.loads((_build(project) / "release" / "golden.json").read_text())
    answer = json.loads(_predictor(project).explain(json.dumps({"row": golden[0]["row"]}).encode()).body)
    total = answer["base"] + sum(each["contribution"] for each in answer["contributions"])
    return "✓" if abs(total - answer["value"]) < 1e-6 else "no"


def _batch(project: Project, _case: FamilyCase) -> str:
    import pandas as pd

    from tasks.ground import params
    from tasks.release.batch import batch
    from tasks.release.package import package

    rows = pd.read_parquet(_build(project) / "rows" / "2013-03.parquet").head(60)
    rows.to_parquet(project.root / "asked.parquet", index=False)
    candidate = json.loads((_build(project) / "release" / "candidate.json").read_text())["candidate"]
    scored = batch.score(
        "tiny", str(project.root / "asked.parquet"), to=str(project.root / "scored"), version=candidate, chunk=25,
        log=lambda _: None,
    )  # fmt: skip
    answers = pd.read_parquet(project.root / scored.to)["probability"].tolist()
    asked = package.request_rows(rows, params.load().model("tiny"))
    predictor = _predictor(project)
    online = [
        json.loads(predictor.predict([json.dumps({"rows": [row]}).encode()])[0].body)["predictions"][0]["probability"]
        for row in asked
    ]
    return "✓" if answers == online else f"within {max(abs(a - b) for a, b in zip(answers, online, strict=True)):.0e}"


def _harmed(project: Project, _case: FamilyCase) -> str:
    from tasks.ground.errors import ModelFileRefused

    path = _build(project) / "release" / "model.skops"
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    try:
        _predictor(project)
    except ModelFileRefused:
        return "refused"
    finally:
        path.write_bytes(content)
    return "loaded"


def _tolerance(project: Project, _case: FamilyCase) -> str:
    facts = json.loads((_build(project) / "release" / "release.json").read_text())
    return f"{facts['training']['tolerance']:.0e}"


def _lineage(project: Project, case: FamilyCase) -> str:
    from importlib.metadata import version

    pinned = f"{case.distribution}=={version(case.distribution)}"
    requirements = (_build(project) / "release" / "requirements.txt").read_text().splitlines()
    return "✓" if any(line.startswith(pinned) for line in requirements) else "no"


def _rolled_out(project: Project, _case: FamilyCase) -> str:
    """Requests that failed while another release of the model took over, and the first one came back."""
    from tasks.ground import files, paths
    from tasks.ground.http import free_port
    from tests.deployments.routed import Routed, load

    candidate = json.loads((_build(project) / "release" / "candidate.json").read_text())["candidate"]
    golden = json.loads((_build(project) / "release" / "golden.json").read_text())
    body = json.dumps({"rows": [golden[0]["row"]]}).encode()
    routed = Routed(project.root, candidate, free_port(), "tiny")
    routed.variant("another000000000")
    routed.want(candidate)
    routed.start("")
    try:
        routed.serve(candidate)
        with load(routed.port, 4, body, "/tiny/predict") as seen:
            for live in ("another000000000", candidate):
                seen.has_asked(50)
                routed.serve(live)
            seen.has_asked(50)
    finally:
        routed.stop()
    files.remove(paths.predictions("tiny"))  # the monitor looks at what comes next
    assert {release for _, release in seen.answers} == {candidate, "another000000000"}
    return f"{len(seen.failures)} failed"


def _watched(project: Project, _case: FamilyCase) -> str:
    """What the monitor says of a month that is as those before it, and of one with pumps of another kind."""
    import pandas as pd

    from tests.conftest import write_readings
    from tests.kinds import story

    reports = []
    for month, moved in ((4, 0.0), (5, 4.0)):
        write_readings(project.root, month)
        story.make_rows("tiny", "readings")
        rows = pd.read_parquet(_build(project) / "rows" / f"2013-{month:02d}.parquet").sort_values("time")
        rows = rows.assign(pressure=rows["pressure"] + moved).astype({"vibration": object})
        rows["vibration"] = rows["vibration"].where(rows["vibration"].notna(), None)
        story.ask("tiny", rows, datetime(2026, 11, 20 + month, 12, tzinfo=UTC), a_request=8)
        reports.append(story.look("tiny"))
    usual, other = reports
    is_measured = any("roc_auc" in (window["measured"] or ()) for window in usual["quality"]["windows"])
    is_measured = is_measured and not usual["alarms"]
    return "✓" if is_measured and any("pressure" in json.dumps(alarm) for alarm in other["alarms"]) else "no"


def _regression(project: Project, case: FamilyCase) -> str:
    """Mean absolute errors: of the regressor's packaged release, and of the baseline."""
    if not case.regressor:
        return "–"
    from tests.tasks.release.small_release import MODEL, make_release

    own = "{}" if case.title == "linear" else case.params
    project.edit("params.yaml", f"class: {case.class_}", f"class: {case.class_.rpartition('.')[0]}.{case.regressor}")
    project.edit("params.yaml", f"params: {case.params}", f"params: {own}")
    project.edit("params.yaml", "task: classification", "task: regression")
    project.edit("params.yaml", "loss: log_loss", "loss: absolute")
    project.edit("params.yaml", "floors: {roc_auc: 0.6}", "floors: {}")
    flag = '(readings["failures"] > fails_above).astype("int64")'
    project.edit(f"models/{MODEL}/rows/__init__.py", flag, '4 - readings["pressure"] + readings["vibration"].fillna(1)')
    with pytest.MonkeyPatch.context() as patch:
        forget_models(patch)
        make_release()
    metrics = json.loads((_build(project) / "evaluation" / "metrics.json").read_text())
    return f"{metrics['mae']:.3f} against {metrics['baseline']['mae']:.3f}"


CHECKS: dict[str, Callable[[Project, FamilyCase], str]] = {
    "same bytes": _same_bytes,
    "ROC AUC": _auc,
    "packaged alone": lambda *_: "✓",  # else there were no release
    "golden rows": _golden,
    "gate": _gate,
    "rollout": _rolled_out,
    "explained": _explained,
    "batch": _batch,
    "drift and quality": _watched,
    "harmed file": _harmed,
    "lineage": _lineage,
    "tolerance": _tolerance,
    "regression": _regression,
}
"""The columns, in their order."""

COLUMNS = tuple(CHECKS)
DEAR = {"rollout", "drift and quality", "regression"}


def page(lines: list[str]) -> str:
    """The whole page."""
    table = f"| | {' | '.join(COLUMNS)} |\n|{' --- |' * (len(COLUMNS) + 1)}\n"
    return HEAD + table + "".join(f"{line}\n" for line in lines)


def write(case: FamilyCase, cells: dict[str, str], folder: str) -> None:
    """Keep a line until all are there."""
    Path(folder, f"{CASES.index(case):02d}").write_text(line(case, cells), encoding="utf-8")


def written(case: FamilyCase) -> dict[str, str]:
    """What the page says of a case."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    (own,) = [each for each in lines if each.startswith(f"| {case.title} |") and each.count("|") == len(COLUMNS) + 2]
    return dict(zip(COLUMNS, own.strip("| ").split(" | ")[1:], strict=True))


def main() -> None:
    """Prove each, and write the page; a line that could not be proven stays as it is."""
    with TemporaryDirectory() as folder:
        chosen = ["-n", "0", "-q", "-m", "slow or long", "-o", "timeout=1800", "tests/repository/test_families.py"]
        own = {**os.environ, "EVERGREEN_WRITE_FAMILIES": folder}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *chosen, *sys.argv[1:]], cwd=REPOSITORY, env=own, check=False
        )
        lines = PAGE.read_text(encoding="utf-8").splitlines()[-len(CASES) :]
        for path in Path(folder).iterdir():
            lines[int(path.name)] = path.read_text(encoding="utf-8")
    PAGE.write_text(page(lines), encoding="utf-8")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
