"""A team's platform by its documented commands: two Prefect servers, background services, two workers, one router.

PostgreSQL, Redis, haproxy and a server that speaks S3 are real; each machine is a clone with a state of its own. One
API server and a worker are killed on the way of a partition to its champion.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.ground import http, leases, process_tags
from tests.conftest import BIN, REPOSITORY, Project, write_readings
from tests.fleet.conftest import Database

pytestmark = [pytest.mark.long, pytest.mark.group("team", "psycopg"), pytest.mark.timeout(1800)]

BUCKET = "team"

MAKE_TABLES = "import mlflow; mlflow.MlflowClient().search_experiments()"
"""As `evergreen doctor` does: MLflow makes its tables at the first look."""


class Machine:
    """A clone, and the platform that `evergreen up --only …` keeps up in it."""

    def __init__(self, folder: Path, upstream: Path, shared: dict[str, str], services: str) -> None:
        subprocess.run(["git", "clone", "-q", str(upstream), str(folder)], check=True)
        for name, value in (("user.name", "t"), ("user.email", "t@localhost")):
            subprocess.run(["git", "config", name, value], cwd=folder, check=True)
        ours = ("EVERGREEN_", "MLFLOW_", "PREFECT_", "BENTOML_", "DVC_", "PYTHONPATH", "AWS_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.folder, self.services = folder, services
        self.port = http.free_port()
        ports = {
            "PREFECT_SERVER_API_PORT": http.free_port(),
            "MLFLOW_PORT": http.free_port(),
            "EVERGREEN_PORT": self.port,
        }
        own = {name: str(port) for name, port in ports.items()}
        self.api = f"127.0.0.1:{own['PREFECT_SERVER_API_PORT']}"
        self.environment = {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **own, **shared}
        self.process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        """As a person types it."""
        with (self.folder / "up.log").open("ab") as log:
            command = [sys.executable, "-m", "deployments.cli", "up", "--only", self.services]
            self.process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=log, stderr=log)

    def log(self) -> str:
        """What it has told until now."""
        return (self.folder / "up.log").read_text()

    def run(self, *command: str) -> str:
        """A command that has to succeed; its output."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kill(self) -> None:
        """As a power cut would: all at once."""
        assert self.process
        self.process.kill()
        for process in process_tags.tagged(str(self.folder)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def end(self) -> None:
        """Whatever is left of it."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        process_tags.end_all(str(self.folder))


@pytest.fixture
def team(
    database: Database, redis: str, s3_server: str, small_copied: Path, tmp_path: Path
) -> Iterator[dict[str, Machine]]:
    """Its machines, up, behind haproxy."""
    front = f"127.0.0.1:{http.free_port()}"
    evergreen = database.make("evergreen")
    shared = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database.make("prefect").replace("://", "+asyncpg://"),
        "PREFECT_REDIS_MESSAGING_URL": redis,
        "PREFECT_API_URL": f"http://{front}/api",
        "MLFLOW_TRACKING_URI": evergreen.replace("://", "+psycopg://"),
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": f"s3://{BUCKET}/mlflow",
        "EVERGREEN_LEASES": evergreen,
        "EVERGREEN_LEASE_S": "5",
        **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "nobody"),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
    }
    upstream = _upstream(small_copied, tmp_path, shared)
    roles = {"api": "prefect,background", "other": "prefect", "serving": "worker,router,watch", "worker": "worker"}
    machines = {name: Machine(tmp_path / name, upstream, shared, services) for name, services in roles.items()}
    environment = {
        **os.environ,
        "EVERGREEN_PREFECT": front,
        "PREFECT_1": machines["api"].api,
        "PREFECT_2": machines["other"].api,
    }
    config = str(REPOSITORY / "deployments" / "fleet" / "haproxy.cfg")
    with subprocess.Popen(["haproxy", "-f", config], env=environment) as proxy:
        try:
            machines["serving"].run(sys.executable, "-c", MAKE_TABLES)
            for machine in machines.values():
                if "worker" in machine.services:
                    machine.run(sys.executable, "-m", "dvc", "pull", "-q", "data.dvc")
                machine.up()
            yield machines
        finally:
            for machine in reversed(machines.values()):
                machine.end()
            proxy.kill()


def _upstream(small_copied: Path, tmp_path: Path, shared: dict[str, str]) -> Path:
    """The bare repository, as a laptop pushes it: what it names lies in the bucket."""
    import s3fs

    bucket = s3fs.S3FileSystem(
        key="nobody", secret="nobody", endpoint_url=shared["AWS_ENDPOINT_URL"], use_listings_cache=False
    )
    bucket.mkdir(BUCKET)
    source = Project(shutil.copytree(small_copied, tmp_path / "laptop", symlinks=True))
    source.edit("params.yaml", "landing: var/landing", f"landing: s3://{BUCKET}/landing")
    source.edit("params.yaml", "quarantine: var/quarantine", f"quarantine: s3://{BUCKET}/quarantine")
    source.edit("params.yaml", "settle_seconds: 0\n", "settle_seconds: 0\ngit: {commit: true, remote: origin}\n")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shared.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        source.dvc("remote", "add", "--force", "--default", "bucket", f"s3://{BUCKET}/dvc")
        source.commit()
        source.dvc("push", "-q", "data.dvc")
    subprocess.run(["git", "clone", "-q", "--bare", str(source.root), str(tmp_path / "upstream.git")], check=True)
    return tmp_path / "upstream.git"


def until(is_so: Callable[[], Any], seconds: float, what: str, team: dict[str, Machine]) -> Any:
    """Look until it is so."""
    deadline = time.monotonic() + seconds
    while True:
        if result := is_so():
            return result
        logs = "\n".join(f"── {name}\n{machine.log()[-4000:]}" for name, machine in team.items())
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s\n{logs}"
        time.sleep(1)


def test_a_partition_is_trained_once_and_served_though_machines_die(
    team: dict[str, Machine], database: Database, s3_server: str, tmp_path: Path
) -> None:
    """One API server dies while the partition is taken in, and a worker while it trains."""
    import s3fs

    serving, worker = team["serving"], team["worker"]
    until(lambda: all("ready after" in machine.log() for machine in team.values()), 300, "the team", team)
    bucket = s3fs.S3FileSystem(key="nobody", secret="nobody", endpoint_url=s3_server, use_listings_cache=False)
    bucket.put_file(str(write_readings(tmp_path / "upstream", 4)), f"{BUCKET}/landing/readings/2013-04.csv")

    held = _leases(serving, database)
    until(lambda: "ingest" in held(), 240, "the partition is being taken in", team)
    team["other"].kill()
    until(lambda: "train-tiny" in held(), 240, "the model is being trained", team)
    worker.kill()

    until(lambda: _live(serving), 1000, "the champion serves", team)
    log = ["git", "log", "--format=%s", "main", "--", "dvc.lock"]
    commits = subprocess.run(log, cwd=tmp_path / "upstream.git", capture_output=True, text=True, check=True).stdout
    assert len(commits.splitlines()) == 1, commits
    code = (
        "import json, mlflow; c = mlflow.MlflowClient(); e = c.get_experiment_by_name('tiny'); "
        "print(json.dumps([r.info.status for r in c.search_runs([e.experiment_id])])); "
        "print(len(c.search_model_versions(\"name='tiny'\")))"
    )
    statuses, versions = serving.run(sys.executable, "-c", code).splitlines()[-2:]
    assert json.loads(statuses).count("FINISHED") == 1
    assert int(versions) == 1
    assert bucket.find(f"{BUCKET}/landing") == []


def _leases(machine: Machine, database: Database) -> Callable[[], set[str]]:
    """Gives the names of the leases that are held now."""
    patched = {leases.ADDRESS: machine.environment[leases.ADDRESS]}
    patched[leases.FLEET] = machine.run("git", "rev-list", "--max-parents=0", "HEAD").strip()[:12]

    def held() -> set[str]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in patched.items():
                patch.setenv(name, value)
            return {lease.name for lease in leases.live()}

    return held


def _live(machine: Machine) -> bool:
    return http.answers(f"http://127.0.0.1:{machine.port}/v2/models/tiny/ready")
