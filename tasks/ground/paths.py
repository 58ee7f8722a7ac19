"""Map of the state below `var/`: every folder and file that more than its own module may ask for, named once.

`docs/reference/state.md` says of each path what it holds, and what writes and reads it; a test compares both. What the
stages of `dvc.yaml` use (`memo`, `locks`, `torn`) is named in `files` beside this module, so that an edit of this map
redoes no training. Homes of other tools (`prefect`, `dvc`) are variables of `settings.environment`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tasks.ground import settings


def _at(path: str) -> Callable[[], Path]:
    return lambda: settings.VAR / path


def _of(path: str) -> Callable[[str], Path]:
    """`{}` stands for a model's name; in `log/{}.log` for a service's."""
    return lambda name: settings.VAR / path.format(name)


# data
incoming_data = _at("incoming")
planned_revisions = _at("data/intended.json")
reports = _at("reports")
drafts = _of("drafts/{}")
local_remote = _at("remote")

# what was decided and done
journal = _of("journal/{}.jsonl")
journal_head = _of("journal/{}.head.json")
lineage_sent = _at("journal/lineage-sent.json")
journal_key = _at("journal/key.pem")
journal_public_key = _at("journal/public.pem")

# what can be computed again
pushed_data = _at("memo/pushed.json")
announced_data = _at("memo/announced.json")
announced_refusals = _at("memo/refused.json")
stage_states = _of("memo/unchanged/{}.json")
training_override = _of("memo/due/{}.json")
refused_training = _of("memo/due/{}.refused.json")

# candidates and champions
mlflow_database = _at("mlflow/mlflow.db")
mlflow_artifacts = _at("mlflow/artifacts")
judged_candidates = _of("mlflow/settled/{}.json")
champions = _at("champions")
bentos = _at("bentoml")
images = _at("images")
batches = _at("batch")
backtests = _at("backtest")
tried = _of("try/{}")
tunings = _of("tune/{}")
reproduced = _of("reproduce/{}")

# serving
desired_states = _at("serving")
desired_state = _of("serving/{}.json")
api_keys = _at("serving/keys.json")
failed_rollout = _of("rollouts/{}.failed.json")
release_environments = _at("environments")
router_token = _at("run/router.token")

# what was predicted
predictions = _of("predictions/{}")
incoming_predictions = _of("predictions/{}/incoming")
prediction_table = _of("predictions/{}/table")
compacted_lines = _of("predictions/{}/compacted.json")
erased_files = _of("predictions/{}/erased.json")
error_counts = _of("predictions/{}/unanswered.json")
monitoring = _of("monitoring/{}")
monitoring_report = _of("monitoring/{}/report.json")

# the local platform
backup_list = _at("backup/hashes.json")
run_folder = _at("run")
registered_deployments = _at("run/registered.json")
watcher_heartbeat = _at("run/watch.heartbeat")
logs = _at("log")
log = _of("log/{}.log")
replica_logs = _at("log/replicas")
status_page = _at("status/index.html")
model_card = _of("status/{}.html")
