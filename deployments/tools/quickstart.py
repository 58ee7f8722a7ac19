"""Quickstart: the whole loop on real data, from an empty folder to a served model. Safe to stop and to repeat."""

from __future__ import annotations

import os
import reprlib
import subprocess
import sys
import time
from typing import Any

from deployments.local import servers
from tasks.ground import exit_codes, files, http, params, paths, settings
from tasks.ground.errors import WorldError

FIRST, NEXT = slice(8), slice(8, 9)
"""Which of the upstream's partitions are delivered for the first training, and which for the second."""


def run() -> int:
    """Run the loop unless there is nothing to do; returns the exit code."""
    begin = time.monotonic()
    loaded = params.load()
    idle = _nothing_to_do(loaded)
    if not idle and (code := loop_beside_a_server()):
        return code
    _summary(loaded, time.monotonic() - begin, champions=not idle)
    return 0


def _nothing_to_do(loaded: params.Params) -> bool:
    """Whether everything that was to be delivered is versioned, trained on and judged; nothing heavy is imported."""
    from tasks.data import zones
    from tasks.release.registry import candidate_outcome
    from tasks.training import dvc_graph

    if any(_undelivered(loaded)) or zones.landing(loaded.landing).look():
        return False
    title("Is there anything to do?")
    for model in loaded.models:
        pending, verdict = dvc_graph.pending(model), candidate_outcome.find(model)
        for stage, reason in pending.items():
            print(f"  {stage:<28} will run: {reason}")
        if pending or not verdict:
            return False
        print(f"  {model}: no stage has an input that changed; judged: {verdict}")
    return True


def loop_beside_a_server(*models: str) -> int:
    """The loop in a process of its own, so that what Prefect sends when it exits still reaches the server."""
    title("Prefect: a server for the flows")
    with servers.prefect_server() as api:
        _line(api.removesuffix("/api"))
        command = [sys.executable, "-m", "deployments.tools.quickstart", *models]
        return subprocess.run(command, cwd=settings.ROOT, check=False).returncode


@exit_codes.command
def main() -> None:
    """The part of the loop that needs the Prefect server that PREFECT_API_URL names."""
    from tasks.data import delivery, versions

    loaded, api = params.load(), os.environ["PREFECT_API_URL"]
    models = sys.argv[1:] or list(loaded.models)
    if loaded.upstream:
        begin_from_nothing()
    elif not versions.present() and versions.named():
        delivery.restore(loaded, _line)
    for partitions in [[]] if sys.argv[1:] else _undelivered(loaded):  # of named models, what has landed is enough
        if partitions:
            title(f"The upstream delivers {partitions[0]}" + (f" to {partitions[-1]}" if len(partitions) > 1 else ""))
            delivery.deliver(loaded, partitions, _line)
        if not http.wait_until(lambda: http.answers(f"{api}/health"), 60):
            raise WorldError(f"the Prefect server did not answer on {api}. Its log: {paths.log('prefect-server')}")
        title("ingest: validate, version or quarantine")
        _run_flow("ingest")
        title(f"train: {', '.join(models)}")
        _train(models)
    for model in models:
        title(f"The champion of {model} is served")
        _ask_champion(model)


def _train(models: list[str]) -> None:
    """Train the models side by side: the first here, each other in a process of its own."""
    command = [sys.executable, "-m", "deployments.cli", "train"]
    others = {model: subprocess.Popen([*command, model], cwd=settings.ROOT) for model in models[1:]}
    try:
        _run_flow("train", models[0])
        failed = [model for model, process in others.items() if process.wait()]
    finally:
        for process in others.values():  # Ctrl-C, or a failure here: none is left behind
            process.terminate()
            process.wait()
    if failed:
        raise WorldError(f"the training of {', '.join(failed)} failed; its log above says why")


def begin_from_nothing() -> None:
    """A fresh clone names a data version of which it has no file: remove the name, as the loop begins before it."""
    traces = [settings.ROOT / "data", settings.ROOT / ".dvc" / "cache", paths.local_remote()]
    if not any(path.exists() for path in traces):
        (settings.ROOT / "data.dvc").unlink(missing_ok=True)


def _undelivered(loaded: params.Params) -> list[list[str]]:
    """The upstream's partitions of both rounds that are not in data/ yet; without an upstream one round of none."""
    from tasks.data import delivery

    if loaded.upstream is None:
        return [[]]
    source = delivery.upstream(loaded)
    folders = [settings.ROOT / "data" / dataset for dataset in getattr(source, "DATASETS", loaded.datasets)]

    def is_there(partition: str) -> bool:
        return all(any(folder.glob(f"{partition}.*")) for folder in folders)

    return [[name for name in source.partitions()[which] if not is_there(name)] for which in (FIRST, NEXT)]


def _run_flow(name: str, *arguments: str) -> None:
    from flows.prefect_support import run_local

    state = run_local.run(name, *arguments)
    if not state.is_completed():
        why = (state.message or "no reason given").removeprefix("Flow run encountered an exception: ")
        raise WorldError(f"the flow {' '.join([name, *arguments])} ended as {state.name}: {why}")


def _ask_champion(model: str) -> None:
    """Serve the champion's Bento alone, send it rows of its golden ones, print the answers, end it."""
    from tasks.release import bento_store
    from tasks.release.registry import registry

    champion = registry.champion(model)
    if champion is None:
        _line("there is no champion: nothing was promoted")
        return
    release = bento_store.release_folder(model, champion.candidate)
    rows = [example["row"] for example in files.read_json(release / "golden.json")[:3]]
    with servers.bento(f"{model}:{champion.candidate}") as url:
        answer = http.call(f"{url}/predict", {"rows": rows}, timeout=30)
    _line(f"POST {url}/predict with {len(rows)} rows → {answer['release']}")
    for row, prediction in zip(rows, answer["predictions"], strict=True):
        few = list(row.items())[:6]
        shown = ", ".join(f"{key}={reprlib.repr(value) if isinstance(value, list) else value}" for key, value in few)
        number = prediction.pop("id")
        _line(f"  {shown}, … → {_rounded(prediction)}  id {number}")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def _summary(loaded: params.Params, seconds: float, *, champions: bool) -> None:
    """The champion is looked up only after the loop has run: MLflow takes seconds to import."""
    from tasks.data import versions
    from tasks.release.registry import candidate_outcome

    title("Where things stand")
    _line(f"data version  {versions.current()}")
    for model in loaded.models:
        candidate = files.read_json(settings.BUILD / model / "release" / "candidate.json")["candidate"]
        _line(model)
        if champions:
            from tasks.release.registry import registry

            _line(f"  champion    {registry.champion(model) or 'none'}")
        _line(f"  candidate   {candidate}: {candidate_outcome.find(model)}")
        _line(f"  pictures    build/{model}/evaluation/plots/")
    print(f"""
  done in {seconds:.0f} s. Next: `make shell`, then `mlflow ui`, `bentoml list`, `dvc plots show`;
  `evergreen up` for the platform with its UI; `evergreen reports` for the data; or change a number in params.yaml
  and type `dvc repro`.""")


def _line(text: str) -> None:
    print(f"  {text}", flush=True)


def title(text: str) -> None:
    """Print a heading, bold at a terminal."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}── {text}{plain}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
