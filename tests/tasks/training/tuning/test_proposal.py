"""An edit of params.yaml that says what was meant, and changes nothing else; git takes it as a patch."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks.ground import yaml_reader
from tasks.ground.errors import ParamsError
from tasks.training.tuning import proposal

FLOW = "      params: {C: 1.0, tol: 0.1}   # as ever\n"
BLOCK = """\
      params:
        C: 1.0       # how strong
        # a remark

        tol: 0.1
"""
EMPTY = ""
FILE = """\
landing: in   # a comment
models:
  one:
    about:    spaces   stay
    estimator:
      class: sklearn.linear_model.LogisticRegression
{params}
      # behind it
      seed: 0
  two:
    estimator: {{class: models.two.Own, params: {{C: 1.0}}, seed: 1}}"""

WANTED: list[dict[str, Any]] = [
    {"C": 0.25, "tol": 0.1},
    {"C": 1e-05, "tol": 0.1, "penalty": None, "texts": ["a b", "yes", "x"], "deep": {"a": True}},
    {"tol": 3},
]


@pytest.mark.parametrize("written", [FLOW, BLOCK, EMPTY])
@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_git_takes_the_patch_and_all_else_stays(
    written: str, wanted: dict[str, Any], line_end: str, tmp_path: Path
) -> None:
    """Comments too, in flow and block style, with either line end and none at the end."""
    text = FILE.format(params=written.rstrip("\n") or "      # none").replace("\n", line_end)
    new = proposal.proposed(text, "one", "sklearn.linear_model.LogisticRegression", wanted)
    assert yaml_reader.load(new)["models"]["one"]["estimator"]["params"] == wanted
    kept = [line for line in text.split(line_end) if "C:" not in line and "tol" not in line and "params" not in line]
    if set(wanted) >= {"C", "tol"}:
        assert [line for line in kept if line not in new.split(line_end)] == []
    (tmp_path / "params.yaml").write_bytes(text.encode())
    (tmp_path / "a.patch").write_bytes(proposal.patch(text, new).encode())
    subprocess.run(["git", "apply", "a.patch"], cwd=tmp_path, check=True)
    assert (tmp_path / "params.yaml").read_bytes() == new.encode()


def test_one_number_is_one_changed_line() -> None:
    """The remark beside it stays."""
    text = FILE.format(params=BLOCK)
    new = proposal.proposed(text, "one", "sklearn.linear_model.LogisticRegression", {"C": 2.5, "tol": 0.1})
    assert [line for line in new.split("\n") if line not in text.split("\n")] == ["        C: 2.5       # how strong"]


def test_another_class_is_written_with_its_params() -> None:
    """Of a model that stands on one line too."""
    new = proposal.proposed(FILE.format(params=FLOW), "two", "sklearn.svm.SVC", {"C": 2, "gamma": "auto"})
    assert "    estimator: {class: sklearn.svm.SVC, params: {C: 2, gamma: auto}, seed: 1}" in new


def test_what_stands_behind_an_alias_is_not_edited() -> None:
    """It would change the other model as well."""
    text = (
        "models:\n  one: {estimator: {class: a.B, params: &p {C: 1}}}\n  two: {estimator: {class: a.B, params: *p}}\n"
    )
    with pytest.raises(
        ParamsError, match=r"Write it yourself, below models.two.estimator: class: a.B, params: \{C: 2\}"
    ):
        proposal.proposed(text, "two", "a.B", {"C": 2})
