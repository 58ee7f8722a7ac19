"""The registry, on a real MLflow store: found or made, killed between any two writes, locked, tampered with."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.utils.validation import _validate_metric_name

from deployments import cli
from tasks.ground import files, paths, settings
from tasks.ground.errors import (
    DataMissing,
    Mistake,
    ModelFileRefused,
    NotPromoted,
    RegistryDamaged,
    RegistryUnavailable,
)
from tasks.journal import journal, signing
from tasks.release import comparison
from tasks.release.gate.verdict import Verdict
from tasks.release.package import package
from tasks.release.registry import (
    alias_lines,
    alias_repair,
    desired_state,
    mlflow_store,
    model_state,
    promotions,
    registry,
    retention,
    tracking,
    verdict_records,
    version_files,
)
from tasks.release.registry.champion_lookup import champion as champion_in_registry
from tests.tasks.release import small_project
from tests.tasks.release.small_project import MEASURED, MODEL

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
REPOSITORY = Path(__file__).resolve().parents[4]


class Killed(BaseException):
    """The process died here."""


def use(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Work in a project of its own."""
    for name, path in {"ROOT": root, "BUILD": root / "build", "VAR": root / "var"}.items():
        patch.setattr(settings, name, path)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'var' / 'mlflow' / 'mlflow.db'}")


def follow(promote: bool = True) -> model_state.ModelVersion:
    """What the flow does with the candidate in build/: track, register, judge, record, and promote."""
    run = track()
    version = registry.register(MODEL, run.candidate)
    verdict = comparison.judge_candidate(MODEL)
    verdict_records.record(MODEL, version.number, verdict)
    assert verdict.promoted, verdict.to_text()
    return promotions.promote(MODEL, version.number, verdict.id) if promote else version


def track() -> tracking.TrackedRun:
    """Track the candidate in build/."""
    build = settings.BUILD / MODEL
    return tracking.track(MODEL, build / "release", build, MEASURED)


def champion() -> model_state.ModelVersion:
    """Today's champion."""
    version = registry.champion(MODEL)
    assert version is not None
    return version


def overwrite(database: Path, content: Path) -> None:
    """Give a database other content as SQLite does it: connections that are open notice."""
    with closing(sqlite3.connect(content)) as source, closing(sqlite3.connect(database)) as target:
        source.backup(target)


@dataclass(frozen=True)
class Place:
    """One folder for every project here, and what it held at three times: MLflow opens a store once per address."""

    root: Path
    kept: Path

    def keep(self, name: str) -> None:
        """Remember what is there now."""
        shutil.copytree(self.root, self.kept / name, ignore=shutil.ignore_patterns("locks"))

    def restore(self, name: str) -> Path:
        """Have again what was there then. The database stays the same file: connections to it are open."""
        database = Path("var/mlflow/mlflow.db")
        for path in self.root.rglob("*"):
            if path.is_file() and path != self.root / database:
                path.unlink()
        shutil.copytree(self.kept / name, self.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("mlflow.db"))
        overwrite(self.root / database, self.kept / name / database)
        for folder in sorted(self.root.rglob("*"), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        return self.root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A project that had a candidate only; then a champion; then versions 1 and 2 were champion, and 3 may be."""
    place = Place(tmp_path_factory.mktemp("place") / "project", tmp_path_factory.mktemp("kept"))
    with pytest.MonkeyPatch.context() as patch:
        use(place.root, patch)
        small_project.make_project(place.root)
        small_project.make_build(place.root, 3, ("origin",))
        registry.champion(MODEL)  # makes the store
        place.keep("fresh")
        follow()
        small_project.make_build(place.root, 4, ("origin", "temp"))
        place.keep("one champion")
        follow()
        small_project.make_build(place.root, 5, ("origin", "temp", "wind"))
        follow(promote=False)
        place.keep("history")
    return place


@pytest.fixture
def root(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which 1 and then 2 became champion, and 3 may: each better than the one before."""
    use(place.root, monkeypatch)
    return place.restore("history")


@pytest.fixture
def fresh(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a candidate in build/, and an empty store."""
    use(place.root, monkeypatch)
    return place.restore("fresh")


@pytest.fixture
def artifacts(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The artifacts of the one champion of a project that has another candidate in build/."""
    use(place.root, monkeypatch)
    place.restore("one champion")
    return settings.VAR / "mlflow" / "artifacts" / MODEL / champion().run_id / "artifacts"


def client() -> MlflowClient:
    """MLflow's own view."""
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def runs() -> list[Any]:
    """The runs that are not deleted."""
    experiment = client().get_experiment_by_name(MODEL)
    return list(client().search_runs([experiment.experiment_id])) if experiment else []


def recorded(number: int) -> Verdict:
    """The verdict on a version that was recorded last, as its document has it."""
    run, path = client().get_model_version(MODEL, str(number)).run_id, f"verdicts/{verdict_of(number)}/verdict.json"
    return Verdict.from_json(Path(client().download_artifacts(run, path)).read_text(encoding="utf-8"))


def verdict_of(number: int) -> str:
    """The id of the verdict that was recorded last."""
    return client().get_model_version(MODEL, str(number)).tags[model_state.VERDICT_ID]


WRITES = [
    name
    for name in vars(MlflowClient)
    if name.startswith(("create_", "delete_", "log_", "rename_", "restore_", "set_"))
]


@contextmanager
def killed_after(k: int) -> Iterator[list[str]]:
    """Die after the write with the number k, before any other; give the writes that were begun."""
    begun: list[str] = []

    def dying(name: str) -> Callable[..., Any]:
        real = getattr(MlflowClient, name)

        def write(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
            if len(begun) > k:
                raise Killed
            begun.append(name)
            done = real(self, *args, **kwargs)
            if len(begun) > k:
                raise Killed
            return done

        return write

    with pytest.MonkeyPatch.context() as patch:
        for name in WRITES:
            patch.setattr(MlflowClient, name, dying(name))
        yield begun


def attempt(k: int, call: Callable[[], Any]) -> bool:
    """Call, and die after write k; whether there was such a write."""
    with killed_after(k) as begun:
        try:
            call()
        except Killed:
            return True
    assert len(begun) <= k
    return False


def state() -> dict[str, Any]:
    """Aliases, tags and the order of champions: all that a kill may not change in the end."""
    entry = client().get_registered_model(MODEL)
    tags = {
        int(v.version): {**v.tags, alias_lines.HEAD: ""} for v in client().search_model_versions(f"name = '{MODEL}'")
    }
    since = [v for k, v in sorted(entry.tags.items()) if k.startswith(model_state.SINCE)]
    rolled_back = model_state.ROLLED_BACK in entry.tags
    aliases = {a: int(v) for a, v in entry.aliases.items()}
    return {"aliases": aliases, "tags": tags, "since": since, "rolled back": rolled_back}


def deaths(call: Callable[[], Any]) -> Iterator[int]:
    """Call and die after each write, from the present state each time; at last call and live."""
    database = settings.VAR / "mlflow" / "mlflow.db"
    begin = shutil.copy(database, settings.VAR / "begin.db")
    k, died = 0, True
    while died:
        overwrite(database, Path(begin))
        died = attempt(k, call)
        yield k
        k += 1


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────


KEPT = {"verdicts", "params.yaml", "data.dvc", "dvc.lock"}


def test_the_files_of_a_candidate_that_never_was_champion_go_when_it_is_old(root: Path) -> None:
    """Its numbers and verdicts stay; trained again it is another version, with its files."""
    client().delete_registered_model_alias(MODEL, "challenger")
    for tag in client().get_registered_model(MODEL).tags:  # a person did
        client().delete_registered_model_tag(MODEL, tag)
    old = registry.history(MODEL)[2]
    assert retention.forget_refused(MODEL, days=30) == []
    assert retention.forget_refused(MODEL, days=-1) == [old.candidate]
    assert retention.forget_refused(MODEL, days=-1) == []
    assert {file.path for file in client().list_artifacts(old.run_id)} == KEPT
    assert len(list((settings.VAR / "mlflow").rglob("models/*/artifacts/model.skops"))) == 2
    assert [entry.files_removed is None for entry in registry.history(MODEL)] == [True, True, False]
    assert [verdict.id for verdict in verdict_records.of_candidate(MODEL, old.candidate)] == [verdict_of(3)]
    version_files.fetch(MODEL, 1, root / "fetched")
    for refused in (lambda: promotions.promote_by_hand(MODEL, 3), lambda: promotions.rollback(MODEL, to=3)):
        with pytest.raises(NotPromoted, match=r"were removed.*again"):
            refused()
    again = track()
    assert again.made
    assert again.id != old.run_id
    assert registry.register(MODEL, again.candidate).number == 4
    version_files.fetch(MODEL, 4, root / "fetched")


def test_removing_files_killed_anywhere_ends_in_the_next_call(root: Path) -> None:
    """What a run that has begun to lose them counts for is said at once, by its tag."""
    client().delete_registered_model_alias(MODEL, "challenger")
    killed = 0
    for killed in deaths(lambda: retention.forget_refused(MODEL, days=-1)):
        retention.forget_refused(MODEL, days=-1)
        old = registry.history(MODEL)[2]
        assert old.files_removed, killed
        assert tracking.FORGOTTEN in client().get_run(old.run_id).data.tags
        assert {file.path for file in client().list_artifacts(old.run_id)} == KEPT
    assert killed > 2


# ── names ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", ["/home", "//", "a//b", ".", "..", "a/", "./b", "+", "x" * 300, f"{'x' * 243}/b"])
def test_a_slice_of_any_name_has_its_metrics(value: str) -> None:
    """MLflow takes a metric's name for a path, which must not be that of another one."""
    said = [tracking.key(f"{start}{value}/{metric}") for start in ("", "page/") for metric in ("brier", "log_loss")]
    for name in said:
        _validate_metric_name(name)
    assert len(set(said)) == len(said)


def test_names_that_differ_in_illegal_characters_only_do_not_meet() -> None:
    """MLflow would keep the last of both; any other name stays as it is."""
    named = tracking.keys(["Torque [Nm]", "Torque (Nm)", "speed", "Torque [Nm]/a"])
    assert len(set(named.values())) == 4
    assert named["speed"] == "speed"
    assert named["Torque [Nm]/a"] == "Torque _Nm_/a"
    assert named["Torque [Nm]"].startswith("Torque _Nm_-")


def test_usual_names_stay() -> None:
    """Letters of any language, digits, spaces and folders."""
    for name in ("slices/origin/New York/log_loss", "page/n/a/rows", "page/naïve-1.5: x/rows", "estimator.class"):
        assert tracking.key(name) == name


# ── track ─────────────────────────────────────────────────────────────────────────────────────────


def test_run_has_what_an_auditor_asks_for(fresh: Path) -> None:
    """Parameters, metrics, datasets, tags, artifacts and the model are in the one run of the candidate."""
    tracked = track()
    (run,) = runs()
    assert run.info.run_id == tracked.id
    assert run.info.status == "FINISHED"
    assert run.data.params["estimator.class"] == "sklearn.linear_model.LogisticRegression"
    assert run.data.params["options.late_after"] == "15"
    assert run.data.metrics["measured/latency_ms"] == 3.25
    assert run.data.metrics["slices/origin/EWR/log_loss"] == 0.5
    assert {"log_loss", "roc_auc", "brier"} <= set(run.data.metrics)
    assert run.data.tags["evergreen.candidate"] == tracked.candidate
    assert run.data.tags["evergreen.data_version"] == "0123456789abcdef0123456789abcdef.dir"
    assert {"git.commit", "git.dirty", "lock", "python"} <= set(run.data.tags)
    assert [i.dataset.name for i in run.inputs.dataset_inputs] == ["flights"]
    assert {f.path for f in client().list_artifacts(run.info.run_id)} == {
        "params.yaml", "dvc.lock", "data.dvc", "evaluation", "training", "release",
    }  # fmt: skip
    assert str(settings.VAR / "mlflow" / "artifacts") in run.info.artifact_uri
    assert tracking.measured(MODEL, tracked.candidate) == MEASURED


def test_logged_model_is_skops_with_signature_and_example(fresh: Path) -> None:
    """MLflow loads the model again, and it answers; nothing in it is a pickle."""
    run = track()
    model_id = client().get_run(run.id).data.tags[registry.MODEL_ID]
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    assert loaded.metadata.flavors["sklearn"]["serialization_format"] == "skops"
    assert loaded.metadata.signature.inputs.input_names() == list(small_project.FEATURES)
    example = loaded.input_example
    assert len(loaded.predict(example)) == len(example) == 5


def test_tracking_again_finds_the_run(fresh: Path) -> None:
    """The second call makes nothing, and is told apart from the first."""
    build = settings.BUILD / MODEL
    first = track()
    second = tracking.track(MODEL, build / "release", build, {"latency_ms": 99.0})
    assert (first.made, second.made) == (True, False)
    assert first.id == second.id
    assert tracking.measured(MODEL, first.candidate) == MEASURED


def test_track_killed_anywhere_leaves_one_finished_run_in_the_end(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill at any write, and one more call, there is one run, it is finished and it is whole."""
    quick = lambda *_: mlflow.initialize_logged_model(name="model").model_id  # noqa: E731
    monkeypatch.setattr(tracking, "_log_model", quick)  # the slow part is tried elsewhere
    killed = 0
    for killed in deaths(track):
        track()
        (run,) = runs()
        assert run.info.status == "FINISHED"
        assert run.data.metrics["measured/size_mb"] == 0.01
        assert registry.MODEL_ID in run.data.tags
        (model,) = client().search_logged_models([run.info.experiment_id])
        assert model.source_run_id == run.info.run_id, killed
    assert killed > 8


def test_a_run_that_was_killed_goes_also_when_its_candidate_is_never_asked_for_again(fresh: Path) -> None:
    """The next candidate of this machine takes it away; one that another machine is making stays."""
    first = track()
    experiment = client().get_run(first.id).info.experiment_id
    mine = client().create_run(experiment, tags={tracking.CANDIDATE: "a", tracking.BEGUN_AT: tracking._here()})
    theirs = client().create_run(experiment, tags={tracking.CANDIDATE: "b", tracking.BEGUN_AT: "elsewhere"})
    assert not track().made
    assert {run.info.run_id for run in runs()} == {first.id, theirs.info.run_id}
    assert mine.info.run_id not in {run.info.run_id for run in runs()}


def test_a_run_names_the_data_version_that_was_read_not_the_one_that_came_meanwhile(fresh: Path) -> None:
    """dvc.lock says what validate read; data.dvc may have moved on while the model was trained."""
    stage = {"cmd": "python -m tasks validate", "deps": [{"path": "data", "md5": "1234.dir"}]}
    files.write_json(settings.ROOT / "dvc.lock", {"schema": "2.0", "stages": {f"validate@{MODEL}": stage}})
    run = track()
    assert client().get_run(run.id).data.tags[tracking.DATA_VERSION] == "1234.dir"


RACE = """
import os, sys
from pathlib import Path
sys.path.insert(0, {repository!r})
from tasks.ground import settings
settings.apply()
from tasks.release.registry import tracking
import mlflow
if sys.argv[1] == "die":
    mlflow.MlflowClient.log_batch = lambda *a, **k: os._exit(9)
build = settings.BUILD / "late"
print(tracking.track("late", build / "release", build, {{"latency_ms": 1.0}}).id)
"""


def start(root: Path, how: str) -> subprocess.Popen[str]:
    """Another process that tracks the candidate in build/."""
    environment = {**os.environ, "EVERGREEN_ROOT": str(root)}
    script = RACE.format(repository=str(REPOSITORY))
    return subprocess.Popen(
        [sys.executable, "-c", script, how], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_processes_that_race_on_an_empty_store_make_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two find no store, one is killed in the middle of a run: in the end there is one, and it is finished."""
    use(tmp_path, monkeypatch)
    small_project.make_project(tmp_path)
    small_project.make_build(tmp_path)
    both = [start(tmp_path, "die"), start(tmp_path, "live")]
    said = [process.communicate(timeout=120) for process in both]
    assert both[0].returncode in (9, 0), said  # 0: the other was faster, and there was nothing left to do
    assert both[1].returncode == 0, said
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.info.run_id == said[1][0].strip()


def test_changed_release_is_not_tracked(fresh: Path) -> None:
    """A release folder that is not what its candidate.json names is refused."""
    release = settings.BUILD / MODEL / "release"
    (release / "requirements.txt").write_text("numpy==1\n")
    with pytest.raises(ModelFileRefused, match="was changed after it was packaged"):
        tracking.track(MODEL, release, release.parent, MEASURED)
    assert runs() == []


# ── register, record ──────────────────────────────────────────────────────────────────────────────


def test_register_finds_or_makes_a_version(fresh: Path) -> None:
    """However often it is called and wherever it was killed, a candidate has one version, the challenger."""
    run = track()
    for k in range(4):
        attempt(k, lambda: registry.register(MODEL, run.candidate))
    version = registry.register(MODEL, run.candidate)
    assert version.number == 1
    assert state()["aliases"] == {"challenger": 1}
    assert version.tags["evergreen.data_version"].endswith(".dir")
    assert version.run_id == run.id


def test_candidate_that_was_not_tracked_is_not_registered(fresh: Path) -> None:
    """It says what is missing."""
    with pytest.raises(DataMissing, match="candidate 0000 is not tracked"):
        registry.register(MODEL, "0000")


def test_champion_that_is_registered_again_is_no_challenger(root: Path) -> None:
    """Registering the champion changes nothing."""
    before = state()
    registry.register(MODEL, champion().candidate)
    assert state() == before


def test_verdict_is_recorded_and_found(root: Path) -> None:
    """Document, table and picture are artifacts of the run; the result is on the version."""
    verdict = recorded(3)
    assert verdict.promoted
    version = client().get_model_version(MODEL, "3")
    assert version.tags["evergreen.verdict"] == "promoted"
    assert version.tags["evergreen.verdict_summary"] == verdict.summary
    kept = {Path(f.path).name for f in client().list_artifacts(version.run_id, f"verdicts/{verdict.id}")}
    assert kept == {"verdict.json", "verdict.md", "verdict.svg"}


def test_half_written_verdict_is_none_and_is_written_again(root: Path) -> None:
    """A kill in the middle of the document leaves nothing that counts."""
    verdict = recorded(3)
    (document,) = root.rglob(f"{verdict.id}/verdict.json")
    whole = document.read_text()
    document.write_text(whole[: len(whole) // 2])
    with pytest.raises(NotPromoted, match="has no recorded verdict"):
        promotions.promote(MODEL, 3, verdict.id)
    verdict_records.record(MODEL, 3, verdict)
    assert document.read_text() == whole


@pytest.mark.parametrize("missing", [[model_state.VERDICT], [model_state.VERDICT, model_state.VERDICT_ID]])
def test_verdict_whose_tags_a_kill_left_out_is_told_when_another_is_registered(root: Path, missing: list[str]) -> None:
    """Nobody judges that version again, as there is a newer candidate: its document says what the tags would."""
    whole = dict(client().get_model_version(MODEL, "3").tags)
    for tag in missing:
        client().delete_model_version_tag(MODEL, "3", tag)
    registry.register(MODEL, registry.history(MODEL)[0].candidate)
    assert dict(client().get_model_version(MODEL, "3").tags) == whole


def test_same_pair_is_judged_the_same(root: Path) -> None:
    """The verdict on what build/ holds is, byte for byte, the one that is recorded."""
    again = comparison.judge_candidate(MODEL)
    assert recorded(3).to_json() == again.to_json()


# ── promote ───────────────────────────────────────────────────────────────────────────────────────


def test_promotion(root: Path) -> None:
    """The challenger is champion, the champion is former; since when, why and whom it replaces is written down."""
    promoted = promotions.promote(MODEL, 3, verdict_of(3))
    assert promoted.aliases == ("champion",)
    said = state()
    assert said["aliases"] == {"champion": 3, "former": 2}
    assert said["since"] == ["1", "2", "3"]
    assert said["tags"][3]["evergreen.replaces"] == "2"
    assert said["tags"][3]["evergreen.promoted_by"] == verdict_of(3)
    assert champion().number == 3


def test_promotion_killed_between_any_two_writes_ends_right(root: Path) -> None:
    """Called again it ends in the state that one whole promotion ends in: also of one that waited after a rollback."""
    client().set_registered_model_tag(MODEL, model_state.ROLLED_BACK, '["", "", ""]')
    promotions.put_on_hold(MODEL, 3, "a person rolled back", "models/late")
    verdict, ends = verdict_of(3), []
    for _ in deaths(lambda: promotions.promote(MODEL, 3, verdict)):
        promotions.promote(MODEL, 3, verdict)
        ends.append(state())
    # two tags, a rollback forgotten, two aliases, a note, an alias and a tag dropped, the journal's head; and whole
    assert len(ends) == 9 + 1
    assert all(end == ends[-1] for end in ends)
    assert not ends[-1]["rolled back"]
    assert model_state.ON_HOLD not in ends[-1]["tags"][3]
    assert ends[-1]["aliases"] == {"champion": 3, "former": 2}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"promoted": False, "summary": "refused by size"}, "refused by size"),
        ({"champion": "somebody"}, "compares it with somebody, but the champion is"),
        ({"champion": None}, "compares it with no champion, but the champion is"),
    ],
)
def test_nothing_is_promoted_without_a_verdict_over_the_champion_of_now(root: Path, change: Any, reason: str) -> None:
    """A refusal, or a verdict over somebody else, is not enough; and nothing is changed."""
    verdict = recorded(3)
    verdict_records.record(MODEL, 3, replace(verdict, id="f" * 16, **change))
    before = state()
    with pytest.raises(NotPromoted, match=reason):
        promotions.promote(MODEL, 3, "f" * 16)
    with pytest.raises(NotPromoted, match="has no recorded verdict 0123"):
        promotions.promote(MODEL, 3, "0123")
    assert state() == before


def test_verdict_about_another_candidate_is_not_recorded(root: Path) -> None:
    """A verdict belongs to its challenger."""
    verdict = recorded(3)
    with pytest.raises(Mistake, match="is about candidate"):
        verdict_records.record(MODEL, 2, verdict)


# ── rollback ──────────────────────────────────────────────────────────────────────────────────────


def test_rollback_and_again(root: Path) -> None:
    """The former champion is back; a second call neither flips back nor goes further, and says so."""
    done = promotions.rollback(MODEL, reason="too many  complaints")
    assert "version 2" in done
    assert "is withdrawn, version 1" in done
    said = state()
    assert said["aliases"] == {"champion": 1, "challenger": 3}
    assert said["tags"][2]["evergreen.withdrawn"] == "too many complaints"
    assert said["since"] == ["1", "2", "1"]
    again = promotions.rollback(MODEL)
    assert "was rolled back to already: nothing to do; to go further back name the version: --to N" in again
    assert state() == said


def test_rollback_killed_between_any_two_writes_ends_right(root: Path) -> None:
    """Called again it ends in the state that one whole rollback ends in, and never goes further back."""
    promotions.promote(MODEL, 3, verdict_of(3))
    ends = []
    for _ in deaths(lambda: promotions.rollback(MODEL)):
        assert champion().withdrawn is None
        promotions.rollback(MODEL)
        ends.append(state())
    assert len(ends) == 6 + 1  # that a person did it, two tags, an alias, a note, an alias dropped; and whole
    assert all(end == ends[-1] for end in ends)
    assert ends[-1]["aliases"] == {"champion": 2}
    assert ends[-1]["rolled back"]
    assert promotions.rolled_back(MODEL)
    assert {model_state.WITHDRAWN in tags for tags in ends[-1]["tags"].values()} == {True, False}


def test_rollback_after_a_promotion_that_was_killed(root: Path) -> None:
    """Wherever the promotion died, the rollback goes back by one from whoever was champion then."""
    verdict, seen = verdict_of(3), set()
    for _ in deaths(lambda: promotions.promote(MODEL, 3, verdict)):
        was = champion()
        promotions.rollback(MODEL)
        promotions.rollback(MODEL)
        said = state()
        assert said["aliases"]["champion"] == was.number - 1
        assert [n for n, tags in said["tags"].items() if model_state.WITHDRAWN in tags] == [was.number]
        assert "former" not in said["aliases"]
        seen.add(was.number)
    assert seen == {2, 3}


def test_promotion_after_a_rollback_that_was_killed(root: Path) -> None:
    """A rollback that had begun is ended first: then the verdict over the withdrawn champion counts no more."""
    for _ in deaths(lambda: promotions.rollback(MODEL)):
        if registry.history(MODEL)[1].withdrawn:
            with pytest.raises(NotPromoted, match="Judge it again"):
                promotions.promote(MODEL, 3, verdict_of(3))
            assert state()["aliases"] == {"champion": 1, "challenger": 3}
        else:
            promotions.promote(MODEL, 3, verdict_of(3))
            assert state()["aliases"] == {"champion": 3, "former": 2}


def test_rollback_to_a_named_version(root: Path) -> None:
    """It may be any version, also one that was withdrawn; killed anywhere and called again it ends right."""
    promotions.promote(MODEL, 3, verdict_of(3))
    promotions.rollback(MODEL)
    ends = []
    for _ in deaths(lambda: promotions.rollback(MODEL, to=3)):
        promotions.rollback(MODEL, to=3)
        assert "nothing to do" in promotions.rollback(MODEL, to=3)
        ends.append(state())
    assert all(end == ends[-1] for end in ends)
    assert ends[-1]["aliases"] == {"champion": 3}
    assert model_state.WITHDRAWN not in ends[-1]["tags"][3]
    assert model_state.WITHDRAWN in ends[-1]["tags"][2]


def test_a_version_that_does_not_exist_is_refused(root: Path) -> None:
    """By name of those that do; 0 is none either."""
    with pytest.raises(Mistake, match="has no version 9 in the registry; there are: 1, 2, 3"):
        promotions.rollback(MODEL, to=9)
    with pytest.raises(Mistake, match="has no version 0 in the registry"):
        promotions.promote_by_hand(MODEL, 0)


def candidate_of(number: int) -> str:
    """The candidate of a version."""
    return registry.history(MODEL)[number - 1].candidate


def test_a_version_that_fails_its_rollout_is_withdrawn_wherever_that_is_killed(root: Path) -> None:
    """Called again it ends right: who serves is champion, the other keeps the reason."""
    promotions.promote(MODEL, 3, verdict_of(3))
    ends = []
    for _ in deaths(lambda: promotions.withdraw(MODEL, 3, "it is  slow", candidate_of(2))):
        promotions.withdraw(MODEL, 3, "it is slow", candidate_of(2))
        ends.append(state())
    assert all(end == ends[-1] for end in ends)
    assert len(ends) == 5 + 1  # a tag, a tag dropped, an alias, a note, an alias dropped; and whole
    assert ends[-1]["aliases"] == {"champion": 2}
    assert ends[-1]["tags"][3][model_state.WITHDRAWN] == "it is slow"
    assert model_state.WITHDRAWN not in ends[-1]["tags"][2]
    assert ends[-1]["since"] == ["1", "2", "3", "2"]
    with pytest.raises(NotPromoted, match="was withdrawn"):
        promotions.promote(MODEL, 3, verdict_of(3))


def test_an_alias_that_was_set_by_hand_goes_back_to_who_serves(root: Path) -> None:
    """The alias `former` still names whom the last promotion replaced."""
    assert state()["aliases"] == {"champion": 2, "former": 1, "challenger": 3}
    client().set_registered_model_alias(MODEL, "champion", "3")
    for _ in deaths(lambda: promotions.withdraw(MODEL, 3, "wrong answers", candidate_of(2))):
        back = promotions.withdraw(MODEL, 3, "wrong answers", candidate_of(2))
        assert back is not None
        assert back.number == 2
        assert state()["aliases"]["champion"] == 2
        assert "former" not in state()["aliases"]


def test_a_first_champion_that_fails_leaves_nobody(root: Path) -> None:
    """Where nobody serves, nobody is champion then; the auditor sees until when somebody was."""
    client().delete_registered_model_alias(MODEL, "former")
    ends = []
    for _ in deaths(lambda: promotions.withdraw(MODEL, 2, "does not start", None)):
        assert promotions.withdraw(MODEL, 2, "does not start", None) is None
        ends.append(state())
    assert all(end == ends[-1] for end in ends)
    assert "champion" not in ends[-1]["aliases"]
    assert ends[-1]["since"] == ["1", "2", "0"]
    assert registry.champion(MODEL) is None
    (span,) = registry.history(MODEL)[1].champion
    assert not span.endswith("until now")


def test_who_is_champion_meanwhile_stays(root: Path) -> None:
    """Somebody has decided otherwise while the release was tried: it is withdrawn all the same."""
    promotions.withdraw(MODEL, 3, "it is slow", candidate_of(2))
    assert state()["aliases"] == {"champion": 2, "former": 1, "challenger": 3}
    assert state()["tags"][3][model_state.WITHDRAWN] == "it is slow"


def test_nobody_gets_the_place_of_one_that_fails_after_a_rollback_to_it(root: Path) -> None:
    """Who serves on was withdrawn by a person: that is not taken back by the machine."""
    gone = candidate_of(2)
    promotions.rollback(MODEL)
    before = state()
    with pytest.raises(NotPromoted, match=r"neither can be champion\. Name a version: evergreen rollback late"):
        promotions.withdraw(MODEL, 1, "does not start", gone)
    assert state() == before


def test_rollback_without_a_champion(fresh: Path) -> None:
    """There is nothing to do, and it says so."""
    assert promotions.rollback(MODEL) == "late has no champion: nothing to do"
    assert registry.champion(MODEL) is None
    assert registry.history(MODEL) == []


def test_first_champion_is_not_withdrawn(fresh: Path) -> None:
    """Without a former champion a rollback would leave nobody: it does nothing."""
    follow()
    done = promotions.rollback(MODEL)
    assert "is champion, and there is no former one: nothing to do" in done
    assert state()["aliases"] == {"champion": 1}


def test_withdrawn_candidate_is_not_promoted_again(root: Path) -> None:
    """A person has said no: the loop asks, and a promotion is refused with the command that would do it."""
    gone = champion()
    promotions.rollback(MODEL, reason="wrong in fog")
    assert registry.history(MODEL)[gone.number - 1].withdrawn == "wrong in fog"
    assert registry.register(MODEL, gone.candidate).aliases == ()
    with pytest.raises(NotPromoted, match=r"was withdrawn \(wrong in fog\).*rollback late --to 2"):
        promotions.promote(MODEL, gone.number, verdict_of(gone.number))


def test_history_says_who_was_champion_when(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every version, with its data, its verdict and its time."""
    promotions.rollback(MODEL)
    one, two, three = registry.history(MODEL)
    assert len(one.champion) == 2
    assert one.champion[1].endswith("until now")
    assert two.withdrawn == "rolled back"
    assert two.champion[0].split(" until ")[1] == one.champion[1].split(" until ")[0]
    assert (three.champion, three.verdict, three.aliases) == ((), "promoted", ("challenger",))
    assert three.data_version.endswith(".dir")
    assert (two.promoted_by, three.promoted_by) == (verdict_of(2), None)
    cli.history(MODEL)
    assert f"  promoted   by verdict {verdict_of(2)}\n" in capsys.readouterr().out


# ── what a rollback needs is lost; the folder is moved ────────────────────────────────────────────


def test_a_rollback_to_a_release_that_is_lost_changes_nothing(root: Path) -> None:
    """What is to come back is brought and checked before the champion is withdrawn for it."""
    before = state()
    former = registry.resolve(MODEL, "former")
    run = settings.VAR / "mlflow" / "artifacts" / MODEL / former.run_id / "artifacts"
    files.remove(settings.VAR / "champions")
    shutil.rmtree(run / "release")
    for to in (None, former.number):
        with pytest.raises(
            NotPromoted, match=r"cannot come back: run .* lost\. Nothing was changed, .* --to N \(there are 3\)"
        ):
            promotions.rollback(MODEL, to=to)
    assert state() == before
    assert "is withdrawn" in promotions.rollback(MODEL, to=3)


def moved(root: Path, to: Path, patch: pytest.MonkeyPatch) -> Path:
    """A copy of the project elsewhere, to work in; what was brought back before is not copied."""
    shutil.copytree(root, to, ignore=shutil.ignore_patterns("locks", "champions"))
    use(to, patch)
    return to


@pytest.mark.parametrize("old_stays", [True, False])
def test_a_project_that_was_copied_or_moved_uses_the_artifacts_that_came_with_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, old_stays: bool
) -> None:
    """MLflow wrote down the old folder: that is told, and nothing is read from there or written there any more."""
    moved(root, tmp_path / "new place", monkeypatch)
    away = root if old_stays else root.rename(tmp_path / "away")
    old = files.tree(away)
    assert "is withdrawn" in promotions.rollback(MODEL)
    assert "this project was moved or copied" in caplog.text
    caplog.clear()
    small_project.make_build(settings.ROOT, 6, ("origin", "temp", "wind"))
    run = track()
    assert (settings.VAR / "mlflow" / "artifacts" / MODEL / run.id / "artifacts" / "release").is_dir()
    assert files.tree(away) == old
    with closing(sqlite3.connect(settings.VAR / "mlflow" / "mlflow.db")) as database:
        dump = "\n".join(database.iterdump())
    assert f"{root.as_uri()}/" not in dump
    assert f"{settings.ROOT.as_uri()}/var/mlflow/artifacts/{MODEL}/{run.id}" in dump
    assert "moved" not in caplog.text
    if not old_stays:
        away.rename(root)


def test_a_project_copied_without_its_artifacts_is_told_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written to the old place in silence. A database that was lost is not made anew beside artifacts."""
    moved(root, tmp_path / "new", monkeypatch)
    artifacts, database = (settings.VAR / "mlflow" / name for name in ("artifacts", "mlflow.db"))
    aside = artifacts.rename(tmp_path / "aside")
    with pytest.raises(RegistryUnavailable, match=r"moved here without its artifacts: .* Copy that folder too"):
        registry.champion(MODEL)
    aside.rename(artifacts)
    assert registry.champion(MODEL) is not None
    for content in (None, b""):
        database.unlink(missing_ok=True)
        if content is not None:
            database.write_bytes(content)
        with pytest.raises(RegistryUnavailable, match=r"the registry was lost\. Restore it from a backup"):
            registry.champion(MODEL)


def test_a_store_without_runs_has_no_artifacts_to_copy(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A project that is copied before its first training is trained where it is then."""
    assert not (fresh / "var" / "mlflow" / "artifacts").exists()
    moved(fresh, tmp_path / "new", monkeypatch)
    assert follow().number == 1
    assert "this project was moved or copied" in caplog.text


def test_another_name_of_the_same_folder_is_no_move(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A link, say: who comes by one name does not undo what who comes by the other one did."""
    (tmp_path / "link").symlink_to(root)
    use(tmp_path / "link", monkeypatch)
    assert registry.champion(MODEL) is not None
    assert "moved" not in caplog.text


# ── what people do in MLflow's UI ─────────────────────────────────────────────────────────────────


def serve(number: int) -> desired_state.ReleaseRef:
    """Have a version serve, as a rollout writes it down."""
    one = desired_state.ReleaseRef(registry.history(MODEL)[number - 1].candidate, number, "2026-11-21T00:00:00Z")
    desired_state.write(MODEL, desired_state.DesiredState(one))
    return one


def experiment() -> Any:
    """MLflow's own view, deleted or not."""
    return client().get_experiment_by_name(MODEL)


BY_HAND: dict[str, Callable[[MlflowClient], Any]] = {
    "the experiment is deleted": lambda mlflow: mlflow.delete_experiment(experiment().experiment_id),
    "the experiment is renamed": lambda mlflow: mlflow.rename_experiment(experiment().experiment_id, "late (old)"),
    "the champion's run is deleted": lambda mlflow: mlflow.delete_run(mlflow.get_model_version(MODEL, "2").run_id),
    "the candidate's run is deleted": lambda mlflow: mlflow.delete_run(mlflow.get_model_version(MODEL, "3").run_id),
    "the candidate's version is deleted": lambda mlflow: mlflow.delete_model_version(MODEL, "3"),
    "the alias challenger is deleted": lambda mlflow: mlflow.delete_registered_model_alias(MODEL, "challenger"),
    "the alias former is deleted": lambda mlflow: mlflow.delete_registered_model_alias(MODEL, "former"),
    "the alias champion is deleted": lambda mlflow: mlflow.delete_registered_model_alias(MODEL, "champion"),
    "the champion's version is deleted": lambda mlflow: mlflow.delete_model_version(MODEL, "2"),
    "the champion's tags are deleted": lambda mlflow: mlflow.delete_model_version_tag(
        MODEL, "2", "evergreen.candidate"
    ),
    "the registered model is deleted": lambda mlflow: mlflow.delete_registered_model(MODEL),
    "the registered model is renamed": lambda mlflow: mlflow.rename_registered_model(MODEL, "late2"),
    "the champion is one of no release": lambda mlflow: mlflow.set_registered_model_alias(
        MODEL, "champion", mlflow.create_model_version(MODEL, f"runs:/{runs()[0].info.run_id}/release").version
    ),
    "a tag of the journal is edited": lambda mlflow: mlflow.set_registered_model_tag(
        MODEL, f"{model_state.SINCE}2026-11-20T00:00:00.000000Z", "version 2"
    ),
    "the tags of every run are deleted": lambda mlflow: [
        mlflow.delete_tag(one.info.run_id, tag) for one in runs() for tag in one.data.tags if "evergreen" in tag
    ],
    "the candidate's version is deleted, and tags of its run": lambda mlflow: [
        *(
            mlflow.delete_tag(one.info.run_id, tag)
            for one in runs()
            for tag in (tracking.MODEL_ID, "evergreen.data_version")
        ),
        mlflow.delete_model_version(MODEL, "3"),
    ],
    "the experiment is renamed, and another one has its name": lambda mlflow: (
        mlflow.rename_experiment(experiment().experiment_id, "late (old)"),
        mlflow.create_experiment(MODEL),
    ),
    "the logged models are deleted": lambda mlflow: [
        mlflow.delete_logged_model(one.model_id) for one in mlflow.search_logged_models([experiment().experiment_id])
    ],
}


@pytest.mark.parametrize("act", BY_HAND.values(), ids=BY_HAND)
def test_what_a_person_did_in_the_ui_is_put_back_and_training_goes_on(
    root: Path, act: Callable[[MlflowClient], Any]
) -> None:
    """Who serves is champion again, as whose successor the next candidate is judged: never as the first of its kind."""
    live = serve(2)
    act(client())
    alias_repair.repair(MODEL)
    run = track()
    version = registry.register(MODEL, run.candidate)
    assert champion().candidate == live.candidate
    assert champion_in_registry(MODEL) == desired_state.ReleaseRef(live.candidate, champion().number)
    verdict = comparison.judge_candidate(MODEL)
    assert verdict.champion == live.candidate
    assert verdict.promoted, verdict.to_text()
    verdict_records.record(MODEL, version.number, verdict)
    assert promotions.promote(MODEL, version.number, verdict.id).candidate == run.candidate
    assert alias_repair.repair(MODEL) == []


def test_a_rollback_whose_tag_was_edited_holds_until_the_tag_is_gone(root: Path) -> None:
    """Nothing is promoted by itself, and it is said what to do."""
    for said in ("yes", "[]", '["2026-11-21", "data"]'):
        client().set_registered_model_tag(MODEL, model_state.ROLLED_BACK, said)
        why = promotions.rolled_back(MODEL)
        assert why is not None
        assert why.endswith("its tag evergreen.rolled_back was edited in MLflow: delete it there to go on")
    client().delete_registered_model_tag(MODEL, model_state.ROLLED_BACK)
    assert promotions.rolled_back(MODEL) is None


def test_what_was_removed_for_good_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by `mlflow gc`: a champion whose version is there stays; one that cannot be put back is named."""
    live = serve(2)
    runs_before = [run.info.run_id for run in runs()]
    store_of_runs = mlflow.tracking._tracking_service.utils._get_store(os.environ["MLFLOW_TRACKING_URI"])
    for run_id in runs_before:
        client().delete_run(run_id)
        store_of_runs._hard_delete_run(run_id)
    with pytest.raises(DataMissing, match=r"was removed from MLflow for good: so is its release"):
        version_files.fetch(MODEL, 2, root / "to")
    files.remove(settings.VAR / "champions")
    with pytest.raises(NotPromoted, match=r"removed from MLflow for good: so is its release\. Nothing was changed"):
        promotions.rollback(MODEL)
    run = track()
    assert registry.register(MODEL, run.candidate).number == 4  # version 3 names a run that is gone
    client().delete_model_version(MODEL, "2")
    with pytest.raises(RegistryDamaged, match=rf"candidate {live.candidate} of late serves, .* Restore MLflow's store"):
        alias_repair.repair(MODEL)


# ── fetch, judge ──────────────────────────────────────────────────────────────────────────────────


def test_champion_is_brought_back_whole(artifacts: Path, tmp_path: Path) -> None:
    """Release and training are what was tracked; byte code that lies beside them is not taken."""
    (artifacts / "release" / "__pycache__").mkdir()
    (artifacts / "release" / "__pycache__" / "service.pyc").write_bytes(b"evil")
    folder = version_files.fetch(MODEL, 1, tmp_path / "to")
    assert package.identity_of(folder / "release") == champion().candidate
    training = {"training.json", "profile.json", "reference.parquet", "train_ids.npy", "train_rows.npy"}
    assert {p.name for p in (folder / "training").iterdir()} == training
    assert {p.name for p in (folder / "evaluation").iterdir()} == {"predictions.parquet", "slices.json"}
    assert not list(folder.rglob("*.pyc"))


@pytest.mark.parametrize(
    "file",
    [
        "release/model.skops",
        "release/more.py",
        "training/train_ids.npy",
        "training/reference.parquet",
        "evaluation/predictions.parquet",
        "release/candidate.json",
    ],
)
def test_changed_artifacts_are_refused(artifacts: Path, tmp_path: Path, file: str) -> None:
    """What is not what was tracked is not used, and nothing of it is left."""
    (artifacts / file).write_bytes(b'{"candidate": "0000000000000000"}')
    with pytest.raises(ModelFileRefused, match=r"changed|not whole"):
        version_files.fetch(MODEL, 1, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_champion_that_was_changed_makes_the_verdict_a_refusal(artifacts: Path) -> None:
    """Without an honest champion there is no comparison: refused, with the reason."""
    (artifacts / "release" / "model.skops").write_bytes(b"another")
    track()
    verdict = comparison.judge_candidate(MODEL)
    assert not verdict.promoted
    assert "could not be had: the artifacts of late version 1 (candidate" in verdict.summary
    assert str(settings.ROOT) not in verdict.to_json()


def test_missing_artifacts_make_the_verdict_a_refusal(artifacts: Path) -> None:
    """Lost artifacts are no crash: the verdict says which run they belong to."""
    shutil.rmtree(artifacts / "release")
    verdict = comparison.judge_candidate(MODEL)
    assert not verdict.promoted
    assert "could not be had" in verdict.summary
    assert artifacts.parent.name in verdict.summary


def test_champion_that_asks_for_a_column_that_is_gone_makes_the_verdict_a_refusal(artifacts: Path) -> None:
    """The rows of today cannot be asked of it: refused, with the column's name."""
    import pandas as pd

    for path in (settings.BUILD / MODEL / "rows").iterdir():
        pd.read_parquet(path).drop(columns="temp").to_parquet(path)
    verdict = comparison.judge_candidate(MODEL)
    assert not verdict.promoted
    assert "could not be scored on this holdout" in verdict.summary
    assert "temp" in verdict.summary


def test_champion_cached_and_then_changed_is_brought_again(artifacts: Path) -> None:
    """The copy below var/champions is looked at before it is used."""
    version = champion()
    folder = version_files.fetch_cached(MODEL, version)
    (folder / "release" / "model.skops").write_bytes(b"another")
    version_files.fetch_cached(MODEL, version)
    assert package.identity_of(folder / "release") == version.candidate


def test_champion_with_code_of_its_own_is_scored_with_the_code_it_was_packaged_with(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where models/<name> has changed since, an interpreter with the champion's code gives the same answers."""
    import pandas as pd

    version = champion()
    ids = pd.read_parquet(settings.BUILD / MODEL / "evaluation" / "predictions.parquet")["id"]
    here = comparison.score_champion(MODEL, version, ids)
    release = version_files.fetch_cached(MODEL, version) / "release"
    shutil.copytree(REPOSITORY / "tasks", release / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(version_files, "fetch_cached", lambda *_: release.parent)
    monkeypatch.setattr(comparison, "_holds_own_code", lambda *_: True)
    monkeypatch.setattr(comparison, "_code_differs", lambda *_: True)
    there = comparison.score_champion(MODEL, version, ids)
    assert there.fault == ""
    assert here.predictions is not None
    assert there.predictions is not None
    pd.testing.assert_frame_equal(here.predictions, there.predictions, check_exact=True)
    (release / "tasks" / "runtime" / "model_file.py").write_text("raise RuntimeError('not today')")
    assert "its own code failed: RuntimeError: not today" in comparison.score_champion(MODEL, version, ids).fault


def test_age_of_the_champion_is_counted_in_partitions(artifacts: Path) -> None:
    """It was trained until 2013-02; 2013-03 and 2013-04 are there since."""
    from tasks.ground import params

    case = comparison.comparison(MODEL, params.load().model(MODEL), registry.champion(MODEL))
    assert case.champion_age == 2


# ── a store that is locked, or gone ───────────────────────────────────────────────────────────────


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less."""
    monkeypatch.setattr(mlflow_store, "PAUSES", (0.05, 0.1))
    monkeypatch.setattr(mlflow_store, "PATIENCE", 0.1)


def test_locked_store_is_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the file lets go in time: the call succeeds."""
    monkeypatch.setattr(mlflow_store, "PATIENCE", 0.2)
    verdict = verdict_of(3)
    with closing(sqlite3.connect(settings.VAR / "mlflow" / "mlflow.db", check_same_thread=False)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        threading.Timer(0.6, holder.rollback).start()
        promotions.promote(MODEL, 3, verdict)
    assert state()["aliases"]["champion"] == 3


@pytest.mark.usefixtures("impatient")
def test_store_that_stays_locked_is_a_clear_failure(root: Path) -> None:
    """It names the store and what to do; nothing is promoted."""
    before, verdict = state(), verdict_of(3)
    with closing(sqlite3.connect(settings.VAR / "mlflow" / "mlflow.db")) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            RegistryUnavailable, match=r"sqlite:///.*mlflow\.db cannot be used: database is locked.*lsof"
        ) as told:
            promotions.promote(MODEL, 3, verdict)
        assert "Without it nothing is promoted" in str(told.value)
        holder.rollback()
    assert state() == before


@pytest.mark.usefixtures("impatient")
def test_server_that_does_not_answer_is_a_clear_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the address without the password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:hunter2@127.0.0.1:9")
    with pytest.raises(
        RegistryUnavailable, match=r"http://\*\*\*@127\.0\.0\.1:9 cannot be used.*Start the server"
    ) as told:
        registry.champion(MODEL)
    assert "hunter2" not in str(told.value)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"this is no database at all, but a text", "file is not a database"), (None, "but not MLflow's")],
)
def test_file_that_is_no_store_is_a_clear_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, reason: str
) -> None:
    """It is not taken for an empty store, and not written over."""
    database = tmp_path / "other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    if content is None:
        with closing(sqlite3.connect(database)) as other:
            other.execute("CREATE TABLE mine (x)")
    else:
        database.write_bytes(content)
    held = files.md5(database)
    with pytest.raises(RegistryUnavailable, match=reason):
        registry.champion(MODEL)
    assert files.md5(database) == held


@pytest.mark.usefixtures("impatient")
def test_store_that_fails_in_the_middle_is_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow says that it is temporarily unavailable: twice is borne, and the promotion is whole."""
    real, failures = MlflowClient.set_registered_model_alias, []

    def failing(self: MlflowClient, *args: Any) -> None:
        if len(failures) < 2:
            failures.append(args)
            raise MlflowException("database is locked", error_code=TEMPORARILY_UNAVAILABLE)
        real(self, *args)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", failing)
    promotions.promote(MODEL, 3, verdict_of(3))
    assert len(failures) == 2
    assert state()["aliases"] == {"champion": 3, "former": 2}


def test_what_mlflow_refuses_is_no_outage_and_says_where_to_look(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, with what was asked and what MLflow said."""

    def wrong(*_: Any) -> None:
        raise MlflowException("no such thing", error_code=1000)

    monkeypatch.setattr(MlflowClient, "get_registered_model", wrong)
    with pytest.raises(RegistryDamaged, match=r"\(champion of late\): .*no such thing.*docs/how-to/mlflow-ui\.md"):
        registry.champion(MODEL)


# ── the journal ───────────────────────────────────────────────────────────────────────────────────


def test_the_journal_says_who_was_champion_whoever_made_it_so_and_sets_the_aliases_again(root: Path) -> None:
    """A promotion, an alias moved by hand, a rollback; what MLflow lost is put right by it."""
    files.remove(paths.journal(MODEL).parent)
    promotions.promote(MODEL, 3, verdict_of(3))
    begun, promotion = journal.lines(MODEL, *alias_lines.KINDS)
    assert (begun.kind, begun.why) == ("alias", "as they were when the journal began")
    assert (promotion.kind, promotion.what["version"], promotion.what["verdict"]) == ("promotion", 3, verdict_of(3))
    head = next(head for head in alias_lines.pinned(MODEL) if head["key"] == signing.public())
    assert head["number"] == promotion.number
    client().set_registered_model_alias(MODEL, "champion", "1")
    (differs,) = alias_lines.differences(MODEL)
    assert re.fullmatch(r"late: champion is version 1 .* in MLflow, and version 3 .* by the journal", str(differs))
    alias_lines.put_right(MODEL)
    assert champion().number == 3
    client().set_registered_model_alias(MODEL, "champion", "1")
    alias_lines.look(MODEL)
    alias_lines.look(MODEL)
    by_hand = journal.lines(MODEL, *alias_lines.KINDS)[-1]
    assert (by_hand.why, by_hand.what["version"]) == (alias_lines.BY_HAND, 1)
    assert len(journal.lines(MODEL, *alias_lines.KINDS)) == 3
    assert alias_lines.differences(MODEL) == []
    promotions.rollback(MODEL, 3, "it was better")
    back = journal.lines(MODEL, *alias_lines.KINDS)[-1]
    assert (back.kind, back.why, back.what["version"]) == ("rollback", "it was better", 3)
    client().delete_registered_model_alias(MODEL, "champion")
    assert cli.main(["journal", "aliases"]) == 3
    assert cli.main(["journal", "aliases", "--put-right"]) == 0
    assert champion().number == 3
    client().set_model_version_tag(MODEL, "3", alias_lines.HEAD, json.dumps({**head, "number": 7}))
    with pytest.raises(RegistryDamaged, match="was edited in MLflow: its signature is not right"):
        alias_lines.pinned(MODEL)
