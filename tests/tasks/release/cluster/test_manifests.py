"""Kubernetes manifests: valid by Kubernetes' own schemas, true among themselves, and rolled out by a commit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions
from packaging.version import Version

from tasks.ground import settings
from tasks.ground.errors import Mistake, SourceUnavailable
from tasks.ground.git import Clone
from tasks.release.cluster import manifests
from tests.conftest import REPOSITORY

OLD, NEW, NEWER = "97a3c0ffee15600d", "1234567890123456", "0011223344556677"  # two that YAML would take for numbers
IMAGES = "registry.example:5000/evergreen"
MODELS = ("flight_delay", "hourly_departures")
SINCE = "1.30"
"""The oldest Kubernetes that the manifests are for."""

ROLL = """
import sys
from pathlib import Path
from tasks.release.cluster import manifests
folder, model = Path(sys.argv[1]), sys.argv[2]
for version, candidate in enumerate(sys.argv[3:], 4):
    manifests.roll(model, candidate, version, folder, remote="origin", log=lambda _: None)
"""


def written(folder: Path, model: str = "flight_delay") -> Path:
    """The manifests of a model, of version 3."""
    return manifests.write(model, OLD, 3, IMAGES, folder)


def documents(path: Path) -> dict[str, Any]:
    """The resources in a file, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(path.read_text())}


def pod(held: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod that a Deployment makes, and its container."""
    spec = held["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


# ── the manifests ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("version", sorted({one for one in all_versions() if Version(one) >= Version(SINCE)}))
def test_they_are_valid_by_the_schemas_of_kubernetes(tmp_path: Path, version: str) -> None:
    """Strictly: no field that the server would not know; for each version since the one that they name."""
    for model in MODELS:
        for one in documents(written(tmp_path, model)).values():
            assert kubernetes_validate.validate(one, version, strict=True) == ".".join(version.split(".")[:2])


def test_the_validation_sees_what_is_wrong(tmp_path: Path) -> None:
    """An unknown field, a label that is a number."""
    for path, value in ((["spec", "startegy"], {}), (["metadata", "labels", manifests.VERSION], 3)):
        one = documents(written(tmp_path / path[-1].replace("/", "")))["Deployment"]
        place = one
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(one, all_versions()[-1], strict=True)


def test_all_of_it_is_there_and_means_the_same_pods(tmp_path: Path) -> None:
    """Service, budget, policy, autoscaler and spread select what the Deployment makes, by what no rollout changes."""
    held = documents(written(tmp_path))
    assert set(held) == {
        "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"
    }  # fmt: skip
    assert {one["metadata"]["name"] for one in held.values()} == {"flight-delay"}
    assert {one["metadata"]["labels"][manifests.MODEL] for one in held.values()} == {"flight_delay"}
    deployment = held["Deployment"]["spec"]
    selected = [deployment["selector"]["matchLabels"], held["Service"]["spec"]["selector"]]
    selected += [held["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]]
    selected += [held["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]]
    spread = pod(held)[0]["topologySpreadConstraints"]
    selected += [one["labelSelector"]["matchLabels"] for one in spread]
    assert all(one == {"app.kubernetes.io/name": "flight-delay"} for one in selected)
    assert selected[0].items() <= deployment["template"]["metadata"]["labels"].items()
    target = held["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "flight-delay")
    assert "replicas" not in deployment  # the autoscaler's; GitOps would set it back at each look


def test_pods_say_which_release_they_are(tmp_path: Path) -> None:
    """By label, for whoever looks at the cluster: model, candidate and the registry's version, all of them texts."""
    held = documents(written(tmp_path))
    labels = held["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert [labels[name] for name in (manifests.MODEL, manifests.CANDIDATE, manifests.VERSION)] == [
        "flight_delay", OLD, "3"
    ]  # fmt: skip
    assert pod(held)[1]["image"] == f"{IMAGES}/flight-delay:{OLD}"


def test_a_rollout_takes_no_pod_away_before_another_is_ready(tmp_path: Path) -> None:
    """One more, none less; and what ends has time to be forgotten by the endpoints and to answer what it has begun."""
    held = documents(written(tmp_path))
    spec, container = pod(held)
    assert held["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    service = (REPOSITORY / "tasks/runtime/bento_service.py").read_text()
    longest = int(re.search(r'traffic=\{"timeout": (\d+)\}', service)[1])  # type: ignore[index]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > pause + longest
    assert held["HorizontalPodAutoscaler"]["spec"]["minReplicas"] >= 2
    assert held["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_probes_ask_what_they_mean(tmp_path: Path) -> None:
    """Ready is not alive; who is busy is left out before it is restarted; a start has a deadline."""
    held = documents(written(tmp_path))
    _, container = pod(held)
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    start = container["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] < held["Deployment"]["spec"]["progressDeadlineSeconds"]
    ready, alive = container["readinessProbe"], container["livenessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] < alive["periodSeconds"] * alive["failureThreshold"]
    assert {probe["httpGet"]["port"] for probe in (start, ready, alive)} == {container["ports"][0]["name"]}


def test_it_fits_the_image(tmp_path: Path) -> None:
    """The port that it listens on, the user that it runs as, the one folder that it writes to."""
    held = documents(written(tmp_path))
    spec, container = pod(held)
    text = (REPOSITORY / "tasks/release/cluster/templates/Containerfile").read_text()
    user = spec["securityContext"]["runAsUser"]
    assert f"USER {user}:{spec['securityContext']['runAsGroup']}\n" in text
    port = container["ports"][0]["containerPort"]
    assert f"EXPOSE {port}\n" in text
    assert held["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert [one["port"] for one in held["NetworkPolicy"]["spec"]["ingress"][0]["ports"]] == [port]
    assert held["Deployment"]["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
    assert "BENTOML_HOME=/tmp/" in text


def test_a_pod_may_do_nothing_but_answer(tmp_path: Path) -> None:
    """The restricted pod security standard, a root file system that is only read, no account, no way out."""
    held = documents(written(tmp_path))
    spec, container = pod(held)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    assert set(container["resources"]) == {"requests", "limits"}
    policy = held["NetworkPolicy"]["spec"]
    assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], [])


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    """It may hold what a person wrote."""
    path = written(tmp_path)
    with pytest.raises(Mistake, match=r"flight_delay\.yaml is there, and may hold what somebody wrote"):
        written(tmp_path)
    assert OLD in path.read_text()


# ── KServe ────────────────────────────────────────────────────────────────────────────────────────

RUNTIME_FIELDS = {"supportedModelFormats", "protocolVersions", "containers", "volumes", "labels", "annotations"}
"""Fields of a ClusterServingRuntime that are used, of v1alpha1 (KServe 0.21, pkg/apis/serving/v1alpha1)."""


def written_for_kserve(folder: Path, model: str = "flight_delay") -> Path:
    """A runtime and an InferenceService."""
    return manifests.write(model, OLD, 3, IMAGES, folder, kserve=True)


def test_a_runtime_of_kserve_is_valid_and_its_service_asks_for_it(tmp_path: Path) -> None:
    """Its pod by Kubernetes' own schema; name, format and protocol are the same on both sides."""
    for model in MODELS:
        held = documents(written_for_kserve(tmp_path, model))
        assert set(held) == {"ClusterServingRuntime", "InferenceService"}
        runtime, asked = held["ClusterServingRuntime"], held["InferenceService"]["spec"]["predictor"]["model"]
        spec = runtime["spec"]
        assert set(spec) == RUNTIME_FIELDS
        pod_spec = {name: spec[name] for name in ("containers", "volumes")}
        made = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x", "labels": spec["labels"]},
            "spec": pod_spec,
        }
        kubernetes_validate.validate(made, all_versions()[-1], strict=True)
        assert (asked["runtime"], asked["protocolVersion"]) == (
            runtime["metadata"]["name"],
            spec["protocolVersions"][0],
        )
        assert asked["modelFormat"].items() <= spec["supportedModelFormats"][0].items()
        (container,) = spec["containers"]
        assert (container["name"], container["ports"][0]["containerPort"]) == ("kserve-container", 3000)
        assert container["readinessProbe"]["httpGet"]["path"] == f"/v2/models/{model}/ready"
        assert container["image"].endswith(f"/{model.replace('_', '-')}:{OLD}")


def test_a_rollout_changes_the_tag_of_a_runtime_too(tmp_path: Path) -> None:
    """And its labels, those of the pods as well; nothing else."""
    text = written_for_kserve(tmp_path).read_text()
    assert manifests.candidate_in(text, "flight_delay") == OLD
    after = manifests.changed(text, "flight_delay", NEW, "4")
    assert len(difference(text, after)) == 5
    assert manifests.changed(after, "flight_delay", OLD, "3") == text
    with pytest.raises(Mistake, match="the ClusterServingRuntime has no container 'kserve-container' with an image"):
        manifests.changed(text.replace("kserve-container", "other"), "flight_delay", NEW, "4")


# ── the change ────────────────────────────────────────────────────────────────────────────────────


def difference(before: str, after: str) -> list[str]:
    """The lines that differ, without their indent."""
    pairs = zip(before.splitlines(keepends=True), after.splitlines(keepends=True), strict=True)
    return [new.strip() for old, new in pairs if old != new]


def test_a_change_touches_the_tag_and_the_labels(tmp_path: Path) -> None:
    """And not one other byte; a candidate that looks like a number stays a text."""
    before = written(tmp_path).read_text()
    after = manifests.changed(before, "flight_delay", NEW, "4")
    labels = [f'evergreen/candidate: "{NEW}"', 'evergreen/version: "4"']
    assert difference(before, after) == [*labels, *labels, f"image: {IMAGES}/flight-delay:{NEW}"]
    assert manifests.changed(after, "flight_delay", NEW, "4") == after
    assert manifests.changed(after, "flight_delay", OLD, "3") == before
    assert manifests.candidate_in(after, "flight_delay") == NEW


@pytest.mark.parametrize(
    ("written_as", "becomes"),
    [
        ("image: here.example/a/b:old", f"image: here.example/a/b:{NEW}"),
        ("image: here.example:5000/b", f"image: here.example:5000/b:{NEW}"),
        ("image: b:old  # ours", f"image: b:{NEW}  # ours"),
        ("image: 'a/b:old'", f"image: 'a/b:{NEW}'"),
        ('image:   "a/b:old"', f'image:   "a/b:{NEW}"'),
        ("image: a/b:old@sha256:0123", f"image: a/b:{NEW}"),
    ],
)
def test_what_a_person_edited_stays_theirs(tmp_path: Path, written_as: str, becomes: str) -> None:
    """Another registry, comments, quotes, a second container, a label taken away; a digest would win, and goes."""
    text = written(tmp_path).read_text()
    text = re.sub(r"image: .*", written_as, text)
    text = text.replace("memory: 1Gi", "memory: 3Gi # it grew").replace('    evergreen/version: "3"\nspec:', "spec:")
    text = text.replace("      volumes:\n", "        - {name: side, image: 'side:1'}\n      volumes:\n")
    after = manifests.changed("# Größe: 🌲\n" + text, "flight_delay", NEW, "4")
    changed = difference("# Größe: 🌲\n" + text, after)
    label = f'evergreen/candidate: "{NEW}"'
    assert changed == [label, label, 'evergreen/version: "4"', becomes]
    assert len(list(yaml.safe_load_all(after))) == 5


def test_line_ends_stay_as_they_are(tmp_path: Path) -> None:
    """A file of another system's editor is not written anew."""
    text = written(tmp_path).read_text().replace("\n", "\r\n")
    after = manifests.changed(text, "flight_delay", NEW, "4")
    assert len(difference(text, after)) == 5
    assert "\n" not in after.replace("\r\n", "")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda text: text.replace("kind: Deployment", "kind: [Deployment"), "is not YAML"),
        (lambda text: text.replace("evergreen/model: flight_delay", "app: x"), "no Deployment or Cluster"),
        (lambda text: text.replace("name: release", "name: other"), "no container 'release'"),
        (lambda _: "", "no Deployment"),
    ],
)  # fmt: skip
def test_a_manifest_without_a_place_for_the_tag_is_told(tmp_path: Path, harm: Callable[[str], str], said: str) -> None:
    """Rather than a rollout that changes nothing."""
    with pytest.raises(Mistake, match=said):
        manifests.changed(harm(written(tmp_path).read_text()), "flight_delay", NEW, "4")


# ── the commit ────────────────────────────────────────────────────────────────────────────────────


def git(root: Path, *arguments: str) -> str:
    """What git says."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bare repository with the manifests of two models, and a file of somebody else's."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(settings, "VAR", tmp_path / "var")
    for name in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    seed = tmp_path / "seed"
    seed.mkdir()
    git(seed, "init", "-q", "-b", "main")
    for model in MODELS:
        written(seed / "apps" / "models", model)
    (seed / "notes.md").write_text("theirs\n")
    by_hand(seed, "the beginning")
    git(tmp_path, "clone", "-q", "--bare", "seed", "origin.git")
    return tmp_path / "origin.git"


def by_hand(root: Path, message: str) -> None:
    """A commit that a person makes, of all that is there."""
    git(root, "add", "-A")
    git(root, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", message)


def clone(origin: Path, name: str = "clone") -> Path:
    """A clone; gives the folder of the manifests in it."""
    git(origin.parent, "clone", "-q", str(origin), name)
    return origin.parent / name / "apps" / "models"


def roll(folder: Path, candidate: str = NEW, version: int = 4, model: str = "flight_delay", **more: Any) -> str | None:
    """Roll out, quietly."""
    return manifests.roll(model, candidate, version, folder, log=lambda _: None, **more)


def at(root: Path, commit: str = "main", model: str = "flight_delay") -> str:
    """The candidate that a commit says is live."""
    return manifests.candidate_in(git(root, "show", f"{commit}:apps/models/{model}.yaml"), model)


def test_a_rollout_is_one_commit_of_one_file(origin: Path) -> None:
    """Its message tells what and why; whatever else is edited or staged stays as it is; nothing is pushed unasked."""
    folder = clone(origin)
    (folder / "hourly_departures.yaml").write_text("half an edit")
    (folder / "staged.txt").write_text("x")
    git(folder, "add", "staged.txt")
    commit = roll(folder, about="better: the loss falls by 0.004")
    assert commit == git(folder, "rev-parse", "HEAD")
    assert git(folder, "show", "--name-only", "--format=", "HEAD").split() == ["apps/models/flight_delay.yaml"]
    assert git(folder, "log", "-1", "--format=%B").splitlines() == [
        f"flight_delay: version 4 rolls out (candidate {NEW})",
        "",
        "better: the loss falls by 0.004",
        "",
        f"before: {OLD}",
    ]
    assert (folder / "hourly_departures.yaml").read_text() == "half an edit"
    assert git(folder, "diff", "--cached", "--name-only") == "apps/models/staged.txt"
    assert at(origin) == OLD


def test_what_is_live_already_is_not_rolled_out_again(origin: Path) -> None:
    """With and without a remote: no commit, also after a hundred wakes."""
    folder = clone(origin)
    assert roll(folder)
    assert roll(folder) is None
    assert roll(folder, remote="origin")
    assert roll(folder, remote="origin") is None
    assert git(origin, "rev-list", "--count", "main") == "2"


def test_a_rollback_is_the_same_with_the_former_candidate(origin: Path) -> None:
    """The file is the one it was, to the byte."""
    folder = clone(origin)
    before = (folder / "flight_delay.yaml").read_bytes()
    roll(folder)
    roll(folder, OLD, 3)
    assert (folder / "flight_delay.yaml").read_bytes() == before


def test_an_edit_that_is_not_committed_is_not_swept_along(origin: Path) -> None:
    """The error names the file; what a killed rollout wrote is no edit, and is committed by the next."""
    folder = clone(origin)
    path = folder / "flight_delay.yaml"
    before = path.read_text()
    path.write_text(before.replace("maxReplicas: 6", "maxReplicas: 60"))
    with pytest.raises(Mistake, match=r"flight_delay\.yaml was edited and not committed"):
        roll(folder)
    assert "maxReplicas: 60" in path.read_text()
    path.write_text(manifests.changed(before, "flight_delay", NEW, "4"))
    assert roll(folder)
    assert at(folder, "HEAD") == NEW


def test_pushed_it_is_put_on_top_of_what_the_branch_has(origin: Path) -> None:
    """However far behind, ahead or edited the clone is: its own work is neither pushed nor touched."""
    folder, other = clone(origin), clone(origin, "other")
    (other.parent.parent / "notes.md").write_text("theirs, newer\n")
    by_hand(other, "somebody else's")
    git(other, "push", "-q")
    (folder / "mine.txt").write_text("not yet pushed")
    by_hand(folder, "mine")
    (folder / "flight_delay.yaml").write_text("half an edit")
    commit = roll(folder, remote="origin")
    assert git(origin, "rev-parse", "main") == commit
    assert git(origin, "log", "--format=%s", "main").splitlines()[1:] == ["somebody else's", "the beginning"]
    assert git(origin, "diff", "--name-only", "main~1", "main") == "apps/models/flight_delay.yaml"
    assert git(folder, "log", "-1", "--format=%s") == "mine"
    assert (folder / "flight_delay.yaml").read_text() == "half an edit"
    assert git(folder, "diff", "--cached", "--name-only") == ""


def test_a_clone_that_is_clean_shows_what_was_pushed(origin: Path) -> None:
    """Where nothing was in the way."""
    folder = clone(origin)
    commit = roll(folder, remote="origin")
    assert git(folder, "rev-parse", "HEAD") == commit
    assert NEW in (folder / "flight_delay.yaml").read_text()
    assert git(folder, "status", "--porcelain") == ""


def test_another_branch_than_the_one_that_is_checked_out(origin: Path) -> None:
    """A branch for an environment: pushed to by name, and what is checked out is not moved."""
    git(origin, "branch", "staging", "main")
    folder = clone(origin)
    roll(folder, remote="origin", branch="staging")
    assert (at(origin, "staging"), at(origin, "main"), at(folder, "HEAD")) == (NEW, OLD, OLD)
    with pytest.raises(Mistake, match=r"'main' is checked out in .*, not 'staging'"):
        roll(folder, branch="staging")
    git(folder, "checkout", "-q", "--detach")
    with pytest.raises(Mistake, match="no branch is checked out"):
        roll(folder, remote="origin")
    with pytest.raises(Mistake, match="no branch is checked out"):
        roll(folder)


def test_who_loses_the_race_is_put_on_top(origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are in the history, which stays a line: somebody's edit of the same file is kept."""
    folder, other = clone(origin), clone(origin, "other")
    push, races = Clone.push, []

    def late(self: Clone, *arguments: str) -> bool:
        if not races:
            races.append(1)
            path = other / "flight_delay.yaml"
            path.write_text(path.read_text().replace("maxReplicas: 6", "maxReplicas: 60"))
            by_hand(other, "more replicas")
            git(other, "push", "-q")
        return push(self, *arguments)

    monkeypatch.setattr(Clone, "push", late)
    assert roll(folder, remote="origin")
    assert git(origin, "log", "--format=%s", "main").splitlines()[1] == "more replicas"
    text = git(origin, "show", "main:apps/models/flight_delay.yaml")
    assert "maxReplicas: 60" in text
    assert manifests.candidate_in(text, "flight_delay") == NEW


def test_two_platforms_at_once(origin: Path, tmp_path: Path) -> None:
    """Really at once, each with a clone of its own: every rollout of both is in one line of history."""
    started = []
    for model in MODELS:
        folder = clone(origin, model)
        environment = {**os.environ, "EVERGREEN_ROOT": str(tmp_path / f"root-{model}"), "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-P", "-c", ROLL, str(folder), model, *(f"{n:016x}" for n in range(5))]
        started.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert [at(origin, model=model) for model in MODELS] == [f"{4:016x}"] * 2
    assert git(origin, "rev-list", "--count", "--no-merges", "main") == "11"


@pytest.mark.slow
@pytest.mark.parametrize("remote", ["origin", None])
def test_killed_anywhere_nothing_or_everything_was_done(
    origin: Path, monkeypatch: pytest.MonkeyPatch, remote: str | None
) -> None:
    """After any Git command; the next run ends in one commit of the one file."""

    class Killed(BaseException):
        pass

    attempt = Clone.attempt
    commands: list[str] = []

    def counted(self: Clone, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        done = attempt(self, *arguments, **more)
        commands.append(arguments[0])
        if len(commands) == kill_at:
            raise Killed
        return done

    folder, kill_at, killed = clone(origin), 1, True
    while killed:
        candidate, killed = f"{kill_at:016x}", False
        before = int(git(folder, "rev-list", "--count", "HEAD"))
        with monkeypatch.context() as patch:
            patch.setattr(Clone, "attempt", counted)
            commands.clear()
            try:
                roll(folder, candidate, kill_at, remote=remote)
            except Killed:
                killed = True
        roll(folder, candidate, kill_at, remote=remote)
        if remote:
            assert at(origin) == candidate
            git(folder, "merge", "-q", "--ff-only", "origin/main")
        assert at(folder, "HEAD") == candidate
        assert int(git(folder, "rev-list", "--count", "HEAD")) == before + 1
        assert git(folder, "status", "--porcelain") == ""
        kill_at += 1
    assert kill_at > 5


def test_what_is_missing_is_told_with_what_to_do(origin: Path, tmp_path: Path) -> None:
    """No manifest, no clone, no branch: nothing is made up."""
    folder = clone(origin)
    for remote in ("origin", None):
        with pytest.raises(Mistake, match=r"has no other\.yaml in .*`evergreen manifests other` writes it"):
            roll(folder, model="other", remote=remote)
    with pytest.raises(Mistake, match="origin has no branch 'nowhere'"):
        roll(folder, remote="origin", branch="nowhere")
    for none in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(Mistake, match="is no folder in a Git clone"):
            roll(none)


def test_a_remote_that_is_not_there_is_told_without_its_password(origin: Path) -> None:
    """And nothing is left that says that it was rolled out."""
    folder = clone(origin)
    git(folder, "remote", "set-url", "origin", "http://user:secret@127.0.0.1:9/nowhere.git")
    with pytest.raises(SourceUnavailable, match=r"git fetch failed.*run again: nothing was lost") as caught:
        roll(folder, remote="origin")
    assert "secret" not in str(caught.value)
    assert at(folder, "HEAD") == OLD
    assert git(folder, "status", "--porcelain") == ""


def test_what_was_done_is_told(origin: Path) -> None:
    """A line for the flow's log."""
    folder, told = clone(origin), list[Any]()
    for _ in range(2):
        manifests.roll("flight_delay", NEW, 4, folder, remote="origin", log=told.append)
    commit = git(origin, "rev-parse", "main")[:12]
    now = f"origin/main: flight_delay is at {NEW}"
    assert told == [f"{now}, commit {commit}", f"{now} already"]
