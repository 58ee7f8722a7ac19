"""Release packaging: a folder with all that serving needs, its Bento, and the proof that it answers as evaluated.

The folder is content-addressed: what is in it decides the candidate's name, so it holds nothing that differs between
two runs on the same inputs. The Bento is made of the folder whenever it is missing: losing it loses nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from tasks.ground import files, import_closure, locked_packages, params, settings
from tasks.ground.errors import DataMissing, ModelFileRefused, ReleaseDiffers, StageFailed
from tasks.release.package import alone, bento_trial
from tasks.runtime import answer_columns, families, feature_types

if TYPE_CHECKING:
    import pandas as pd

GOLDEN = 20
"""Holdout rows in a release, with their evaluated predictions."""

BINS = 20
"""Of the histogram in which a running release counts its predictions."""

BATCHED, ALONE = 2000, 50
"""How many holdout rows are posted in large requests, and how many of them one by one as well (and timed)."""

TOLERANCE = 1e-9
"""How far an answer may be off, relative to values above 1, where training.json names no other: JSON gives every float
back as it was."""


class TrialProcess(NamedTuple):
    """An interpreter that runs bento_trial.py."""

    python: Path
    tasks: IO[str]
    answers: IO[str]
    log: IO[str]
    """What it printed."""


def package(model_name: str) -> None:
    """The stage: the candidate's model, evaluation and code → build/<model>/release, and its Bento in the store."""
    python = alone.interpreter(_requirements(model_name))
    with _trial(python) as trial, files.replacing(settings.BUILD / model_name / "release") as release:
        write_release(model_name, params.load().model(model_name), release)
        facts = release_facts(release)
        is_new = not bento_folder(facts["name"], facts["candidate"]).exists()
        bento = ensure_bento_of(release, trial)
        try:
            _measure(model_name, release, bento, trial)
        except ReleaseDiffers:
            if is_new:  # a Bento that failed its proof is not left in the store; one that may be serving is
                files.remove(bento)
            raise


def measured(model_name: str) -> dict[str, float]:
    """`latency_ms` (one row, median), `size_mb` and `startup_s` of the packaged release, as first measured here.

    Latency is processor time from request to answer, without a socket: a busy machine must not fail a good candidate.
    What differs from run to run is no output of a stage: it is kept by candidate, and measured again when lost.
    """
    release = settings.BUILD / model_name / "release"
    kept = _measurements(files.read_json(release / "candidate.json")["candidate"])
    if measurements := files.read_state(kept, dict[str, float]()):
        return measurements
    with _trial(alone.interpreter((release / "requirements.txt").read_text(encoding="utf-8"))) as trial:
        return _measure(model_name, release, ensure_bento_of(release), trial)


def _measurements(candidate: str) -> Path:
    return files.memos() / "measured" / f"{candidate}.json"


def release_facts(release: Path) -> dict[str, Any]:
    """What release.json says, and `candidate`: of a folder in build/, or of the `src` of a Bento."""
    return {**files.read_json(release / "release.json"), **files.read_json(release / "candidate.json")}


def identity_of(release: Path) -> str:
    """The candidate of a release folder, computed from what is in it."""
    if not (release / "candidate.json").exists():
        raise DataMissing(f"{release} is not a release: it has no candidate.json. Run the stage package (dvc repro).")
    named = str(files.read_json(release / "candidate.json")["candidate"])
    computed = _identity(release)
    if computed != named:
        raise ModelFileRefused(
            f"{release} was changed after it was packaged: it was candidate {named}, and would be {computed} now. "
            f"It is not used. Restore it (dvc checkout, or `dvc repro` with --force on the stage package)."
        )
    return named


def _identity(release: Path) -> str:
    """The hash of everything in a release but its name. (In a Bento, BentoML adds its own bentofile.yaml.)"""
    hashes = files.tree(release)
    return files.digest({f: sha for f, sha in hashes.items() if f not in {"candidate.json", "bentofile.yaml"}})[:16]


def stored(name: str, candidate: str) -> Path | None:
    """The folder of a candidate's Bento in the store, if it is whole and holds exactly what its name says."""
    bento = bento_folder(name, candidate)
    is_whole = (bento / "bento.yaml").is_file() and (bento / "src" / "candidate.json").is_file()
    return bento if is_whole and _identity(bento / "src") == candidate else None


def forget_unused(name: str, kept: Collection[str], days: float) -> list[str]:
    """Remove a model's old Bentos; gives their candidates. The registry has their releases.

    A store outside this project may be shared: nothing is removed there.

    Those in `kept` (live, warm, being tried) stay, and so does the newest, which BentoML calls `latest`.
    """
    if not _store().is_relative_to(settings.VAR):
        return []
    bentos = sorted((_store() / name).glob("*/bento.yaml"), key=lambda path: path.stat().st_mtime)
    before = time.time() - days * 86_400
    old = [path.parent for path in bentos[:-1] if path.stat().st_mtime < before and path.parent.name not in kept]
    for bento in old:
        files.remove(bento)
    return [bento.name for bento in old]


# ── the folder ────────────────────────────────────────────────────────────────────────────────────


def write_release(name: str, model: params.Model, release: Path) -> None:
    """Write everything that the service needs into a folder, and the candidate's name."""
    build = settings.BUILD / name
    release.mkdir(parents=True)
    from tasks.runtime import model_file

    packages = model_file.packages(build / "model" / "model.skops")
    for source, target in sources(name, packages).items():
        (release / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, release / target)
    shutil.copyfile(build / "model" / "model.skops", release / "model.skops")
    files.write_text(release / "requirements.txt", _requirements(name))
    files.write_json(release / "release.json", describe(name, model))
    files.write_json(release / "golden.json", golden(name, model))
    files.write_json(
        release / "background.json", files.read_json(settings.BUILD / name / "model" / "seen.json")["background"]
    )
    files.write_json(release / "candidate.json", {"candidate": files.digest(files.tree(release))[:16]})


def _requirements(name: str) -> str:
    """The pins that a release needs, as the environment stage found them."""
    lines = (
        (settings.BUILD / name / "environment" / "serving.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    )
    return "".join(line for line in lines if not line.startswith("#"))


def sources(name: str, packages: Collection[str] = ()) -> dict[Path, Path]:
    """The code of a release, as file → its place in it: tasks/runtime, and the model's own code.

    Args:
        name: the model's.
        packages: whose types its model file holds: of no other library anything is taken along.
    """
    root = settings.ROOT
    pipeline = root / "models" / name / "pipeline"
    needed = import_closure.closure(pipeline / "__init__.py", root) | {root / "tasks" / "__init__.py"}
    for folder in (root / "tasks" / "runtime", pipeline):  # tables that its code reads, for one
        needed |= {path for path in folder.rglob("*") if path.is_file()}
    needed -= _of_other_families(packages)
    targets = {path: path.relative_to(root) for path in sorted(needed)}
    private = re.compile(r"(^|/)(\.|__pycache__/)")  # byte code, .env, an editor's leavings
    return {path: target for path, target in targets.items() if not private.search(target.as_posix())}


def _of_other_families(packages: Collection[str]) -> set[Path]:
    """What is known of libraries of which the model file holds no type."""
    return {settings.ROOT / path for path in {*families.modules(families.known())} - {*families.modules(packages)}}


def describe(name: str, model: params.Model) -> dict[str, Any]:
    """release.json: what the service reads, and the candidate's lineage."""
    build = settings.BUILD / name
    training = files.read_json(build / "model" / "training.json")
    partitions = files.read_json(build / "partitions.json")
    overall = files.read_json(build / "evaluation" / "metrics.json")
    return {
        "name": name,
        "task": model.task,
        "about": model.about,
        **({"outputs": model.labels} if model.labels else {}),
        "classes": training["classes"],
        "decision": training.get("decision"),
        "columns": list(model.features),  # their order, which JSON with sorted keys does not keep
        "features": model.described(),
        "categories": files.read_json(build / "model" / "seen.json")["categories"],
        "max_rows": model.serving.max_rows,
        "prediction_edges": prediction_edges(name, training["classes"]),
        "model_sha256": files.sha256(build / "model" / "model.skops"),
        "training": training,
        "metrics": {name: value for name, value in overall.items() if isinstance(value, int | float)},
        "lineage": {
            "data": files.digest(partitions),
            "partitions": partitions,
            "estimator": model.estimator.model_dump(by_alias=True),
            "packages": files.sha256(build / "environment" / "serving.txt"),
            "libraries": libraries(name),
        },
    }


def libraries(name: str) -> dict[str, str]:
    """The distributions whose types the model file holds, each with its version.

    Raises:
        StageFailed: the requirements of the release do not name one of them.
    """
    from tasks.runtime import model_file

    pins, path = locked_packages.read_lock(_requirements(name)), settings.BUILD / name / "model" / "model.skops"
    versions = {}
    for package in sorted(families.to_answer(model_file.modules(path)) - {"models", "tasks"}):
        if package in sys.stdlib_module_names:
            continue
        for distribution in locked_packages.that_bring(package):
            if distribution not in pins:
                raise StageFailed(
                    f"models.{name}: its model file holds types of {package}. {_how_to_name(package, name)}"
                )
            versions[distribution] = next(pin.version for pin in pins[distribution] if pin.is_for_here())
    return versions


def golden(name: str, model: params.Model) -> list[dict[str, Any]]:
    """Holdout rows, each with what it was evaluated to: a release can be checked with them anywhere."""
    holdout, evaluated = _evaluated(name, model, GOLDEN)
    if texts := model.of_type("text"):  # a person wrote them: a release carries none, and is asked its own examples
        holdout = holdout.assign(**{text: model.features[text].example for text in texts})
        evaluated = _predicted(name, model, holdout).set_axis(evaluated.index)
    parts = zip(evaluated.index, request_rows(holdout, model), evaluated.to_dict("records"), strict=True)
    return [{"id": id_, "row": row, "predicted": answer} for id_, row, answer in parts]


def prediction_edges(name: str, classes: list[Any] | None) -> list[float]:
    """Where the bins of the predictions end: equal shares of a probability; of a value, as it was evaluated."""
    import numpy as np
    import pandas as pd

    if classes:
        return [round(i / BINS, 9) for i in range(1, BINS)]
    predictions = pd.read_parquet(settings.BUILD / name / "evaluation" / "predictions.parquet")
    own = (
        ["anomaly_score"]
        if "anomaly_score" in predictions
        else [name for name in predictions if answer_columns.split(str(name))[1] == "prediction"]
    )
    evaluated = predictions[own].to_numpy().mean(axis=1)
    return [float(edge) for edge in np.unique(np.quantile(evaluated, np.arange(1, BINS) / BINS, method="lower"))]


def request_rows(frame: pd.DataFrame, model: params.Model) -> list[dict[str, Any]]:
    """Rows as a client would post them."""
    return feature_types.requests(frame, model.described())


def _evaluated(name: str, model: params.Model, most: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """At most so many holdout rows, spread evenly; and their prediction columns, by id."""
    import pandas as pd

    from tasks.modelling import rows

    build = settings.BUILD / name
    predictions = pd.read_parquet(build / "evaluation" / "predictions.parquet").set_index("id")
    holdout = rows.spread(rows.read(build, "holdout", [*model.columns, "id"]), most)
    columns = [column for column in predictions if answer_columns.is_prediction(str(column))]
    return holdout, predictions.loc[holdout["id"], columns]


def _predicted(name: str, model: params.Model, frame: pd.DataFrame) -> pd.DataFrame:
    """What the candidate's model answers to some rows, as its evaluation would."""
    from tasks.runtime import model_file

    pipeline = model_file.load(settings.BUILD / name / "model" / "model.skops", sha256=None, own=f"models.{name}")
    decision = files.read_json(settings.BUILD / name / "model" / "training.json").get("decision")
    return model_file.predict(pipeline, frame[model.columns], model.task, decision)


# ── the Bento ─────────────────────────────────────────────────────────────────────────────────────


def ensure_bento(model_name: str) -> Path:
    """The folder of the Bento of build/<model>/release, as `ensure_bento_of`."""
    return ensure_bento_of(settings.BUILD / model_name / "release")


def ensure_bento_of(release: Path, trial: TrialProcess | None = None) -> Path:
    """The folder of a release's Bento in the store: made of the release when it is missing, half there or changed.

    Args:
        release: a release folder.
        trial: the interpreter that builds it; None: one of its own, if any is needed.
    """
    facts = release_facts(release)
    bento = bento_folder(facts["name"], facts["candidate"])
    with files.lock(f"bento-{bento.parent.name}-{bento.name}"):
        if not stored(bento.parent.name, bento.name):
            files.remove(bento)
            _build_bento(release, facts, bento, trial)
        latest = bento.parent / "latest"
        if not latest.exists() or latest.read_bytes() != bento.name.encode():
            files.write_text(latest, bento.name)  # also when a kill came between the Bento and this
    return bento


def _store() -> Path:
    return Path(_environment()["BENTOML_HOME"]) / "bentos"


def bento_folder(name: str, candidate: str) -> Path:
    """Where the store keeps, or would keep, a Bento; its release is the folder `src` in it."""
    return _store() / name / candidate


def _build_bento(release: Path, facts: dict[str, Any], bento: Path, trial: TrialProcess | None) -> None:
    """Build beside the store and move in: a Bento that is killed half-built would break `bentoml list`."""
    beside = _store().with_name("tmp")
    beside.mkdir(parents=True, exist_ok=True)
    files.sweep(beside)
    with tempfile.TemporaryDirectory(dir=beside, prefix=f".build.{os.getpid()}-", suffix=".tmp") as home:
        task = {
            "do": "build",
            "environment": {"BENTOML_HOME": home},
            "release": str(release),
            "name": facts["name"],
            "version": facts["candidate"],
            "labels": labels(facts),
            "description": f"# {facts['name']}:{facts['candidate']}\n\n{facts['about']}\n",
            "include": sorted(f"/{path}" for path in files.tree(release)),
        }
        with nullcontext(trial) if trial else _interpreter("build") as building:
            built = _do(building, task)
        bento.parent.mkdir(parents=True, exist_ok=True)
        Path(built["path"]).replace(bento)


def labels(facts: dict[str, Any]) -> dict[str, str]:
    """The lineage as a Bento's labels: flat, and short enough for `bentoml get`."""
    lineage, training = facts["lineage"], facts["training"]
    partitions = [(dataset, *each) for dataset, hashes in lineage["partitions"].items() for each in hashes.items()]
    return {
        "candidate": facts["candidate"],
        "data": lineage["data"][:16],
        "estimator": lineage["estimator"]["class"],
        "estimator_params": files.digest(lineage["estimator"])[:16],
        "model_sha256": facts["model_sha256"],
        "packages": lineage["packages"][:16],
        **{f"library.{library}": version for library, version in lineage.get("libraries", {}).items()},
        **{f"trained_{end}": training[end] for end in ("from", "until") if training[end]},  # not every row has a time
        "trained_rows": str(training["rows"]),
        **{f"{dataset}.{Path(file).stem}": md5 for dataset, file, md5 in partitions},
    }


# ── the proof ─────────────────────────────────────────────────────────────────────────────────────


def _measure(name: str, release: Path, bento: Path, trial: TrialProcess) -> dict[str, float]:
    """Post holdout rows to the Bento's service, compare its answers, and keep what was measured meanwhile."""
    facts = release_facts(release)
    tag = f"{name}:{facts['candidate']}"
    model = params.load().model(name)
    holdout, evaluated = _evaluated(name, model, BATCHED)
    rows = request_rows(holdout, model)
    batches = [slice(i, i + facts["max_rows"]) for i in range(0, len(rows), facts["max_rows"])]
    alone = [slice(i, i + 1) for i in range(0, len(rows), max(1, len(rows) // ALONE))]
    asked = {"batches": [rows[i] for i in batches], "alone": [rows[i][0] for i in alone]}
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(_do, trial, {"do": "ask", "bento": str(bento), **asked})
        import_module("mlflow.sklearn")  # the next step needs it, and this process has nothing else to do
        result = answers.result()
    for part, answer in zip([*batches, *alone], [*result["batches"], *result["alone"]], strict=True):
        refuse_difference(tag, evaluated.iloc[part], answer, facts)
    measurements = {
        "latency_ms": round(result["latency_ms"], 3),
        "size_mb": round(sum((release / path).stat().st_size for path in files.tree(release)) / 1e6, 3),
        "startup_s": round(result["startup_s"], 2),
    }
    files.write_json(_measurements(facts["candidate"]), measurements)
    return measurements


def refuse_difference(tag: str, evaluated: pd.DataFrame, answer: dict[str, Any], facts: dict[str, Any]) -> None:
    """Compare one answer of the service (`status`, `body`) with the evaluated predictions of the same rows."""
    if answer["status"] >= 500:
        error = answer["body"]["error"]
        raise ReleaseDiffers(
            f"{tag} fails on holdout rows (HTTP {answer['status']}): {error}{_unnamed(error, facts['name'])}"
        )
    if answer["status"] != 200:
        faults = [
            f"{evaluated.index[f['row']]}: {f['field']}: {f['problem']}" if f["row"] is not None else str(f)
            for f in answer["body"]["detail"][:5]
        ]
        raise ReleaseDiffers(
            f"{tag} refuses holdout rows (HTTP {answer['status']}):\n" + "\n".join(faults) + "\n"
            f"Widen the feature's limits in params.yaml, or mend models/{facts['name']}/rows."
        )
    differing = differences(evaluated, answer["body"]["predictions"], tolerance(facts))
    if differing:
        raise ReleaseDiffers(
            f"{tag} does not answer as it was evaluated; {len(differing)} of {evaluated.size} values differ:\n"
            + "\n".join(differing[:5])
            + "\nTraining and serving do not compute the same: look at bento_service.py and at what the "
            "pipeline does with types and missing values."
        )


def tolerance(facts: dict[str, Any]) -> float:
    """How far an answer of a release may be off, relative to values above 1: as its libraries' arithmetic needs it."""
    return float(facts.get("training", {}).get("tolerance", TOLERANCE))


def differences(evaluated: pd.DataFrame, predictions: list[dict[str, Any]], near: float = TOLERANCE) -> list[str]:
    """Where answers to rows are not what the rows were evaluated as: a line for each value."""
    outputs = {name: answer_columns.split(str(name)) for name in evaluated}
    of_classes = {output for output, name in outputs.values() if name.startswith("p_")}
    decisions = [full for full, (output, name) in outputs.items() if output in of_classes and name == "prediction"]
    decided = [
        f"{row}: was decided for {expected!r} when evaluated, the release answers {answer!r}"
        for column in decisions
        for row, expected, prediction in zip(evaluated.index, evaluated[column].tolist(), predictions, strict=False)
        if (type(expected), expected) != (type(answer := _served(prediction, str(column))), answer)
    ]
    return [*decided, *_number_differences(evaluated.drop(columns=decisions), predictions, near)]


def _number_differences(evaluated: pd.DataFrame, predictions: list[dict[str, Any]], near: float) -> list[str]:
    import numpy as np

    expected = evaluated.to_numpy(dtype=np.float64)
    names = [str(column) for column in evaluated]
    served = [[_served(prediction, name) for name in names] for prediction in predictions]
    values = np.array(served, dtype=np.float64).reshape(expected.shape)
    off = ~(np.abs(values - expected) <= near * np.maximum(1.0, np.abs(expected)))  # a missing one is off as well
    return [
        f"{evaluated.index[row]}: {names[column]} was evaluated as {float(expected[row, column])!r}, the release "
        f"answers {served[row][column]!r}"
        for row, column in np.argwhere(off)
    ]


def _served(prediction: dict[str, Any], column: str) -> Any:
    output, name = answer_columns.split(column)
    is_share = name.startswith("p_")
    given = prediction.get("probabilities" if is_share else answer_columns.IN_JSON.get(name, name))
    if output:
        given = (given or {}).get(output)
    return (given or {}).get(name.removeprefix("p_")) if is_share else given


def _environment() -> dict[str, str]:
    return {**settings.environment(), **os.environ}


_ahead: list[TrialProcess] = []
"""The interpreter that `trial_ahead` has started, until it is used."""


@contextmanager
def trial_ahead(model_name: str) -> Iterator[None]:
    """Start the interpreter that tries a model's next release: it imports for seconds, beside the stages before."""
    with _interpreter("ask", alone.interpreter(_requirements(model_name))) as process:
        _ahead.append(process)
        try:
            yield
        finally:
            _ahead.clear()


def _trial(python: Path) -> AbstractContextManager[TrialProcess]:
    is_ahead = bool(_ahead) and _ahead[0].python == python
    return nullcontext(_ahead.pop()) if is_ahead else _interpreter("ask", python)


@contextmanager
def _interpreter(command: str, python: Path = Path(sys.executable)) -> Iterator[TrialProcess]:
    """A fresh interpreter with bento_trial.py, which sees the packages of that Python and no code of this checkout.

    It imports what it needs while its task is still being prepared, and is ended with the block.
    """
    line = [str(python), "-I", str(Path(bento_trial.__file__)), command]
    pipe, environment = subprocess.PIPE, _environment()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=log, encoding="utf-8", env=environment) as process,
    ):
        assert process.stdin
        assert process.stdout
        try:
            yield TrialProcess(python, process.stdin, process.stdout, log)
        finally:
            process.kill()


def _do(trial: TrialProcess, task: dict[str, Any]) -> dict[str, Any]:
    """Have an interpreter do a task."""
    with suppress(BrokenPipeError):  # it ended while it imported: its log says why
        trial.tasks.write(json.dumps(task, allow_nan=False) + "\n")
        trial.tasks.flush()
    answer = trial.answers.readline()
    if not answer:
        trial.log.seek(0)
        log = trial.log.read().strip()
        model = task.get("name") or Path(task["bento"]).parent.name
        raise StageFailed(f"the packaged service could not be built or tried:\n{log[-3000:]}{_unnamed(log, model)}")
    result: dict[str, Any] = json.loads(answer)
    return result


def _unnamed(failure: str, model: str) -> str:
    """What to do about a package that is installed here, that a release needs, and that it does not name."""
    titles = {family.title: family.package for package in families.known() if (family := families.named(package))}
    missing = re.search(r"(?:No module named '|ModuleNotFoundError: )(\w+)|missing here: (\S+) is not", failure)
    package = (missing[1] or titles.get(missing[2])) if missing else None
    return f"\n{_how_to_name(package, model)}" if package and find_spec(package) else ""


def _how_to_name(package: str, model: str) -> str:
    return (
        f"The release needs {package}, and its requirements.txt does not name it: alone it would not start. It "
        f"names what the pipeline's code imports: write `import {package}` into models/{model}/pipeline/__init__.py."
    )
