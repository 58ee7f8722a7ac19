"""A process that has the heavy libraries imported, and forks for each request.

A stage so runs a project's own code, whatever was edited in it, without the seconds that imports cost.
`python skip_runner.py`; a line is a JSON list of requests.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

HEAVY = (
    "pandas pyarrow.parquet sklearn.linear_model sklearn.compose sklearn.impute sklearn.inspection skops.io pydantic "
    "scipy.stats great_expectations filelock packaging.requirements "
    "dvc.repo.reproduce dvc.repo.add dvc.stage.run dvc_data.index networkx scmrepo.git pyparsing dvc.repo.commit "
    "great_expectations.expectations.core great_expectations.execution_engine.pandas_execution_engine"
)


def serve() -> None:
    """Each line holds requests that are done side by side; the answers come as one line, in their order."""
    import_module("sklearn.utils").all_estimators = list  # see tasks/runtime/skops_io.py
    for name in HEAVY.split():
        import_module(name)
    gc.collect()
    gc.freeze()  # what is shared with the children stays shared
    print("ready", flush=True)
    for line in sys.stdin:
        children = [(_start(request), request) for request in json.loads(line)]
        for child, _ in children:
            os.waitpid(child, 0)
        print(json.dumps([json.loads(Path(request["answer"]).read_text()) for _, request in children]), flush=True)


def _start(request: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the answers' line is not for what steps and DVC say
    answer: dict[str, Any] = {}
    try:
        answer = _do(Path(request["root"]), request)
    except BaseException:  # noqa: BLE001 - whatever it is, the parent tells it
        answer = {"error": traceback.format_exc()}
    finally:
        Path(request["answer"]).write_text(json.dumps(answer))
        os._exit(0)


def _do(root: Path, request: dict[str, Any]) -> dict[str, Any]:
    os.chdir(root)
    sys.path.insert(0, str(root))
    os.environ["EVERGREEN_ROOT"] = str(root)
    settings = import_module("tasks.ground.settings")
    for name, value in settings.environment().items():
        os.environ[name] = value
    _install(request.get("installed", {}))
    sys.modules["tasks.training.plots"] = _plots()
    return {"add": _add, "reproduce": _reproduce, "scratch": _scratch}[request["do"]](request)


def _install(installed: dict[str, str]) -> None:
    """Have the environment step find other versions installed than there are."""
    environment = import_module("tasks.ground.locked_packages")
    as_it_is = environment._installed
    environment._installed = lambda name: installed.get(name) or as_it_is(name)


def _plots() -> ModuleType:
    """Instead of the pictures, which take most of a stage's time, and depend on nothing that its numbers do not."""

    def draw(folder: Path, *_: Any) -> None:
        folder.mkdir()
        (folder / "picture.json").write_text("{}")

    plots = ModuleType("tasks.training.plots")
    vars(plots).update(draw=draw, CURVES=2)
    return plots


def _add(_: dict[str, Any]) -> dict[str, Any]:
    """`dvc add data`: what lies there is the data version, also where ingest would refuse."""
    from dvc.repo import Repo

    with Repo(".") as repo:
        repo.add(["data"])
    return {}


def _reproduce(request: dict[str, Any]) -> dict[str, Any]:
    """What is pending, what becomes of each stage of the models, and what is pending then."""
    graph = import_module("tasks.training.dvc_graph")
    model = request["models"][-1]
    why = graph.pending(model)
    outcomes: dict[str, str] = {}
    for each in request["models"]:
        outcomes |= {outcome.stage: outcome.how for outcome in graph.reproduce(each, _run)}
    left = graph.pending(model) if set(outcomes.values()) != {"unchanged"} else {}
    return {"why": why, "how": outcomes, "left": left, "made": _made(model)}


def _scratch(request: dict[str, Any]) -> dict[str, Any]:
    """The steps one after the other, without DVC, without a cache and without memos; which parameters each reads."""
    (model,) = request["models"]
    for made in ("build", "var"):
        shutil.rmtree(made, ignore_errors=True)
    reads: dict[str, list[str]] = {}
    for step in ("environment", "validate", "prepare", "train", "evaluate", "package"):
        with _reads() as read:
            _run(step, [model])
        reads[step] = sorted(read)
    return {"made": _made(model), "reads": reads}


@contextmanager
def _reads() -> Iterator[set[str]]:
    """The keys of params.yaml that are read meanwhile: `keep_days`, or `models.features` of whichever model.

    Not those that its checks read as it is loaded.
    """
    params = import_module("tasks.ground.params")
    read: set[str] = set()
    is_loading = False

    def load(*given: Any, **named: Any) -> Any:
        nonlocal is_loading
        is_loading = True
        try:
            return as_it_is(*given, **named)
        finally:
            is_loading = False

    def get(section: Any, name: str) -> Any:
        if not is_loading and name in type(section).model_fields:
            key = type(section).model_fields[name].alias or name
            read.add(f"models.{key}" if isinstance(section, params.Model) else key)
        return object.__getattribute__(section, name)

    as_it_is, params.load = params.load, load
    params.Params.__getattribute__ = params.Model.__getattribute__ = get
    try:
        yield read
    finally:
        params.load = as_it_is
        del params.Params.__getattribute__, params.Model.__getattribute__


def _run(step: str, arguments: list[str]) -> None:
    """The step; of the last one, what it writes, without the proof that it answers as evaluated (that is no output)."""
    if step != "package":
        import_module("tasks.steps").run(step, arguments)
        return
    files, params, settings = (import_module(f"tasks.ground.{name}") for name in ("files", "params", "settings"))
    package = import_module("tasks.release.package.package")
    (model,) = arguments
    with files.replacing(settings.BUILD / model / "release") as release:
        package.write_release(model, params.load().model(model), release)


def _made(model: str) -> dict[str, str]:
    """Every file that the stages of a model wrote, by content; DVC's own .gitignore and what a kill left apart."""
    files = import_module("tasks.ground.files")
    return {
        f"{model}/{path}": hash_
        for path, hash_ in files.tree(Path("build") / model).items()
        if not path.endswith((".gitignore", ".tmp")) and ".tmp/" not in path
    }


if __name__ == "__main__":
    serve()
