"""`evergreen doctor`: each part as it is, and what mends it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from deployments import cli
from deployments.tools import doctor
from deployments.tools.doctor import Finding
from tasks.ground import http, params, settings
from tasks.release.registry import mlflow_store
from tests.conftest import Project


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens where Prefect is looked for."""
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{http.free_port()}/api")


def findings() -> dict[str, Finding]:
    """By part."""
    return {finding.part: finding for finding in doctor.examine(params.load())}


def test_a_fresh_project_lacks_a_server_and_a_remote_that_is_there(
    small: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest is well; the exit code says that something wants attention."""
    assert cli.main(["doctor", "--json"]) == 3
    told = {each["part"]: each for each in json.loads(capsys.readouterr().out)}
    assert [part for part, each in told.items() if each["mend"]] == ["prefect"]
    assert "evergreen up" in told["prefect"]["mend"]
    assert "EVERGREEN_LEASES" in told["leases"]["state"]
    assert "is not there yet" in told["landing"]["state"]


def test_folders_are_tried_and_left_as_they_were(small: Project) -> None:
    """A scratch file is written, listed, read and removed."""
    remote = settings.VAR / "remote"
    remote.mkdir(parents=True)
    (remote / "kept").write_text("as it was")
    assert "listed, written, read and tidied" in findings()["dvc remote"].state
    assert [path.name for path in remote.iterdir()] == ["kept"]


def test_a_bucket_that_is_not_there_is_named_without_its_secret(
    small: Project, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the other parts are looked at all the same."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-ours")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    small.edit("params.yaml", "landing: var/landing", "landing: s3://nowhere/landing")
    found = findings()
    assert not found["landing"].is_well
    assert "nowhere" in found["landing"].state
    assert "secret-of-ours" not in str(found["landing"])
    assert found["quarantine"].is_well


def test_code_that_the_remote_has_and_this_clone_has_not_is_named(small: Project, tmp_path: Path) -> None:
    """All workers run one code."""
    small.edit("params.yaml", "settle_seconds: 0\n", "settle_seconds: 0\ngit: {commit: true, remote: origin}\n")
    small.commit()
    subprocess.run(["git", "clone", "-q", "--bare", str(small.root), str(tmp_path / "up.git")], check=True)
    small.run("git", "remote", "add", "origin", str(tmp_path / "up.git"))
    assert "has the code that is here" in findings()["git"].state
    other = Project(tmp_path / "other")
    subprocess.run(["git", "clone", "-q", str(tmp_path / "up.git"), str(other.root)], check=True)
    (other.root / "models" / "new.py").write_text("")
    other.commit()
    other.run("git", "push", "-q")
    assert "has other code: models/" in findings()["git"].state


def test_in_a_folder_of_its_repository_data_versions_are_no_other_code(small: Project, tmp_path: Path) -> None:
    """Another worker's commit of data.dvc wants no restart; nor does a commit that is here alone."""
    small.edit("params.yaml", "settle_seconds: 0\n", "settle_seconds: 0\ngit: {commit: true, remote: origin}\n")
    shutil.rmtree(small.root / ".git")
    subprocess.run(["git", "init", "-q", "-b", "main", str(small.root.parent)], check=True)
    small.commit()
    subprocess.run(["git", "clone", "-q", "--bare", str(small.root.parent), str(tmp_path / "up.git")], check=True)
    small.run("git", "remote", "add", "origin", str(tmp_path / "up.git"))
    other = Project(tmp_path / "other")
    subprocess.run(["git", "clone", "-q", str(tmp_path / "up.git"), str(other.root)], check=True)
    (other.root / small.root.name / "data.dvc").write_text("outs:\n- md5: 0.dir\n")
    other.commit()
    other.run("git", "push", "-q")
    (small.root / "models" / "new.py").write_text("")
    small.commit()
    assert "has the code that is here" in findings()["git"].state


def test_a_detached_head_needs_a_branch_in_params_and_is_compared_with_that(small: Project, tmp_path: Path) -> None:
    """As a CI's or a worker's checkout has it: «HEAD» of the remote may be another branch."""
    small.edit("params.yaml", "settle_seconds: 0\n", "settle_seconds: 0\ngit: {commit: true, remote: origin}\n")
    small.commit()
    subprocess.run(["git", "clone", "-q", "--bare", str(small.root), str(tmp_path / "up.git")], check=True)
    small.run("git", "remote", "add", "origin", str(tmp_path / "up.git"))
    small.run("git", "checkout", "-q", "--detach")
    assert "set git.branch" in findings()["git"].state
    small.edit("params.yaml", "remote: origin}", "remote: origin, branch: team}")
    assert findings()["git"].mend == "git push -u origin HEAD:team, once, by hand"
    small.run("git", "push", "-q", "origin", "HEAD:refs/heads/team")
    assert findings()["git"].is_well


def test_what_stands_in_the_way_of_a_part_hides_no_other(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where a folder should be, a server that refuses."""
    monkeypatch.setattr(mlflow_store, "PAUSES", ())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{http.free_port()}")
    small.edit("params.yaml", "landing: var/landing", "landing: README.md")
    (small.root / "README.md").write_text("no folder")
    found = findings()
    assert [part for part, each in found.items() if not each.is_well] == ["prefect", "mlflow", "landing"]
    assert "MLFLOW_TRACKING_URI" in found["mlflow"].state


def test_packages_that_are_not_those_of_the_lock_are_named(small: Project) -> None:
    """`make setup` installs them."""
    lock = small.root / "requirements.lock"
    lock.write_text(lock.read_text().replace("\nprefect==", "\nprefect==0.1+was."))
    packages = findings()["packages"]
    assert packages.mend == "make setup"
    assert "the lock names 0.1" in packages.state
