"""A project of one's own: made of the checkout, upgraded by it, and told what to do first while it has no model."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.tools.project import MARKER, _remember
from tasks.ground import params, yaml_reader
from tasks.ground.git import Clone
from tests.conftest import BIN, LISTED_FILES, REPOSITORY, Project, copy_project

COMMIT = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qam", "an edit")

NEW_SHELL = ("env", "-i", f"PATH={os.environ['PATH']}", f"HOME={Path.home()}")
"""What begins a command in a shell that knows nothing of this checkout."""


@pytest.fixture(scope="module")
def checkout_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Git tracks of this checkout, or would, as a repository of one commit."""
    root = tmp_path_factory.mktemp("platform") / "evergreen"
    listed = subprocess.run(LISTED_FILES, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (REPOSITORY / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, root / name)
    (root / ".venv").symlink_to(BIN.parent)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=root, check=True)
    Project(root).commit()
    return root


@pytest.fixture
def checkout(checkout_once: Path, tmp_path: Path) -> Project:
    """A platform to change."""
    return Project(copy_project(checkout_once, tmp_path / "checkout"))


def evergreen(project: Project, *arguments: str | Path, check: bool = True) -> str:
    """What a command says, by its own entry point: the project's own code runs."""
    done = project.run(*NEW_SHELL, "bin/evergreen", *arguments, check=check)
    return done.stdout + done.stderr


@pytest.fixture
def mine(checkout: Project, tmp_path: Path) -> Project:
    """A project made of it."""
    evergreen(checkout, "new", tmp_path / "mine")
    return Project(tmp_path / "mine")


@pytest.fixture(scope="module")
def empty(checkout_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project made of it that nobody changes."""
    root = tmp_path_factory.mktemp("empty") / "mine"
    evergreen(Project(checkout_once), "new", root)
    return Project(root)


def test_a_new_project_has_the_platform_and_nothing_of_its_example(empty: Project) -> None:
    """No model, data version, lock entry, upstream, benchmark or candidate id; a clean tree with one commit."""
    assert not [path for name in ("data.dvc", "dvc.lock", "benchmarks", "findings") for path in empty.root.glob(name)]
    assert [path.name for path in (empty.root / "models").iterdir() if path.name != "__pycache__"] == ["__init__.py"]
    assert params.load(empty.root / "params.yaml").models == {}
    assert empty.run("git", "status", "--short").stdout == ""
    assert len(empty.run("git", "log", "--oneline").stdout.splitlines()) == 1
    tracked = empty.run("git", "ls-files").stdout.splitlines()
    assert {".ci/run", ".gitlab-ci.yml", ".github/workflows/check.yml", "README.md", "dvc.yaml"} <= set(tracked)
    assert not re.search(r"\b[0-9a-f]{16}\b|flight", (empty.root / "README.md").read_text(encoding="utf-8"))


def test_a_new_project_is_linted_and_layered_without_a_model(empty: Project) -> None:
    """What `make check` runs, but for the types, which take as long as those of this repository."""
    empty.run(BIN / "ruff", "check", ".")
    empty.run(BIN / "ruff", "format", "--check", ".")
    assert "0 broken" in empty.run(BIN / "lint-imports", "--no-cache").stdout
    empty.run(BIN / "python", "-m", "pytest", "-n", "0", "-q")


def _imported(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_nothing_of_the_platform_imports_a_model() -> None:
    """Or a project without the example's models would have no types."""
    layers = [path for layer in ("tasks", "flows", "deployments") for path in (REPOSITORY / layer).rglob("*.py")]
    assert not [path for path in layers if "models" in _imported(path)]


@pytest.mark.parametrize(
    "command",
    [
        *["run", "ingest", "why churn", "train churn", "deliver 10", "data", "backtest", "load", "year"],
        *["compare workspace champion", "check README.md --dataset churn", "diff churn 2024-01", "try prepare churn"],
    ],
)
def test_a_command_says_what_to_do_first(command: str, empty: Project) -> None:
    """There is no model yet."""
    answer = evergreen(empty, *command.split(), check=False)
    assert "there is no model yet: `evergreen add-model" in answer
    assert "Traceback" not in answer


def test_the_status_of_a_project_without_models_says_so(empty: Project) -> None:
    """Beside whether the platform is up."""
    assert "there is no model yet" in evergreen(empty, "status", check=False)


def test_the_graph_of_a_project_without_models_has_no_stage(empty: Project) -> None:
    """DVC takes an empty mapping in `foreach`."""
    assert empty.dvc("stage", "list", "--name-only").split() == []


def test_a_project_is_made_where_tarfile_knows_no_filters(checkout: Project, tmp_path: Path) -> None:
    """As in Python 3.11.0 to 3.11.3."""
    code = "import sys, tarfile; del tarfile.data_filter; from deployments import cli; sys.exit(cli.main(sys.argv[1:]))"
    place = f"PYTHONPATH={checkout.root}"
    checkout.run(*NEW_SHELL, place, sys.executable, "-c", code, "new", str(tmp_path / "old"))
    assert (tmp_path / "old" / "tasks" / "steps.py").is_file()


def test_a_remote_may_be_named(checkout: Project, tmp_path: Path) -> None:
    """Else it is a folder of the project."""
    evergreen(checkout, "new", tmp_path / "mine", "--remote", "s3://bucket/evergreen")
    assert Project(tmp_path / "mine").dvc("remote", "list").split()[:2] == ["local", "s3://bucket/evergreen"]


def test_a_remote_with_a_secret_is_refused(checkout: Project, tmp_path: Path) -> None:
    """It would be committed; it is not printed either."""
    printed = evergreen(checkout, "new", tmp_path / "mine", "--remote", "s3://key:hidden@bucket/x", check=False)
    assert ".dvc/config is committed" in printed
    assert "hidden" not in printed
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("origin", "remembered"),
    [
        ("https://me:secret@host/evergreen.git", "https://host/evergreen.git"),
        ("https://secret@host/evergreen.git", "https://host/evergreen.git"),
        ("ssh://git@host/evergreen.git", "ssh://git@host/evergreen.git"),
        ("git@host:us/evergreen.git", "git@host:us/evergreen.git"),
    ],
)
def test_where_the_platform_came_from_is_remembered_without_a_password(
    origin: str, remembered: str, checkout: Project, tmp_path: Path
) -> None:
    """As an upgrade can ask there again."""
    checkout.run("git", "remote", "add", "origin", origin)
    _remember(tmp_path, Clone(checkout.root), "0123")
    assert yaml_reader.load((tmp_path / MARKER).read_text(encoding="utf-8"))["platform"] == remembered


def test_what_a_person_ignores_everywhere_is_in_a_new_project_all_the_same(checkout: Project, tmp_path: Path) -> None:
    """Git would leave it out of the first commit, without a word."""
    (tmp_path / ".gitconfig").write_text(f"[core]\n\texcludesFile = {tmp_path}/ignored\n", encoding="utf-8")
    (tmp_path / "ignored").write_text("*.md\n.dvc\n", encoding="utf-8")
    checkout.run(*NEW_SHELL, f"HOME={tmp_path}", "bin/evergreen", "new", tmp_path / "mine")
    tracked = Project(tmp_path / "mine").run("git", "ls-files").stdout.splitlines()
    assert {"README.md", ".dvc/config", "docs/architecture.md"} <= set(tracked)


def test_a_folder_that_is_in_use_is_left_alone(checkout: Project, tmp_path: Path) -> None:
    """Nothing is written into it."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    assert "is there already" in evergreen(checkout, "new", tmp_path / "mine", check=False)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkout", "mine"]


def test_an_upgrade_brings_what_the_platform_changed_and_leaves_what_is_mine(checkout: Project, mine: Project) -> None:
    """Also where the platform changed its own params.yaml and README; again it finds nothing to do."""
    mine.edit("params.yaml", "settle_seconds: 1", "settle_seconds: 2")
    mine.edit("Makefile", "# The verbs.", "# My verbs.")
    mine.run(*COMMIT)
    checkout.edit("tasks/__init__.py", '"""What', '"""Newer. What')
    checkout.edit("template/params.yaml", "settle_seconds: 1", "settle_seconds: 9")
    (checkout.root / "docs" / "reference" / "ui.md").unlink()
    checkout.commit()
    assert "the platform is now that of" in evergreen(mine, "upgrade")
    assert "Newer. " in (mine.root / "tasks" / "__init__.py").read_text(encoding="utf-8")
    assert not (mine.root / "docs" / "reference" / "ui.md").exists()
    assert "settle_seconds: 2 " in (mine.root / "params.yaml").read_text(encoding="utf-8")
    assert "# My verbs." in (mine.root / "Makefile").read_text(encoding="utf-8")
    assert mine.run("git", "status", "--short").stdout == ""
    assert "nothing to do" in evergreen(mine, "upgrade")


def test_a_conflict_is_told_with_what_to_do_and_can_be_taken_back(checkout: Project, mine: Project) -> None:
    """Git marks the places, as in every merge."""
    for project, word in ((checkout, "theirs"), (mine, "mine")):
        project.edit("Makefile", "# The verbs.", f"# The verbs, {word}.")
    mine.run(*COMMIT)
    checkout.commit()
    answer = evergreen(mine, "upgrade", check=False)
    assert "changed the same lines of Makefile" in answer
    assert "git cherry-pick --continue" in answer
    assert "in no commit" in evergreen(mine, "upgrade", check=False)
    mine.run("git", "cherry-pick", "--abort")
    assert "# The verbs, mine." in (mine.root / "Makefile").read_text(encoding="utf-8")
    assert mine.run("git", "status", "--short").stdout == ""


def test_an_upgrade_refuses_a_tree_with_changes(checkout: Project, mine: Project) -> None:
    """They could be lost among its own. But not what flows change whenever data arrive."""
    for name in ("data.dvc", "dvc.lock"):
        (mine.root / name).write_text("outs: []\n", encoding="utf-8")
    assert "nothing to do" in evergreen(mine, "upgrade")
    mine.edit("README.md", "# mine", "# Mine")
    answer = evergreen(mine, "upgrade", check=False)
    assert "1 file of this project in no commit, such as README.md: `git add -A && git commit" in answer


def test_only_a_project_is_upgraded(checkout: Project) -> None:
    """The platform's own checkout is not."""
    assert "`git pull`" in evergreen(checkout, "upgrade", check=False)


def test_a_project_begins_with_an_example_where_one_is_named(checkout: Project, tmp_path: Path) -> None:
    """Its files are the project's own, and it says what to type; an unknown name is answered with what was meant."""
    *_, next_step = evergreen(checkout, "new", tmp_path / "shop", "--example", "demand").splitlines()
    assert next_step.endswith("make shell, then evergreen run")
    shop = Project(tmp_path / "shop")
    assert list(params.load(shop.root / "params.yaml").models) == ["demand"]
    assert shop.run("git", "status", "--short").stdout == ""
    assert "did you mean 'demand'?" in evergreen(checkout, "new", tmp_path / "x", "--example", "demands", check=False)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_table_is_served_four_commands_after_a_clone(checkout: Project, tmp_path: Path) -> None:
    """Drafted, ingested, trained, judged, packaged and asked; the tree is clean, and `make check` works."""
    from sklearn.datasets import load_breast_cancer

    load_breast_cancer(as_frame=True).frame.to_csv(tmp_path / "biopsies.csv", index=False)
    evergreen(checkout, "new", tmp_path / "mine")
    mine = Project(tmp_path / "mine")
    command = ["bin/evergreen", "add-model", "biopsies", "--from", tmp_path / "biopsies.csv", "--label", "target"]
    done = subprocess.run(
        [*NEW_SHELL, *command], cwd=mine.root, capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "── biopsies: promoted" in done.stdout
    assert "less" in done.stdout.partition("rows that it did not learn from")[2]
    assert "Of its two classes 1 is the second" in done.stdout
    assert "POST http://127.0.0.1:" in done.stdout
    assert mine.run("git", "status", "--short").stdout == ""
    assert evergreen(mine, "history", "biopsies").startswith("version 1 (champion)")
    mine.run(BIN / "ruff", "check", ".")
    mine.run(BIN / "python", "-m", "pytest", "-n", "0", "-q")
