"""Whether a training is due: asked of the policy for new data, not asked where a person or an edit has decided."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from flows.prefect_support import run_local
from tasks.ground import files, params, settings
from tasks.journal import journal
from tasks.lifecycle import retrain_decision, retrain_facts
from tasks.modelling import daily_summaries
from tasks.release.registry import registry
from tests.conftest import Project, write_readings
from tests.deployments.alone import Alone, server

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

MODEL = "tiny"

KILLED = """
import os, signal
from flows.prefect_support import run_local
from tasks.training import train
train.train = lambda name: os.kill(os.getpid(), signal.SIGKILL)
run_local.run("train", "tiny", False, True)
"""


@pytest.fixture(scope="module")
def alone(small_copied: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """The small project, trained once by a person."""
    with server(small_copied, tmp_path_factory.mktemp("due") / "project") as alone:
        assert train(if_due=False).is_completed()
        yield alone


def train(*, if_due: bool = True) -> Any:
    """Run the flow here, as the clock would or as a person would; gives its state."""
    return run_local.run("train", MODEL, False, if_due)


def arrive(project: Project, month: int) -> None:
    """A data version with one month more."""
    write_readings(project.root, month)
    project.dvc("add", "-q", "data")


def policy(project: Project, said: str) -> None:
    """Another retrain policy in params.yaml."""
    path = project.root / "params.yaml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("    retrain:")]
    at = next(i for i, line in enumerate(lines) if line.startswith("    serving:"))
    path.write_text("\n".join([*lines[:at], f"    retrain: {said}", *lines[at:], ""]))


def versions() -> int:
    """How many there are in the registry."""
    return len(registry.history(MODEL))


def decisions() -> list[dict[str, Any]]:
    """What was written down."""
    return [line.flat for line in journal.lines(MODEL, "decision")]


def test_a_person_is_asked_no_questions(alone: Alone) -> None:
    """The first training, and that a person asked for it, stand in the book."""
    assert versions() == 1
    assert decisions()[-1]["retrain"]
    assert decisions()[-1]["state"]["asked_by"] == "a person"
    assert not (settings.VAR / "memo" / "due" / f"{MODEL}.json").exists()


def test_of_new_data_the_policy_is_asked(alone: Alone) -> None:
    """«no» is kept with its facts, and said again without gathering them; another policy says yes."""
    policy(alone.project, "{when: [{new_rows: 1000}]}")
    arrive(alone.project, 4)
    before = len(decisions())
    state = train()
    assert state.name == "NotDue"
    assert "224 new rows, 1,000 are asked" in state.message
    said = decisions()[-1]
    assert not said["retrain"]
    assert said["state"]["new_partitions"] == 1
    assert said["state"]["now"] == "2013-04-28T18:00:00"
    assert said["state"]["trained_at"] == "2013-03-28T18:00:00"
    assert said["state"]["learned_rows"] == 448
    assert said["state"]["promised"]["labels"] == 224
    again = train()
    assert again.name == "NotDue"
    assert "asked again" in again.message
    assert len(decisions()) == before + 1
    assert versions() == 1

    policy(alone.project, "{when: [{new_rows: 200}]}")
    assert train().is_completed()
    assert versions() == 2
    assert decisions()[-1]["retrain"]
    assert "nothing to do" in train().message


def test_within_the_gap_it_waits_and_a_person_does_not(alone: Alone) -> None:
    """The gap is one of the data."""
    policy(alone.project, "{gap_days: 60, when: [{new_rows: 1}]}")
    arrive(alone.project, 5)
    state = train()
    assert state.name == "NotDue"
    assert "the gap is 60 days; else it would" in state.message
    assert train(if_due=False).name == "Completed"
    assert versions() == 3


def test_an_edit_is_trained_on_whatever_the_policy_says_and_killed_anywhere(alone: Alone) -> None:
    """A person has edited: that is known after the rows were made anew, too."""
    policy(alone.project, "{when: []}")
    arrive(alone.project, 6)
    assert train().name == "NotDue"
    alone.project.edit("models/tiny/rows/__init__.py", 'failures"] > fails_above', 'failures"] >= fails_above + 1')
    alone.project.commit()
    died = alone.project.run(sys.executable, "-c", KILLED, check=False)
    assert died.returncode == -9, died.stderr
    state = train()
    assert state.name == "Completed", state.message
    assert "models/tiny/rows" in decisions()[-1]["why"]
    assert versions() == 4


def test_a_partition_that_is_gone_is_no_new_data(alone: Alone) -> None:
    """Somebody took it out: the model must not know it any longer."""
    (alone.project.root / "data/readings/2013-05.csv").unlink()
    alone.project.dvc("add", "-q", "data")
    assert train().name == "Completed"
    assert "2013-05 left the data version" in decisions()[-1]["why"]


def test_what_was_made_and_is_lost_is_made_again(alone: Alone) -> None:
    """Without a question: the data are the ones it was trained on."""
    files.remove(settings.BUILD / MODEL / "evaluation")
    before = versions()
    assert train().name == "Completed"
    assert versions() == before
    assert (settings.BUILD / MODEL / "evaluation" / "metrics.json").exists()
    assert retrain_decision.last(MODEL) is not None


def test_a_champion_of_another_task_or_other_columns_stops_no_decision(alone: Alone) -> None:
    """What cannot be told of it is not known; the gate says what is wrong when it compares."""
    said = params.load().model(MODEL)
    evaluation, training = settings.BUILD / MODEL / "evaluation", settings.BUILD / MODEL / "model"
    assert retrain_facts._promised(said, evaluation) is not None
    other = said.model_copy(update={"gate": said.gate.model_copy(update={"loss": "absolute"})})
    assert retrain_facts._promised(other, evaluation) is None
    types = {"pressure": "category", "weekday": "number"}
    text = {name: one.model_copy(update={"type": types.get(name, one.type)}) for name, one in said.features.items()}
    other = said.model_copy(update={"features": text})
    wanted = daily_summaries.columns(files.read_json(training / "profile.json"), other.features)
    assert {name for name, column in wanted.items() if not retrain_facts._is_as_learned(column, other)} == {"pressure"}
    assert list(retrain_facts._row_alarms(MODEL, other, training, ["2013-06"])) == list(
        retrain_facts._row_alarms(MODEL, said, training, ["2013-06"])
    )
