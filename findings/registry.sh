#!/usr/bin/env bash
# MLflow 3.17.2: a client that was given a store asks another one.
#
# MlflowClient(tracking_uri=A, registry_uri=A).create_model_version(name, "models:/<id of a logged model in A>") looks the logged model up
# in the store that the process has as its global one (set_tracking_uri, MLFLOW_TRACKING_URI, or the default), not in A: «Logged model …
# not found», though the same client's get_logged_model finds it. The same call passes once set_tracking_uri(A) was called.
#
# Installs into a temporary folder. Fails if the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'mlflow==3.17.2'
cd "$folder"
unset MLFLOW_TRACKING_URI MLFLOW_REGISTRY_URI
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

named, other = "sqlite:///named.db", "sqlite:///other.db"
mlflow.set_tracking_uri(other)
client = MlflowClient(tracking_uri=named, registry_uri=named)
run = client.create_run(client.create_experiment("experiment"))
model = client.create_logged_model(run.info.experiment_id, source_run_id=run.info.run_id)
client.finalize_logged_model(model.model_id, "READY")
client.create_registered_model("model")


def version() -> str:
    try:
        made = client.create_model_version("model", f"models:/{model.model_id}", run.info.run_id, model_id=model.model_id)
    except MlflowException as error:
        return f"MlflowException: {str(error).replace(model.model_id, '<id>')[:160]}"
    return f"version {made.version}"


print("mlflow", mlflow.__version__)
print("the client finds the logged model:", client.get_logged_model(model.model_id).model_id == model.model_id)
first = version()
print("global store is another one:", first)
mlflow.set_tracking_uri(named)
second = version()
print("global store is the client's:", second)
assert "not found" in first, first
assert second == "version 1", second
PYTHON
