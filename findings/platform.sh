#!/usr/bin/env bash
# Prefect 3.8.8 (open source server): deleting a work pool, or pausing a deployment, does not do what its name says.
#
# 1. After a work pool is deleted, its deployments stay, without a pool. Starting one is accepted (201), the run is Scheduled for now,
#    and stays so for ever: no worker can see it, and neither the answer nor the run says so.
# 2. A run of a paused deployment is accepted and scheduled for now, as if it were not paused: what is paused is its schedule alone.
#
# Installs into a temporary folder, starts a server on 127.0.0.1 and ends it. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; wait "$server" || true; fi; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'prefect==3.8.8' 'fastapi>=0.139,<0.151'
port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export PREFECT_HOME="$folder/home" PREFECT_API_URL="http://127.0.0.1:$port/api" PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=true
"$folder/venv/bin/prefect" server start --host 127.0.0.1 --port "$port" > "$folder/server.log" 2>&1 &
server=$!
"$folder/venv/bin/python" - <<'PYTHON'
import os
import time

import httpx
import prefect

api = httpx.Client(base_url=os.environ["PREFECT_API_URL"], timeout=60)
for _ in range(600):
    try:
        if api.get("/health").is_success:
            break
    except httpx.TransportError:
        pass
    time.sleep(0.5)

print("prefect", prefect.__version__)
flow = api.post("/flows/", json={"name": "flow"}).json()["id"]


def deployment(name: str) -> str:
    api.post("/work_pools/", json={"name": name, "type": "process"}).raise_for_status()
    made = api.post("/deployments/", json={"name": name, "flow_id": flow, "work_pool_name": name})
    made.raise_for_status()
    return made.json()["id"]


def start(name: str, id_: str) -> dict:
    answer = api.post(f"/deployments/{id_}/create_flow_run", json={"state": {"type": "SCHEDULED"}})
    run = answer.json()
    due = api.post(f"/work_pools/{name}/get_scheduled_flow_runs", json={})
    seen = due.is_success and run["id"] in [one["flow_run"]["id"] for one in due.json()]
    print(f"{name}: {answer.status_code}, {run['state']['type']}, in the pool {run['work_pool_name']}, a worker sees it: {seen}")
    return {"status": answer.status_code, "type": run["state"]["type"], "pool": run["work_pool_name"], "seen": seen}


deleted, paused = deployment("deleted"), deployment("paused")
api.delete("/work_pools/deleted").raise_for_status()
assert start("deleted", deleted) == {"status": 201, "type": "SCHEDULED", "pool": None, "seen": False}
api.post(f"/deployments/{paused}/pause_deployment").raise_for_status()
assert api.get(f"/deployments/{paused}").json()["paused"] is True
assert start("paused", paused) == {"status": 201, "type": "SCHEDULED", "pool": "paused", "seen": True}
PYTHON
