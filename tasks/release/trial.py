"""A script, for an interpreter of its own: builds a Bento, and asks a Bento's service. It imports nothing of this project.

`python -I trial.py build|ask TASK.json ANSWER.json`. Isolated (-I), so that the only code it finds beside the installed
packages is that of the release: the service is tried as it will be served, over JSON, only without the socket.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

BEGIN = time.perf_counter()


def build(task: dict[str, Any]) -> dict[str, Any]:
    """Build a Bento of a release folder, with the listed files and no others. No network is asked."""
    import bentoml

    sys.path.insert(0, task["release"])
    bento = bentoml.build(
        "service:Service",
        name=task["name"],
        version=task["version"],
        labels=task["labels"],
        description=task["description"],
        include=task["include"],
        # the requirements are exact already; BentoML would ask an index to lock them once more
        python={"requirements_txt": "requirements.txt", "lock_packages": False},
        build_ctx=task["release"],
    )
    return {"path": str(bento.path)}


def ask(task: dict[str, Any]) -> dict[str, Any]:
    """Post rows to the service of a Bento: in few large requests, and some of them alone, timed."""
    import asyncio

    import bentoml

    service = bentoml.load(task["bento"])
    sys.path.insert(0, str(Path(task["bento"]) / "src"))  # as a worker of `bentoml serve` has it
    return asyncio.run(_ask(service.to_asgi(), task))


async def _ask(app: Any, task: dict[str, Any]) -> dict[str, Any]:
    import httpx

    async with app.router.lifespan_context(app):
        startup = time.perf_counter() - BEGIN
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://release") as client:
            batches = [await _post(client, rows) for rows in task["batches"]]
            alone = [await _post(client, [row]) for row in task["alone"]]
            times = []
            for i in range(task["timed"]):
                begin = time.perf_counter()
                await _post(client, [task["alone"][i % len(task["alone"])]])
                times.append(time.perf_counter() - begin)
    return {"startup_s": startup, "latency_ms": statistics.median(times) * 1000, "batches": batches, "alone": alone}


async def _post(client: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    response = await client.post("/predict", json={"rows": rows})
    return {"status": response.status_code, "body": response.json()}


if __name__ == "__main__":
    command, task_file, answer_file = sys.argv[1:]
    answer = {"build": build, "ask": ask}[command](json.loads(Path(task_file).read_text(encoding="utf-8")))
    Path(answer_file).write_text(json.dumps(answer), encoding="utf-8")
