"""The image of a release: its build context, and what its Containerfile's commands do, without a container engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import NamedTuple

import httpx
import pandas as pd
import pytest
from packaging.requirements import Requirement

from tasks.ground import files, params, settings
from tasks.ground.errors import Mistake, ModelFileRefused
from tasks.ground.http import free_port
from tasks.release.cluster import image
from tasks.release.package import package
from tasks.release.registry import model_state, registry, version_files
from tasks.runtime import families
from tests.conftest import REPOSITORY
from tests.release_root import make_project, project_at

MODEL = "hourly_departures"
NOT_FOR_SERVING = ("mlflow", "prefect", "dvc", "great_expectations", "matplotlib", "pytest")


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Bento of a small project, in its store; the project is the one that is worked on."""
    root = tmp_path_factory.mktemp("project")
    make_project(root, MODEL)
    with project_at(root):
        release = settings.BUILD / MODEL / "release"
        package.write_release(MODEL, params.load().model(MODEL), release)
        yield package.ensure_bento_of(release)


@pytest.fixture(scope="module")
def context(bento: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build context of its image."""
    folder = tmp_path_factory.mktemp("image") / "context"
    image.write(bento, folder)
    return folder


class Instruction(NamedTuple):
    """A line of a Containerfile."""

    word: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    """A Containerfile, without comments and with long lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Instruction(*line.split(" ", 1)) for line in joined.splitlines() if line.strip()]


def labels(text: str) -> dict[str, str]:
    """What an image's labels say, as a builder reads them."""
    told = shlex.split(next(rest for word, rest in instructions(text) if word == "LABEL"))
    return dict(label.split("=", 1) for label in told)


# ── the build context ─────────────────────────────────────────────────────────────────────────────


def test_a_context_holds_the_bento_its_packages_and_a_containerfile(bento: Path, context: Path) -> None:
    """All that a builder needs and nothing of this project beside; BentoML's own Dockerfile is not among it."""
    assert {path.name for path in context.iterdir()} == {"Containerfile", "requirements.txt", "bento"}
    assert files.tree(context / "bento" / "src") == files.tree(bento / "src")
    assert (context / "bento" / "bento.yaml").read_bytes() == (bento / "bento.yaml").read_bytes()
    assert not list(context.rglob("Dockerfile"))


def test_the_same_bento_gives_the_same_context(bento: Path, context: Path, tmp_path: Path) -> None:
    """Written again, over what was there: the same bytes, so a builder finds its layers."""
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "left").write_text("over")
    image.write(bento, tmp_path / "context")
    assert files.tree(tmp_path / "context") == files.tree(context)


def test_a_bento_that_was_changed_is_refused(bento: Path, tmp_path: Path) -> None:
    """Nothing is written: an image is not where a changed model gets out."""
    shutil.copytree(bento, tmp_path / "bento")
    with (tmp_path / "bento" / "src" / "tasks" / "schema.py").open("a") as source:
        source.write("# changed\n")
    with pytest.raises(ModelFileRefused, match="was changed after it was packaged"):
        image.write(tmp_path / "bento", tmp_path / "context")
    assert not (tmp_path / "context").exists()


def test_packages_are_installed_by_hash(context: Path) -> None:
    """Every pin of the release, and no other, each with the hashes of requirements.lock."""
    entries = re.split(r"(?m)^(?=\S)", (context / "requirements.txt").read_text())[1:]
    pins = (context / "bento" / "src" / "requirements.txt").read_text().splitlines()
    assert [entry.split(" \\\n")[0] for entry in entries] == pins
    assert all("--hash=sha256:" in entry for entry in entries)


def test_a_release_of_another_lock_is_installed_by_version(context: Path, tmp_path: Path) -> None:
    """An older champion can still be built; pip takes hashes for all or for none, and the file says why it has none."""
    (tmp_path / "requirements.txt").write_text("numpy==1.0\nscikit-learn==1.9.1\n")
    told, *pins = image.requirements(tmp_path).splitlines()
    assert told == "# no hashes: the lock has none for numpy==1.0"
    assert pins == ["numpy==1.0", "scikit-learn==1.9.1"]


@pytest.mark.parametrize(
    "about", ['Will it be "late"?', "costs $HOME ${PATH}", "two\nlines \\ and more", "ein Flug, spät"]
)
def test_labels_say_where_the_image_comes_from(context: Path, about: str) -> None:
    """Whatever a person wrote about the model: a builder fills nothing in, and no line is broken."""
    facts = package.release_facts(context / "bento" / "src")
    told = labels(image.containerfile({**facts, "about": about}).replace("\\$", "$"))
    assert told["org.opencontainers.image.version"] == facts["candidate"]
    assert told["evergreen.model.sha256"] == files.sha256(context / "bento" / "src" / "model.skops")
    assert told["org.opencontainers.image.description"] == " ".join(about.split())
    if "$" in about:
        assert r"costs \$HOME \${PATH}" in image.containerfile({**facts, "about": about})


def test_the_name_is_one_that_registries_and_kubernetes_take() -> None:
    """Hyphens instead of underscores; what no Service may be called is said before anything is made."""
    assert image.reference("registry.example/team/", "flight_delay", "0a") == "registry.example/team/flight-delay:0a"
    for name in ("late_", "a" * 64):
        with pytest.raises(Mistake, match=rf"models\.{name}: .* is no name for a Kubernetes Service"):
            image.name_of(name)


# ── from the registry ─────────────────────────────────────────────────────────────────────────────


def champion(model: str, number: int, candidate: str) -> model_state.ModelVersion:
    """A version as the registry gives it."""
    return model_state.ModelVersion(model, number, candidate, "run", "2026-11-21", {}, ("champion",))


def test_without_a_version_it_is_the_champions(bento: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And lies below var/images, by model and candidate."""
    monkeypatch.setattr(registry, "resolve", lambda model, _: champion(model, 3, bento.name))
    folder, candidate = image.of_version(MODEL)
    assert folder == settings.VAR / "images" / MODEL / bento.name
    assert candidate == bento.name
    assert (folder / "Containerfile").is_file()


@pytest.mark.parametrize(("version", "named"), [(None, "champion"), (7, "7"), (0, "0")])
def test_a_version_that_is_named_is_asked_for(version: int | None, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that cannot be: the champion's image instead of it would be another release's."""

    def resolve(_: str, version: str) -> model_state.ModelVersion:
        raise Mistake(f"asked for {version}")

    monkeypatch.setattr(registry, "resolve", resolve)
    with pytest.raises(Mistake, match=f"^asked for {named}$"):
        image.of_version(MODEL, version)


def test_a_bento_that_is_lost_is_made_of_what_the_registry_keeps(
    bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store of Bentos is a cache."""
    release = tmp_path / "release"
    shutil.copytree(bento / "src", release, ignore=shutil.ignore_patterns("bentofile.yaml", "__pycache__"))
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(registry, "resolve", lambda model, _: champion(model, 3, bento.name))
    monkeypatch.setattr(registry, "find", lambda model, candidate: champion(model, 3, candidate))
    monkeypatch.setattr(version_files, "fetch_cached", lambda *_: tmp_path)
    folder, _ = image.of_version(MODEL, to=tmp_path / "context")
    assert files.tree(folder / "bento" / "src") == files.tree(bento / "src")


# ── the Containerfile ─────────────────────────────────────────────────────────────────────────────


def test_a_linter_finds_nothing(context: Path) -> None:
    """hadolint, which parses as a builder does and has ShellCheck look at the commands."""
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, context / "Containerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_library_that_links_to_what_the_base_lacks_gets_it(context: Path) -> None:
    """LightGBM's wheel brings no OpenMP; XGBoost's and scikit-learn's do, and need no package of Debian."""
    facts = package.release_facts(context / "bento" / "src")
    assert "apt-get" not in image.containerfile(facts)
    facts["lineage"]["libraries"]["lightgbm"] = "4.6.0"
    (install,) = [
        rest for word, rest in instructions(image.containerfile(facts)) if "apt-get" in rest and word == "RUN"
    ]
    assert install.startswith("apt-get update && apt-get install --yes --no-install-recommends libgomp1 &&")


@pytest.mark.group("lightgbm")
def test_what_a_library_links_to_is_known_of_it() -> None:
    """Of the installed libraries: what the loader finds in no folder of Python's is what the family names."""
    for name in ("lightgbm", "xgboost", "catboost"):
        package_folder = Path(str(find_spec(name).submodule_search_locations[0]))  # type: ignore[union-attr,index]
        needed = [
            line
            for library in package_folder.rglob("*.so")
            for line in subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout.splitlines()
        ]
        lacks_openmp = any("libgomp.so" in line and str(package_folder.parent) not in line for line in needed)
        assert families.debian([name]) == (["libgomp1"] if lacks_openmp else []), name


def test_it_runs_as_nobody_and_listens_to_all(context: Path) -> None:
    """A number, as Kubernetes wants it to see that it is not root; the address is said, not left to a default."""
    last = dict(instructions((context / "Containerfile").read_text()))
    assert last["USER"] == "65532:65532"
    assert last["EXPOSE"] == "3000"
    assert json.loads(last["CMD"]) == ["bentoml", "serve", "/bento", "--host", "0.0.0.0", "--port", "3000"]


@pytest.mark.slow
def test_what_it_runs_serves_the_release_with_the_packages_it_names_and_no_others(
    context: Path, tmp_path: Path
) -> None:
    """Its commands, below another root and with the packages linked, not fetched: it answers as evaluated."""
    root = tmp_path / "root"
    said = instructions((context / "Containerfile").read_text())
    prepare, compile_ = (rest for word, rest in said if word == "RUN")
    make_venv, _, check, _ = prepare.split(" && ")
    run(make_venv.split("pip.conf ")[1], root)
    link_packages(context / "requirements.txt", root / "opt" / "release")
    run(check, root)
    shutil.copytree(context / "bento", root / "bento")
    run(compile_, root)

    python = root / "opt" / "release" / "bin" / "python"
    for name in NOT_FOR_SERVING:
        assert subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False).returncode == 1, name
    before = files.tree(root / "bento")
    golden = files.read_json(context / "bento" / "src" / "golden.json")
    with serving(said, root) as address:
        asked = httpx.post(f"{address}/predict", json={"rows": [one["row"] for one in golden]}, timeout=30)
    assert asked.status_code == 200, (root / "tmp" / "log").read_text()[-3000:]
    evaluated = pd.DataFrame([row["predicted"] for row in golden], index=[row["id"] for row in golden])
    assert package.differences(evaluated, asked.json()["predictions"]) == []
    assert files.tree(root / "bento") == before
    assert {path.name for path in root.iterdir()} == {"opt", "bento", "tmp"}


def run(command: str, root: Path) -> None:
    """Do a command of the Containerfile below another root."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = re.sub(r"(?<![\w.])/(opt|bento)\b", rf"{root}/\1", command)
    done = subprocess.run(["sh", "-ec", command], env={"PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def link_packages(requirements: Path, venv: Path) -> None:
    """What `pip install` of these pins would bring, linked from where the tests run: no network, the same files."""
    site = next(venv.glob("lib/python*/site-packages"))
    for line in requirements.read_text().splitlines():
        if not (match := re.match(r"(\S+==[^\\]+)", line)):
            continue
        pin = Requirement(match[1])
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        package_ = metadata.distribution(pin.name)
        assert pin.specifier.contains(package_.version), f"{pin} is not what is installed: {package_.version}"
        for file in package_.files or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                link(Path(str(package_.locate_file(file))), site / file)
        for script in package_.entry_points.select(group="console_scripts"):
            module, _, attribute = script.value.partition(":")
            path = venv / "bin" / script.name
            path.write_text(
                f"#!{venv}/bin/python\nimport sys\nfrom {module} import {attribute} as main\nsys.exit(main())\n"
            )
            path.chmod(0o755)


def link(source: Path, target: Path) -> None:
    """Link a file, and the byte code that was compiled from it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)
    if source.suffix == ".py" and (compiled := Path(cache_from_source(str(source)))).exists():
        (target.parent / "__pycache__").mkdir(exist_ok=True)
        (target.parent / "__pycache__" / compiled.name).symlink_to(compiled)


@contextmanager
def serving(said: list[Instruction], root: Path) -> Iterator[str]:
    """Start what the image starts, with its environment and no other; the address, once it is ready."""
    given = dict(pair.split("=", 1) for pair in shlex.split(next(rest for word, rest in said if word == "ENV")))
    (root / "tmp").mkdir()
    environment = {name: re.sub(r"(?<![\w.])/(opt|bento|tmp)\b", rf"{root}/\1", value) for name, value in given.items()}
    environment["PATH"] = environment["PATH"].replace("$PATH", "/usr/bin:/bin")
    command = json.loads(next(rest for word, rest in said if word == "CMD"))
    port = str(free_port())
    command = [{"/bento": str(root / "bento"), "3000": port}.get(word, word) for word in command]
    command[0] = str(root / "opt" / "release" / "bin" / command[0])
    environment["TMPDIR"] = str(root / "tmp")
    log = root / "tmp" / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=root / "bento", env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.2:{port}"  # not only the loopback address that everybody uses
            until_ready(address, process, log)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def until_ready(address: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 90) -> None:
    """Wait as a startup probe does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{address}/readyz", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError(f"not ready:\n{log.read_text()}")


def test_the_python_is_the_one_of_the_project() -> None:
    """A release is tried with this interpreter, so the image has its minor version."""
    assert f"python:{sys.version_info.major}.{sys.version_info.minor}-" in image.BASE
    assert (REPOSITORY / "tasks/release/cluster/templates/Containerfile").is_file()
