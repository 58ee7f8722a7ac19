"""`evergreen …`: what a person types. And `python -m tasks …`: what dvc.yaml runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from deployments import cli
from deployments.local import services
from tasks import __main__, steps
from tasks.ground import settings
from tasks.ground.errors import Mistake
from tests.conftest import REPOSITORY, Project

EVERGREEN = REPOSITORY / "bin" / "evergreen"
HEAVY = {"pandas", "numpy", "sklearn", "mlflow", "great_expectations", "bentoml", "dvc", "prefect"}


def _commands(group: object = None, *path: str) -> Iterator[tuple[str, object]]:
    """`keys add` → its command, for each."""
    for name, command in (group or get_command(cli.app)).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from _commands(command, *path, name)
        else:
            yield " ".join([*path, name]), command


COMMANDS = dict(_commands())
WRITTEN = r"(?<![\w./-])(?<!pool )(?<!resume )(?<!limit )evergreen ([a-z][^`\n#;|&]*)"
"""A command where it is not the name of a work pool or of a folder."""

GROUPS = {name.split()[0] for name in COMMANDS if " " in name}


@pytest.fixture(autouse=True)
def _environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sets what is not set: after the test it is not set again."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)


# ── every command ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_does_with_an_example_that_parses(name: str) -> None:
    """And what each of its parameters is."""
    command = COMMANDS[name]
    assert command.help
    assert [parameter.name for parameter in command.params if not parameter.help] == []
    example = command.epilog.removeprefix("Example: evergreen ").split("||")[0]
    assert example.startswith(name)
    words = shlex.split(example)[len(name.split()) :]
    command.make_context(name, words)


def _written() -> Iterator[tuple[str, str]]:
    """`evergreen …` as documents and sources write it: where, and the words behind it."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for path in subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.splitlines():
        if Path(path).suffix in {".py", ".md", ".html", ".yaml", ".toml", ""} and (REPOSITORY / path).is_file():
            text = (REPOSITORY / path).read_text(encoding="utf-8", errors="replace")
            for match in re.finditer(WRITTEN, text):
                yield f"{path}:{text.count(chr(10), 0, match.start()) + 1}", match[1]


def test_every_command_that_is_written_somewhere_exists() -> None:
    """In documents, errors and the status page; with its options."""
    wrong = []
    for place, text in _written():
        words = re.findall(r"[\w-]+", text)
        name = " ".join(words[:2]) if words[0] in GROUPS else words[0]
        command = COMMANDS.get(name)
        options = {option for parameter in getattr(command, "params", []) for option in parameter.opts}
        if command is None or set(re.findall(r"(?<!\S)--[a-z][\w-]*", text)) - options - {"--help"}:
            wrong.append(f"{place}: evergreen {text[:60]}")
        elif ".md:" in place and len(words) > len(name.split()) and (problem := _misuse(name, text)):
            wrong.append(f"{place}: evergreen {text[:60]}: {problem}")
    assert not wrong, "\n".join(wrong)


def _misuse(name: str, text: str) -> str:
    """Why a command of a document does not parse; a number stands for what it leaves to the reader."""
    words = shlex.split(re.sub(r"<[^>]+>|\bN\b", "1", re.sub(r"[\[\]]|\(.*| {2,}.*|\s—.*", "", text)))
    try:
        COMMANDS[name].make_context(name, words[len(name.split()) :])
    except typer.BadParameter.__base__ as error:
        return str(error)
    return ""


def test_every_target_and_module_that_is_written_somewhere_exists() -> None:
    """`make …` and `python -m …`."""
    makefiles = "".join((REPOSITORY / name).read_text(encoding="utf-8") for name in ("Makefile", "benchmarks/bench.mk"))
    targets = set(re.findall(r"^([\w-]+):", makefiles, re.MULTILINE))
    wrong = []
    for path in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("*/**/*.py")]:
        if path.is_relative_to(REPOSITORY / ".venv") or path.name == "CHANGELOG.md":
            continue
        text = path.read_text(encoding="utf-8")
        made = {target for line in re.findall(r"`make ([a-z -]+)`", text) for target in line.split()} - targets
        run = re.findall(r"python -m ((?:tasks|flows|deployments|benchmarks|tests)[\w.]*)", text)
        wrong += [f"{path}: make {target}" for target in made]
        wrong += [f"{path}: {module}" for module in run if not find_spec(module.rstrip("."))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["ingest", "train", "rollout", "monitor", "predict"])
def test_a_flow_is_given_what_it_takes(name: str) -> None:
    """The command has the flow's parameters with their defaults."""
    takes = signature(getattr(import_module(f"flows.{name}"), name)).parameters.values()
    parameters = [parameter for parameter in COMMANDS[name].params if parameter.name != "help"]
    assert [parameter.name for parameter in parameters] == [parameter.name for parameter in takes]
    assert [p.required for p in parameters] == [p.default is p.empty for p in takes]
    assert [p.default for p in parameters if not p.required] == [p.default for p in takes if p.default is not p.empty]


# ── how a command ends ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "arguments", [["trian", "tiny"], ["train"], ["train", "a", "b"], ["predict", "tiny"], ["keys"], []]
)
def test_wrong_usage_ends_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And says what is right."""
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert "Usage: evergreen" in shown.out + shown.err


def test_an_unknown_model_ends_with_one_and_a_line(small: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, with what was meant, and without a traceback."""
    for command in ("why", "history", "rollback", "promote", "alarms", "image"):
        assert cli.main([command, "tinny"]) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err == "ParamsError: params.yaml: there is no model 'tinny' below `models`; did you mean 'tiny'?\n"


def test_exit_codes_mean_something(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """0 done, 1 could not be done, 2 wrong usage, 3 done and something wants attention."""
    for arguments, code, text in (
        ("deliver 13", 1, "2013-13"),
        ("status", 3, "the platform is not up. Start it: evergreen up"),
        ("down", 0, "is not up"),
        ("forget flight_delay --time-after tomorrow", 1, "'tomorrow' is no time: write 2027-01-31"),
        ("backtest --since tomorrow", 2, "Invalid value"),
        ("rollout flight_delay --target moon", 2, "'moon' is not one of"),
    ):
        assert cli.main(arguments.split()) == code
        shown = capsys.readouterr()
        assert text in " ".join((shown.out + shown.err).split())


def test_a_defect_shows_its_traceback(small: Project) -> None:
    """It is not an error that a person could mend by reading one line."""
    (small.root / "models" / "tiny" / "pipeline" / "__init__.py").write_text("1 / 0\n")
    code = "from tasks.modelling import user_code; from tasks.ground import params; user_code.build_pipeline('tiny', params.load().model('tiny'))"  # fmt: skip # noqa: E501
    done = small.run(sys.executable, "-c", code, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


# ── what commands print ───────────────────────────────────────────────────────────────────────────


def test_why_says_what_would_run_and_runs_nothing(small: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Each stage with its reason; for a program, too."""
    assert cli.main(["why", "tiny"]) == cli.ATTENTION
    lines = capsys.readouterr().out.splitlines()
    stages = ["environment@tiny", "validate@tiny", "prepare@tiny", "train@tiny", "evaluate@tiny", "package@tiny"]
    assert [line.split()[0] for line in lines] == stages
    assert all(line.endswith("would run: it has not run yet") for line in lines)
    assert not settings.BUILD.exists()
    assert cli.main(["why", "tiny", "--json"]) == cli.ATTENTION
    assert list(json.loads(capsys.readouterr().out)["stages"]) == stages


def test_what_is_read_is_printed_as_json(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is nothing yet, as something empty."""
    for arguments, empty in (
        ("alarms flight_delay", []),
        ("revisions", {}),
        ("quarantine list", []),
        ("keys list", {"keys": [], "required": False}),
    ):
        assert cli.main([*arguments.split(), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == empty
    assert cli.main(["status", "--json"]) == cli.ATTENTION
    assert json.loads(capsys.readouterr().out)["is_up"] is False


def test_history_has_what_an_auditor_asks(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line a fact; what there is not is left out. For a program, all of it."""
    from tasks.release.registry import registry

    record = registry.VersionRecord(
        version=2, candidate="cafe", data_version="9.dir", created="2013-09-01", verdict=None, summary=None,
        on_hold=None, promoted_by="v1", champion=("from 2013-09-02",), withdrawn=None, aliases=("champion",),
        run_id="r", files_removed=None,
    )  # fmt: skip
    monkeypatch.setattr(registry, "history", lambda model: [record])
    assert cli.main(["history", "flight_delay"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "version 2 (champion): candidate cafe, made 2013-09-01, run r",
        "  data       9.dir",
        "  verdict    none",
        "  promoted   by verdict v1",
        "  champion   from 2013-09-02",
    ]
    assert cli.main(["history", "flight_delay", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["promoted_by"] == "v1"


def test_a_month_arrives_in_the_landing_zone(project: Project) -> None:
    """By its number or by its name; of every dataset that the upstream has."""
    assert cli.main(["deliver", "10", "2013-11"]) == 0
    landing = project.root / "var" / "landing"
    assert sorted(path.relative_to(landing).as_posix() for path in landing.rglob("*.csv")) == [
        *("flights/2013-10.csv", "flights/2013-11.csv", "weather/2013-10.csv", "weather/2013-11.csv")
    ]


def test_keys_are_made_listed_and_removed(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """A key is shown once; who is answered without one is said."""
    assert cli.main(["keys", "add", "shop"]) == 0
    assert "It is shown only now" in capsys.readouterr().out
    assert cli.main(["keys", "list"]) == 0
    assert capsys.readouterr().out == "shop\n"
    assert cli.main(["keys", "open"]) == 1
    assert cli.main(["keys", "remove", "shop"]) == 0
    assert "nobody is answered" in capsys.readouterr().out
    assert cli.main(["keys", "open"]) == 0
    assert "no key is needed" in capsys.readouterr().out


# ── the entry script ──────────────────────────────────────────────────────────────────────────────


def test_it_is_typed_anywhere_and_through_a_link(tmp_path: Path) -> None:
    """It works on its own checkout; a module of the folder it is typed in is not imported."""
    (tmp_path / "evergreen").symlink_to(EVERGREEN)
    (tmp_path / "typer.py").write_text("raise SystemExit('not this one')\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EVERGREEN")}
    done = subprocess.run(
        [tmp_path / "evergreen", "env"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert f"export EVERGREEN_ROOT={REPOSITORY}\n" in done.stdout


def test_without_an_environment_it_says_what_to_type(tmp_path: Path) -> None:
    """In a fresh clone."""
    script = tmp_path / "bin" / "evergreen"
    script.parent.mkdir()
    script.write_bytes(EVERGREEN.read_bytes())
    done = subprocess.run(["bash", str(script), "run"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"there is no .venv yet: type make setup in {tmp_path}\n")


def test_a_path_is_of_the_folder_it_is_typed_in(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in the project's folder; a URL and a partition stay as they are."""
    here = project.root / "var" / "here"
    here.mkdir(parents=True)
    (here / "rows.csv").touch()
    monkeypatch.chdir(here)
    assert cli._source("rows.csv") == str(here / "rows.csv")
    assert cli._source("flights/2013-10") == "flights/2013-10"
    assert cli._target("out") == str(here / "out")
    assert cli._target("s3://bucket/out") == "s3://bucket/out"


def test_the_tab_key_completes(
    small: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands, models, datasets and partitions."""
    monkeypatch.setenv("_EVERGREEN_COMPLETE", "complete_bash")
    for typed, completed in {
        "wh": ["why"],
        "keys a": ["add"],
        "why ti": ["tiny"],
        "revert rea": ["readings"],
        "revert readings 2013-0": ["2013-01", "2013-02", "2013-03"],
    }.items():
        monkeypatch.setenv("COMP_WORDS", f"evergreen {typed}")
        monkeypatch.setenv("COMP_CWORD", str(1 + typed.count(" ")))
        cli.main([])
        assert capsys.readouterr().out.split() == completed


def test_with_nothing_to_do_why_imports_nothing_heavy(small: Project) -> None:
    """It is asked at every wake-up: DVC is needed only where an input was touched."""
    code = "import sys; from tasks.training import dvc_graph; from deployments.cli import main; "
    code += "dvc_graph.reasons = lambda model: {'train@tiny': None}; print(main(['why', 'tiny'])); "
    lines = small.python(f"{code}print({HEAVY} & sys.modules.keys())").splitlines()
    assert lines[1:] == ["tiny: nothing to do, no stage has an input that changed", "0", "set()"]


def test_help_and_environment_import_nothing_heavy(small: Project) -> None:
    """Time is lost in imports."""
    code = "import sys; from deployments.cli import main; "
    code += "main(['--help']); main(['env', '--shell', 'bash']); main(['keys', '--help']); "
    assert small.python(f"{code}print({HEAVY} & sys.modules.keys())").splitlines()[-1] == "set()"


# ── the environment ───────────────────────────────────────────────────────────────────────────────


def test_env_is_read_by_a_shell(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sourced, it names the project's state, also where a path holds a blank or a quote."""
    odd = small.root.parent / "it's a project"
    small.root.rename(odd)
    for name in settings.environment():
        if name != "PATH":
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EVERGREEN_ROOT", str(odd))
    monkeypatch.chdir(odd)
    shown = "$MLFLOW_TRACKING_URI|$BENTOML_HOME|$DO_NOT_TRACK|$PATH"
    script = f'eval "$({sys.executable} -m deployments.cli env)" && echo "{shown}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=odd)
    uri, bentoml, telemetry, path = done.stdout.strip().split("|")
    assert uri == f"sqlite:///{odd}/var/mlflow/mlflow.db"
    assert bentoml == f"{odd}/var/bentoml"
    assert telemetry == "true"
    assert path.split(os.pathsep)[:2] == [f"{odd}/bin", f"{odd}/.venv/bin"]


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


# ── the stages of dvc.yaml ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("arguments", [[], ["trian", "tiny"], ["train"], ["train", "a", "b"], ["environment"]])
def test_a_stage_that_is_called_wrongly_ends_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And names every step."""
    with pytest.raises(SystemExit) as ended:
        __main__.main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m tasks" in capsys.readouterr().err


def test_a_stage_ends_with_one_and_a_line(small: Project) -> None:
    """Exit code, stderr, and nothing on stdout."""
    small.edit("params.yaml", "rule: better", "rule: best")
    done = small.run(sys.executable, "-m", "tasks", "train", "tiny", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "ParamsError: params.yaml: models.tiny.gate.rule: input should be 'better' or 'not_worse', not 'best'\n"
    )


def test_a_step_that_does_not_exist_is_reported_with_what_was_meant() -> None:
    """As when dvc.yaml names it wrongly."""
    with pytest.raises(Mistake, match=r"^there is no step 'trian'; did you mean 'train'\?$"):
        steps.run("trian", ["tiny"])


def test_what_is_packaged_is_tracked(small: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dvc repro` runs `python -m tasks package`: the candidate is in MLflow afterwards, with no flow."""
    from tasks.release.package import package
    from tasks.release.registry import tracking

    done: list[str] = []
    monkeypatch.setattr(steps, "run", lambda step, arguments: done.append(f"{step} {arguments}"))
    monkeypatch.setattr(package, "measured", lambda model: {"latency_ms": 1.0})
    monkeypatch.setattr(tracking, "track", lambda *arguments: done.append(f"track {arguments[0]}") or "a run")
    steps.run_as_stage("train", "tiny")
    steps.run_as_stage("package", "tiny")
    assert done == ["train ['tiny']", "package ['tiny']", "track tiny"]


def test_json_holds_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    """Other parsers than Python's refuse it: a value that is none is null."""
    cli._print({"row": {"dist": float("nan")}, "all": [float("inf"), 1.5]}, True, [])
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "row": {"dist": None},
        "all": [None, 1.5],
    }
