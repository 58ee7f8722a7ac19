"""Map of the state below `var/`: every folder and file that a module names, with what writes and what reads it.

`docs/reference/state.md` holds the same table, and a test compares both. What a folder holds in turn is named by the
module that writes it. Homes of other tools (`prefect`, `dvc`) are variables of `settings.environment`.
"""

from __future__ import annotations

from pathlib import Path

from tasks.ground import settings


def state_version() -> Path:
    """The version of the state's layout. Written by settings.apply; read by settings.apply."""
    return settings.state_file()


# ── data ──────────────────────────────────────────────────────────────────────────────────────────


def incoming_data() -> Path:
    """Partitions that an upstream delivers, before they are validated. Written by ingest; read by ingest."""
    return settings.VAR / "incoming"


def planned_revisions() -> Path:
    """Partitions that the next data version may change. Written by ingest, correct; read by ingest after a kill."""
    return settings.VAR / "data" / "intended.json"


def revisions() -> Path:
    """Revisions of data versions, a line each. Written by ingest, correct; read by history."""
    return settings.VAR / "data" / "revisions.jsonl"


def reports() -> Path:
    """Explorations of data sets and Great Expectations' data docs. Written by ingest, reports; read by the router."""
    return settings.VAR / "reports"


def local_remote() -> Path:
    """The DVC remote of a quickstart. Written by DVC; read by DVC."""
    return settings.VAR / "remote"


# ── what can be computed again ────────────────────────────────────────────────────────────────────


def memos() -> Path:
    """Results by the content that they depend on, sealed. Written by every stage; read by every stage."""
    return settings.VAR / "memo"


def file_hashes() -> Path:
    """Hashes of data files by size and time. Written by data.file_hashes; read by data.file_hashes."""
    return memos() / "stat.json"


def pushed_data() -> Path:
    """Data versions that the remote is known to have. Written by ingest; read by ingest."""
    return memos() / "pushed.json"


def announced_data() -> Path:
    """The data version that training flows were triggered for last. Written by ingest; read by ingest."""
    return memos() / "announced.json"


def announced_refusals() -> Path:
    """Refused partitions that events were sent for. Written by ingest; read by ingest."""
    return memos() / "refused.json"


def stage_states(model: str) -> Path:
    """What the stages of a model depended on when none was pending. Written by train; read by train."""
    return memos() / "unchanged" / f"{model}.json"


def bento_measurement(candidate: str) -> Path:
    """Latency and size of a Bento. Written by package; read by package."""
    return memos() / "measured" / f"{candidate}.json"


def retrain_outcome(model: str) -> Path:
    """The last decision whether to train, and its inputs. Written by train; read by train."""
    return memos() / "due" / f"{model}.json"


def refused_training(model: str) -> Path:
    """The inputs of a training that failed. Written by train; read by train."""
    return memos() / "due" / f"{model}.refused.json"


# ── candidates and champions ──────────────────────────────────────────────────────────────────────


def mlflow_database() -> Path:
    """MLflow's store, unless MLFLOW_TRACKING_URI names another. Written by registry; read by registry, MLflow UI."""
    return settings.VAR / "mlflow" / "mlflow.db"


def mlflow_artifacts() -> Path:
    """Files of MLflow's runs. Written by registry; read by registry, MLflow UI."""
    return settings.VAR / "mlflow" / "artifacts"


def judged_candidates(model: str) -> Path:
    """Outcomes of candidates that were judged. Written by train; read by train, the status page."""
    return settings.VAR / "mlflow" / "settled" / f"{model}.json"


def champions() -> Path:
    """Releases and profiles fetched from the registry. Written by registry; read by monitor, train, rollout."""
    return settings.VAR / "champions"


def verdicts(model: str) -> Path:
    """Verdicts of the gate, a line each. Written by train; read by the status page, why."""
    return settings.VAR / "verdicts" / f"{model}.jsonl"


def decisions(model: str) -> Path:
    """Decisions whether to train, a line each. Written by train; read by the status page, why."""
    return settings.VAR / "decisions" / f"{model}.jsonl"


def bentos() -> Path:
    """BentoML's store, unless BENTOML_HOME names another. Written by package, rollout; read by the router."""
    return settings.VAR / "bentoml"


def images(model: str, candidate: str) -> Path:
    """The build context of a release's container image. Written by image; read by docker, podman."""
    return settings.VAR / "images" / model / candidate


def batch_scratch() -> Path:
    """Parts of batch results under way. Written by predict; read by predict."""
    return settings.VAR / "batch"


def backtests() -> Path:
    """Ledgers, summaries and the picture of backtests. Written by backtest; read by people."""
    return settings.VAR / "backtest"


# ── serving ───────────────────────────────────────────────────────────────────────────────────────


def desired_states() -> Path:
    """The folder of what the router must serve. Written by rollout; read by the router."""
    return settings.VAR / "serving"


def desired_state(model: str) -> Path:
    """The releases of a model, and their shares. Written by rollout, rollback; read by the router, the status page."""
    return desired_states() / f"{model}.json"


def api_keys() -> Path:
    """Hashes of API keys. Written by keys; read by the router."""
    return desired_states() / "keys.json"


def rollouts(model: str) -> Path:
    """Journal of rollouts, a line each. Written by rollout, rollback; read by history, the status page."""
    return settings.VAR / "rollouts" / f"{model}.jsonl"


def failed_rollout(model: str) -> Path:
    """A withdrawal under way. Written by rollout; read by rollout after a kill."""
    return settings.VAR / "rollouts" / f"{model}.failed.json"


def release_environments() -> Path:
    """Virtual environments of releases, by their requirements. Written by the router; read by replicas."""
    return settings.VAR / "environments"


def router_token() -> Path:
    """The operator's token of the running router. Written by the router; read by rollout, status."""
    return settings.VAR / "run" / "router.token"


# ── what was predicted ────────────────────────────────────────────────────────────────────────────


def predictions(model: str) -> Path:
    """Prediction log: Parquet by day. Written by monitor; read by monitor, rollout, people."""
    return settings.VAR / "predictions" / model


def incoming_predictions(model: str) -> Path:
    """Lines of the prediction log before compaction. Written by replicas; read by monitor."""
    return predictions(model) / "incoming"


def erasure_orders(model: str) -> Path:
    """What must be erased from the log, a line each. Written by erase; read by monitor."""
    return predictions(model) / "erasures.jsonl"


def erased_files(model: str) -> Path:
    """Which files hold no erased row any more. Written by monitor; read by monitor."""
    return predictions(model) / "erased.json"


def error_counts(model: str) -> Path:
    """Requests without an answer by day. Written by the router; read by monitor."""
    return predictions(model) / "unanswered.json"


def monitoring(model: str) -> Path:
    """Daily summaries, joined labels, alarms. Written by monitor, acknowledge; read by monitor, train."""
    return settings.VAR / "monitoring" / model


def monitoring_report(model: str) -> Path:
    """The newest report of a model. Written by monitor, acknowledge; read by train, the status page."""
    return monitoring(model) / "report.json"


# ── the local platform ────────────────────────────────────────────────────────────────────────────


def run_folder() -> Path:
    """Lock, process ids and sockets of the local platform. Written by up; read by up, down, status."""
    return settings.VAR / "run"


def registered_deployments() -> Path:
    """What was registered with Prefect. Written by deploy; read by deploy, up."""
    return run_folder() / "registered.json"


def watcher_heartbeat() -> Path:
    """A file that the watcher touches after each round. Written by the watcher; read by up."""
    return run_folder() / "watch.heartbeat"


def logs() -> Path:
    """The folder of all logs. Written by up; read by people."""
    return settings.VAR / "log"


def log(name: str) -> Path:
    """The log of a service. Written by the service; read by up, people."""
    return logs() / f"{name}.log"


def replica_logs() -> Path:
    """Logs of replicas, by model and release. Written by replicas; read by people."""
    return logs() / "replicas"


def status_page() -> Path:
    """The status page. Written by page, the refresher; read by the router."""
    return settings.VAR / "status" / "index.html"


def locks() -> Path:
    """Locks between processes of this machine, and their holders. Written by files.lock; read by files.lock."""
    return settings.VAR / "locks"


def torn_files() -> Path:
    """Torn state files that were set aside. Written by files.set_aside; read by people."""
    return settings.VAR / "torn"
