"""`make bench-families`: LightGBM and XGBoost behind the router, beside MLServer 1.7.1 in an environment of its own.

The same booster, the same rows, one row a request, wrk in front, one OpenMP thread each; they take turns. Evergreen is
asked for columns as JSON: it codes the categories, checks ranges and logs each prediction. MLServer is asked by the
Open Inference Protocol for the matrix that has been coded already, in its own process pool (its default) and without.
First the answers of both to the same rows are compared with the library's own.

    python -m benchmarks.families [--repeat 3] [--seconds 8] [--page docs/benchmarks/families.md]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import serving
from benchmarks.machine import machine
from benchmarks.serving import NAME, Round, Server, Table
from tasks.ground import files, params, settings
from tasks.modelling import rows, user_code
from tasks.release.package import package
from tasks.runtime import decisions, families, model_file

PEER = settings.ROOT / "var" / "peers" / "mlserver"
PINNED = ("mlserver==1.7.1", "mlserver-lightgbm==1.7.1", "mlserver-xgboost==1.7.1", "uvloop<0.22")
ESTIMATORS = {
    "lightgbm": ("lightgbm.LGBMClassifier", {"n_estimators": 150, "learning_rate": 0.06, "num_leaves": 15}),
    "xgboost": ("xgboost.XGBClassifier", {"n_estimators": 150, "learning_rate": 0.06, "max_depth": 4}),
}
IMPLEMENTED = {"lightgbm": "mlserver_lightgbm.LightGBMModel", "xgboost": "mlserver_xgboost.XGBoostModel"}
COMPARED = 50
NEAR = 1e-6


def peer() -> Path:
    """The `mlserver` command of an environment of its own, made where it is not there."""
    if not (PEER / "bin" / "mlserver").exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEER)], check=True)
        subprocess.run([str(PEER / "bin" / "pip"), "install", "--quiet", *PINNED], check=True)
    return PEER / "bin" / "mlserver"


def prepare(library: str, folder: Path) -> Any:
    """A release with the library's booster, and the booster as MLServer takes it; gives the fitted pipeline."""
    model = params.load().model(NAME)
    class_, chosen = ESTIMATORS[library]
    estimator = model.estimator.model_copy(update={"class_": class_, "params": chosen})
    pipeline = user_code.build_pipeline(NAME, model.model_copy(update={"estimator": estimator}))
    learn = rows.read(settings.BUILD / NAME, "train")
    pipeline.fit(learn[model.columns], learn["label"])
    _release(pipeline, learn[model.columns].head(1000), folder)
    for workers in (0, 1):
        _for_mlserver(library, pipeline, folder / f"mlserver-{workers}", workers)
    _bodies(pipeline, folder)
    return pipeline


def _release(pipeline: Any, some: Any, folder: Path) -> None:
    """The packaged release with another model, in a store and a project of its own."""
    bento = package.ensure_bento(NAME)
    beside = shutil.copytree(bento, folder / "beside")
    release = beside / "src"
    model_file.dump(pipeline, release / "model.skops")
    facts = files.read_json(release / "release.json")
    facts |= {"model_sha256": files.sha256(release / "model.skops"), "decision": decisions.of(pipeline, some)}
    facts["training"]["tolerance"] = families.tolerance(pipeline)
    files.write_json(release / "release.json", facts)
    for source, target in package.sources(NAME, model_file.packages(release / "model.skops")).items():
        (release / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, release / target)
    left = {name: sha for name, sha in files.tree(release).items() if name not in {"candidate.json", "bentofile.yaml"}}
    candidate = files.digest(left)[:16]
    files.write_json(release / "candidate.json", {"candidate": candidate})
    store = folder / "bentoml" / "bentos" / NAME
    store.mkdir(parents=True)
    beside.rename(store / candidate)
    live = {"candidate": candidate, "version": 1, "since": ""}
    root = folder / "project"
    (root / "var" / "serving").mkdir(parents=True)
    shutil.copy(settings.ROOT / "params.yaml", root)
    files.write_json(root / "var" / "serving" / f"{NAME}.json", {"live": live, "beside": [], "canary": None})


def _for_mlserver(library: str, pipeline: Any, folder: Path, workers: int) -> None:
    folder.mkdir()
    file = folder / {"lightgbm": "model.txt", "xgboost": "model.json"}[library]
    booster = pipeline[-1].booster_ if library == "lightgbm" else pipeline[-1].get_booster()
    booster.save_model(str(file))
    described = {"name": NAME, "implementation": IMPLEMENTED[library], "parameters": {"uri": f"./{file.name}"}}
    files.write_json(folder / "model-settings.json", described)
    (folder / "settings.json").write_text(json.dumps({"parallel_workers": workers, "debug": False}))


def _bodies(pipeline: Any, folder: Path) -> None:
    """The same rows for both: without missing values, which the protocol's JSON cannot say."""
    model = params.load().model(NAME)
    learn = rows.read(settings.BUILD / NAME, "holdout", model.columns)
    whole = learn.fillna(learn.median(numeric_only=True)).fillna(0.0)
    frame = whole.sample(serving.DIFFERENT_ROWS, random_state=0)
    matrix = np.asarray(pipeline[:-1].transform(frame), dtype=np.float64)
    asked = package.request_rows(frame, model)
    tensors = [{"name": "x", "shape": [1, len(row)], "datatype": "FP64", "data": row} for row in matrix.tolist()]
    for kind, bodies in (
        ("rows", [{"rows": [row]} for row in asked]),
        ("tensor", [{"inputs": [tensor]} for tensor in tensors]),
    ):
        (folder / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, bodies)))
    np.save(folder / "expected.npy", pipeline.predict_proba(frame.head(COMPARED))[:, 1])
    (folder / "ask.lua").write_text(serving.SCRIPT)


def servers(library: str, folder: Path) -> list[Server]:
    """Both, of one library."""
    environment = {
        "EVERGREEN_ROOT": str(folder / "project"), "EVERGREEN_PORT": "{port}", "EVERGREEN_HOST": "127.0.0.1",
        "BENTOML_HOME": str(folder / "bentoml"),
    }  # fmt: skip
    ours = (sys.executable, "-m", "deployments.serving.router")
    theirs = [
        Server(
            f"MLServer, {'a pool of one process' if workers else 'without a pool'}: {library}",
            (str(peer()), "start", str(folder / f"mlserver-{workers}")),
            path=f"/v2/models/{NAME}/infer", body="tensor",
            environment={
                "MLSERVER_HTTP_PORT": "{port}", "MLSERVER_GRPC_PORT": str(serving.http.free_port()),
                "MLSERVER_METRICS_PORT": str(serving.http.free_port()), "MLSERVER_HOST": "127.0.0.1", "PYTHONPATH": "",
            },
        )
        for workers in (0, 1)
    ]  # fmt: skip
    return [Server(f"Evergreen: {library}", ours, path=f"/{NAME}/predict", environment=environment), *theirs]


def refuse_other_answers(server: Server, folder: Path) -> None:
    """Ask for some rows, and compare with the library's own answers.

    Raises:
        SystemExit: what would be measured is not the same model.
    """
    expected = np.load(folder / "expected.npy")
    bodies = (folder / f"{server.body}.jsonl").read_text().split("\n")[:COMPARED]
    with serving._running(server, folder) as (_, port, _):
        answers = [_asked(f"http://127.0.0.1:{port}{server.path}", body.encode()) for body in bodies]
    found = [
        answer["predictions"][0]["probability"] if "predictions" in answer else answer["outputs"][0]["data"][-1]
        for answer in answers
    ]
    if not np.allclose(found, expected, rtol=NEAR, atol=NEAR):
        sys.exit(f"{server.name} does not answer as the library: {found[:3]}, expected {expected[:3].tolist()}")


def _asked(url: str, body: bytes) -> Any:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def goals(table: Table) -> list[tuple[str, float, float, bool]]:
    """What was aimed at, at 16 connections: beside the better of MLServer's two ways."""
    found = []
    for library in ESTIMATORS:
        own = [rounds for name, rounds in table.items() if name == f"Evergreen: {library}"]
        others = [rounds for name, rounds in table.items() if name.startswith("MLServer") and name.endswith(library)]
        if not own or not others:
            continue
        ours, best = serving._median(own[0], 16), [serving._median(rounds, 16) for rounds in others]
        rate, p99 = ours.rate / max(each.rate for each in best), ours.p99 / min(each.p99 for each in best)
        found.append((f"{library}: requests/s, times MLServer", rate, 10.0, rate >= 10))
        found.append((f"{library}: p99, as a share of MLServer's", p99, 0.2, p99 <= 0.2))
        failed = sum(load.failed for each in own[0] for load in each.loads.values())
        found.append((f"{library}: requests that failed", failed, 0.0, failed == 0))
    return found


def page(table: Table, repeat: int, seconds: int) -> str:
    """docs/benchmarks/families.md."""
    head = [
        "# LightGBM and XGBoost, beside MLServer",
        "",
        f"Made by `make bench-families`; what is compared is told in `benchmarks/families.py`. {repeat} round(s) in",
        f"which all take turns, {seconds} s over each number of connections. The answers of all were compared with the",
        f"library's own before ({COMPARED} rows, within {NEAR:g}).",
        "",
        machine(("lightgbm", "xgboost-cpu", "treelite", "scikit-learn", "numpy")),
        "",
    ]
    tables = [line for connections in reversed(serving.CONNECTIONS) for line in serving._at(table, connections)]
    told = [f"| {n} | {v:.2f} | {limit:g} | {'✓' if ok else '✗'} |" for n, v, limit, ok in goals(table)]
    rest = ["## Goals", "", "| at 16 connections | | goal | |", "| --- | --- | --- | --- |", *told, ""]
    return "\n".join([*head, *tables, *rest])


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write the page. Returns 1 when a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="rounds (3)")
    parser.add_argument("--seconds", type=int, default=8, help="of wrk, each time (8)")
    parser.add_argument("--page", type=Path, help="where the tables go; nowhere, if not said")
    asked = parser.parse_args(arguments)
    if not shutil.which("wrk"):
        sys.exit("wrk asks the servers, and is not installed: apt install wrk")
    settings.apply()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with us
    table: Table = {}
    with tempfile.TemporaryDirectory(prefix="evergreen-bench-") as made:
        wanted: list[tuple[Server, Path]] = []
        for library in ESTIMATORS:
            folder = Path(made) / library
            folder.mkdir()
            prepare(library, folder)
            wanted += [(server, folder) for server in servers(library, folder)]
        for server, folder in wanted:
            refuse_other_answers(server, folder)
        for _ in range(asked.repeat):
            for server, folder in wanted:
                table.setdefault(server.name, []).append(measured := serving.measure(server, folder, asked.seconds))
                print(server.name, _shown(measured), flush=True)
    if asked.page:
        files.write_text(asked.page, page(table, asked.repeat, asked.seconds))
    for name, value, limit, reached in goals(table):
        print(f"{'reached' if reached else 'MISSED '}  {name}: {value:.2f} (goal {limit:g})")
    return 0 if all(reached for *_, reached in goals(table)) else 1


def _shown(measured: Round) -> str:
    return "  ".join(f"{c}: {load.rate:,.0f}/s p99 {load.p99:.1f} ms" for c, load in measured.loads.items())


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
