"""`python -m tasks …`: what a person types, and what dvc.yaml runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments import cli
from deployments.local import services
from tasks import steps
from tasks.__main__ import main
from tasks.ground import settings
from tasks.ground.errors import Mistake
from tests.conftest import Project


@pytest.fixture(autouse=True)
def _environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sets what is not set: after the test it is not set again."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)


def test_every_step_of_the_graph_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """And is named in the help."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert set(steps.STEPS) <= set(said.split())


@pytest.mark.parametrize("arguments", [[], ["trian", "tiny"], ["train"], ["train", "a", "b"]])
def test_wrong_usage_ends_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And says what is right."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m tasks" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["why", "history", "rollback", "prepare", "validate"])
def test_an_unknown_model_ends_with_one_and_a_line(
    small: Project, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, with what was meant, and without a traceback."""
    assert main([command, "tinny"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == ("ParamsError: params.yaml: there is no model 'tinny' below `models`; did you mean 'tiny'?\n")


def test_as_a_process_it_tells_the_same(small: Project) -> None:
    """Exit code, stderr, and nothing on stdout."""
    small.edit("params.yaml", "rule: better", "rule: best")
    done = small.run(sys.executable, "-m", "tasks", "train", "tiny", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "ParamsError: params.yaml: models.tiny.gate.rule: input should be 'better' or 'not_worse', not 'best'\n"
    )


def test_a_defect_shows_its_traceback(small: Project) -> None:
    """It is not an error that a person could mend by reading one line."""
    (small.root / "models" / "tiny" / "pipeline" / "__init__.py").write_text("1 / 0\n")
    done = small.run(sys.executable, "-c", "from tasks.modelling import user_code; from tasks.ground import params; user_code.build_pipeline('tiny', params.load().model('tiny'))", check=False)  # fmt: skip
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_env_is_read_by_a_shell(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sourced, it names the project's state, also where a path holds a blank or a quote."""
    odd = small.root.parent / "it's a project"
    small.root.rename(odd)
    for name in settings.environment():
        if name != "PATH":
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EVERGREEN_ROOT", str(odd))
    monkeypatch.chdir(odd)
    script = f'eval "$({sys.executable} -m tasks env)" && echo "$MLFLOW_TRACKING_URI|$BENTOML_HOME|$DO_NOT_TRACK|$PATH"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=odd)
    uri, bentoml, telemetry, path = done.stdout.strip().split("|")
    assert uri == f"sqlite:///{odd}/var/mlflow/mlflow.db"
    assert bentoml == f"{odd}/var/bentoml"
    assert telemetry == "true"
    assert path.split(os.pathsep)[0] == f"{odd}/.venv/bin"


def test_env_leaves_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """One setting moves a store to a real server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert "export MLFLOW_TRACKING_URI=https://mlflow.example\n" in settings.exports()
    settings.apply()
    assert os.environ["MLFLOW_TRACKING_URI"] == "https://mlflow.example"


def test_mlflows_own_server_shows_what_is_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mlflow ui` in a shell of `make shell` reads another variable than those that write: it names the same store."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_BACKEND_STORE_URI"):
        monkeypatch.delenv(name, raising=False)
    store = f"sqlite:///{settings.VAR / 'mlflow' / 'mlflow.db'}"
    assert settings.environment()["MLFLOW_BACKEND_STORE_URI"] == settings.environment()["MLFLOW_TRACKING_URI"] == store
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://mlflow.example/runs")
    assert "export MLFLOW_BACKEND_STORE_URI=postgresql://mlflow.example/runs\n" in settings.exports()


def test_the_local_stacks_server_keeps_its_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever it tells of its address has also been told the store, and that stays."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", "sqlite:///mlflow.db")
    settings.apply()
    assert os.environ["MLFLOW_BACKEND_STORE_URI"] == "sqlite:///mlflow.db"
    assert services.environment()["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{settings.VAR / 'mlflow' / 'mlflow.db'}"


def test_every_tool_of_the_project_keeps_to_this_machine() -> None:
    """Telemetry is off, servers bind to 127.0.0.1, and state is below var/."""
    said = settings.environment()
    assert {said[name] for name in said if name.endswith("HOST")} == {"127.0.0.1"}
    assert said["MLFLOW_DISABLE_TELEMETRY"] == said["DO_NOT_TRACK"] == "true"  # mlflow takes no other word
    for name in ("PREFECT_HOME", "BENTOML_HOME", "DVC_SITE_CACHE_DIR"):
        assert Path(said[name]).is_relative_to(settings.VAR)


def test_why_says_what_would_run_and_runs_nothing(small: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Each stage with its reason."""
    assert main(["why", "tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("environment", "validate@tiny", "prepare@tiny", "train@tiny", "evaluate@tiny", "package@tiny")
    ]
    assert all(line.endswith("would run: it has not run yet") for line in lines)
    assert not settings.BUILD.exists()


def test_a_step_that_does_not_exist_is_told_with_what_was_meant() -> None:
    """As when dvc.yaml names it wrongly."""
    with pytest.raises(Mistake, match=r"^there is no step 'trian'; did you mean 'train'\?$"):
        steps.run("trian", ["tiny"])


def test_running_a_step_imports_no_other(small: Project) -> None:
    """Time is lost in imports: asking for help or for the environment loads no library of a step."""
    heavy = "[m for m in ('pandas', 'sklearn', 'mlflow', 'great_expectations', 'bentoml', 'dvc') if m in sys.modules]"
    said = small.python(f"import sys; from tasks.__main__ import main; main(['env']); print({heavy})")
    assert said.splitlines()[-1] == "[]"


def test_what_is_packaged_is_tracked(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dvc repro` runs `python -m tasks package`: the candidate is in MLflow afterwards, with no flow."""
    from tasks.release.package import package
    from tasks.release.registry import tracking

    done: list[str] = []
    monkeypatch.setattr(steps, "run", lambda step, arguments: done.append(f"{step} {arguments}"))
    monkeypatch.setattr(package, "measured", lambda model: {"latency_ms": 1.0})
    monkeypatch.setattr(tracking, "track", lambda *told: done.append(f"track {told[0]}") or "a run")
    cli.run_step("train", "tiny")
    cli.run_step("package", "tiny")
    assert done == ["train ['tiny']", "package ['tiny']", "track tiny"]
