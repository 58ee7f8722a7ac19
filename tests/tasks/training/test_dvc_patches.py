"""What is patched in DVC gives what DVC gives."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc import dvcfile
from dvc.utils.serialize import modify_yaml

from tasks.training import dvc_patches
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "dvc.lock").read_text(encoding="utf-8")
LOCK = "".join(re.split(r"^(?=  \S)", TEXT, flags=re.MULTILINE)[:4])  # three stages: DVC takes its time
MADE = OrderedDict(cmd="python -m tasks x", params={"params.yaml": {"a": ["no", 1e-05, None], "b": "long " * 40}})


CHANGES: dict[str, Callable[[Any], None]] = {
    "nothing": lambda data: None,
    "a stage": lambda data: data["stages"].update({next(iter(data["stages"])): MADE}),
    "a new stage": lambda data: data["stages"].update({"new@model": MADE}),
}
TEXTS = {
    "as DVC writes it": LOCK,
    "with a comment": f"# mine\n{LOCK}",
    "with a comment in a stage": LOCK.replace("    deps:\n", "    # mine\n    deps:\n", 1),
    "without stages": "schema: '2.0'\nstages: {}\n",
    "with something else": f"{LOCK}datasets: []\n",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("text", TEXTS)
def test_the_lock_is_written_byte_for_byte_as_dvc_writes_it(tmp_path: Path, text: str, change: str) -> None:
    """So a `dvc repro` that a person starts changes nothing in it."""
    if (text, change) == ("without stages", "a stage"):
        return
    dvc_patches.apply()
    written = {}
    for who, modify in {"dvc": modify_yaml, "patched": dvcfile.modify_yaml}.items():
        lock = tmp_path / who / "dvc.lock"
        lock.parent.mkdir()
        lock.write_text(TEXTS[text], encoding="utf-8")
        with modify(str(lock)) as data:
            CHANGES[change](data)
        written[who] = lock.read_text(encoding="utf-8")
    if (text, change) == ("with a comment in a stage", "a stage"):  # DVC keeps it with nothing, or at the next stage
        assert "# mine" not in written["patched"]
        return
    assert written["patched"] == written["dvc"]


READ = {
    **TEXTS,
    "all of it": TEXT,
    "with an anchor": LOCK.replace("outs:\n", "outs: &own\n", 1),
    "with a stage twice": LOCK + LOCK.partition("stages:\n")[2],
    "broken off": LOCK[: len(LOCK) // 2] + "\n  x: [",
    "with a text of two lines": f"{LOCK}  x:\n    cmd: 'a\n\n  b: c'\n",
    "empty": "",
}


@pytest.mark.parametrize("text", READ)
def test_the_lock_is_read_as_dvc_reads_it(text: str) -> None:
    """By the stage, each once in a process."""
    from dvc.utils.serialize import _yaml

    dvc_patches.apply()
    made = dvc_patches._parses_once(_yaml, _plain)
    assert _outcome(made, READ[text]) == _outcome(_plain, READ[text])
    assert _outcome(made, READ[text]) == _outcome(_plain, READ[text])


def _plain(text: str, path: str, typ: str = "safe") -> Any:
    from dvc.utils.serialize._yaml import YAMLFileCorruptedError
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ=typ).load(text) or {}
    except YAMLError as error:
        raise YAMLFileCorruptedError(path) from error


def _outcome(parse: Callable[..., Any], text: str) -> Any:
    from dvc.utils.serialize._yaml import YAMLFileCorruptedError

    try:
        return parse(text, "somewhere/dvc.lock")
    except YAMLFileCorruptedError as error:
        return error.args


def test_a_lock_of_stages_with_anchors_can_be_read_again(tmp_path: Path) -> None:
    """YAML anchors of one params.yaml section come back in every stage that depends on it, each under the same name."""
    dvc_patches.apply()
    lock = tmp_path / "dvc.lock"
    lock.write_text(LOCK, encoding="utf-8")
    for name in ("one@model", "two@model"):
        shared = {"about": "a pixel"}
        stage = {"cmd": "x", "params": {"params.yaml": {"first": shared, "second": shared}}}
        with dvcfile.modify_yaml(str(lock)) as data:
            data["stages"][name] = stage
    with dvcfile.modify_yaml(str(lock)) as data:
        assert data["stages"]["two@model"]["params"]["params.yaml"]["second"] == {"about": "a pixel"}
