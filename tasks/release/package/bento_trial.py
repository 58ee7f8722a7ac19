"""Script for an interpreter of its own: builds a Bento, and posts rows to a Bento's service.

`python -I bento_trial.py build|ask`, tasks as lines of JSON on standard input, an answer to each as a line of standard
output. Isolated (-I), so that the only code beside the installed packages is that of the release: the service is tried
as it will be served, over JSON, only without the socket. Each task is done by a fork, which imports the release's code.
It may hang in that code: it ends with this process, and this process with the one that started it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import statistics
import sys
import time
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn


def build(task: dict[str, Any]) -> dict[str, Any]:
    """Build a Bento of a release folder, with the listed files and no others, and without the network."""
    import bentoml

    sys.dont_write_bytecode = True  # BentoML imports the service from the release, which must stay as it is
    requirements = (Path(task["release"]) / "requirements.txt").read_text(encoding="utf-8").splitlines()
    bento = bentoml.build(
        "tasks.runtime.bento_service:Service",
        name=task["name"],
        version=task["version"],
        labels=task["labels"],
        description=task["description"],
        include=task["include"],
        # the requirements are exact already; BentoML would ask an index to lock them once more
        python={"packages": requirements, "lock_packages": False},
        build_ctx=task["release"],
    )
    return {"path": str(bento.path)}


def ask(task: dict[str, Any]) -> dict[str, Any]:
    """Post rows to the service of a Bento: `batches` of rows in one request each, and rows `alone`, which are timed."""
    import asyncio

    import bentoml

    begin = time.perf_counter()
    service = bentoml.load(task["bento"])
    sys.path.insert(0, str(Path(task["bento"]) / "src"))  # as a worker of `bentoml serve` has it
    return asyncio.run(_ask(service.to_asgi(), task, begin))


async def _ask(app: Any, task: dict[str, Any], begin: float) -> dict[str, Any]:
    import httpx

    async with app.router.lifespan_context(app):
        startup = time.perf_counter() - begin
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://release") as client:
            batches = [(await _post(client, rows))[0] for rows in task["batches"]]
            alone = [await _post(client, [row]) for row in task["alone"]]
    return {
        "startup_s": startup,
        "latency_ms": statistics.median(seconds for _, seconds in alone) * 1000,
        "batches": batches,
        "alone": [answer for answer, _ in alone],
    }


async def _post(client: Any, rows: list[dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """The answer, and the seconds of processor time that it took, whatever else the machine does."""
    begin = time.process_time()
    response = await client.post("/predict", json={"rows": rows})
    seconds = time.process_time() - begin
    return {"status": response.status_code, "body": response.json()}, seconds


PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""

AHEAD = {
    "build": ("bentoml.bentos", "bentoml._internal.bento.build_config"),
    "ask": ("bentoml", "_bentoml_impl.server.app", "httpx", "sklearn.ensemble", "treelite", "prometheus_client"),
}
"""Packages that a task needs: imported while the parent still prepares it. One that can `ask` can `build` as well."""


def main() -> None:
    """Read tasks, have each done, answer."""
    gc.set_threshold(100_000, 20, 20)  # nearly all objects live until the end
    begin, started_by = time.perf_counter(), os.getppid()
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no part of the answer
    for name in AHEAD[sys.argv[1]]:
        import_module(name)
    imported = time.perf_counter() - begin
    gc.freeze()  # nor need a last collection look at these
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            _end_with_parent()
            _answer(json.loads(line), imported, answer_to)
        elif _wait(child, started_by):
            sys.exit(1)


def _end_with_parent() -> None:
    """Have the kernel kill this process once its parent is gone."""
    import ctypes

    with suppress(AttributeError):  # another system than Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(child: int, started_by: int) -> int:
    """The status that a child ended with; or 1, if the process that wants its answer is gone."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        if os.getppid() != started_by:
            os.kill(child, signal.SIGKILL)
            return 1
        signal.sigtimedwait({signal.SIGCHLD}, 1.0)


def _answer(task: dict[str, Any], imported: float, answer_to: IO[str]) -> NoReturn:
    """In a process of its own, which ends here whatever happens."""
    try:
        os.environ.update(task.pop("environment", {}))
        answer = {"build": build, "ask": ask}[task.pop("do")](task)
        if "startup_s" in answer:
            answer["startup_s"] += imported
        answer_to.write(json.dumps(answer) + "\n")
        answer_to.flush()
        os._exit(0)
    except BaseException:  # noqa: BLE001 - told by its log
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    main()
