"""API keys: made, taken back, and admitted, without a restart."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from deployments.serving import api_keys
from tasks.ground import paths, settings
from tasks.ground.errors import Mistake
from tasks.journal import journal


@pytest.fixture(autouse=True)
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A var/ of its own."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    return tmp_path


def test_a_key_is_given_once_and_kept_as_its_hash() -> None:
    """Whoever reads the file cannot ask with it."""
    key = api_keys.add("shop")
    assert len(key) > 40
    text = paths.api_keys().read_text()
    assert key not in text
    assert json.loads(text) == {"shop": hashlib.sha256(key.encode()).hexdigest()}
    assert api_keys.names() == ["shop"]


def test_nobody_else_may_read_the_file() -> None:
    """Who has a key is nobody's business."""
    api_keys.add("shop")
    api_keys.add("app")
    assert paths.api_keys().stat().st_mode & 0o777 == 0o600


def test_the_journal_says_who_made_and_removed_keys_and_holds_no_hash_of_one() -> None:
    """Written down before it is so."""
    key = api_keys.add("shop")
    api_keys.remove("shop")
    api_keys.open_to_all()
    lines = journal.lines(journal.PLATFORM, "key")
    assert [(line.what["name"], line.what["change"]) for line in lines] == [
        ("shop", "added"),
        ("shop", "removed"),
        ("*", "open to all"),
    ]
    assert {line.who for line in lines} == {journal.account()}
    assert hashlib.sha256(key.encode()).hexdigest() not in paths.journal(journal.PLATFORM).read_text()


def test_two_keys_are_never_alike() -> None:
    """Also of one name, one after the other."""
    first = api_keys.add("shop")
    api_keys.remove("shop")
    assert api_keys.add("shop") != first


def test_before_the_first_key_everybody_is_admitted() -> None:
    """And from then on nobody without one."""
    admitted = api_keys.Keys()
    assert admitted.admit("")
    assert not api_keys.Keys().are_required()
    api_keys.add("shop")
    assert not admitted.admit("")
    assert api_keys.Keys().are_required()


@pytest.mark.parametrize("how", ["taken back", "keys.json", "var/serving", "both files"])
@pytest.mark.parametrize("restarted", [False, True])
def test_without_the_last_key_nobody_is_admitted(var: Path, how: str, restarted: bool) -> None:
    """Taken back, or its file lost, with the folder or without: only a word of its own opens the service again."""
    key = api_keys.add("shop")
    admitted = api_keys.Keys()
    assert admitted.admit(key)
    if how == "taken back":
        api_keys.remove("shop")
    elif how == "var/serving":
        shutil.rmtree(var / "serving")
    else:
        paths.api_keys().unlink()
    if how == "both files":
        (var / "keys.required").unlink()
        restarted = False  # who forgets all of it begins from nothing
    if restarted:
        admitted = api_keys.Keys()
    for asked in ("", key, "eg_whatever"):
        assert not admitted.admit(asked)
    api_keys.open_to_all()
    assert admitted.admit("")
    assert api_keys.Keys().admit("")
    assert not api_keys.Keys().are_required()
    assert api_keys.Keys().admit(api_keys.add("again"))
    assert not admitted.admit("")


def test_keys_that_were_made_before_this_was_so_are_required_too(var: Path) -> None:
    """There is their file, and nothing beside it: whoever reads it writes down that keys are needed."""
    api_keys.add("shop")
    (var / "keys.required").unlink()
    assert not api_keys.Keys().admit("")
    paths.api_keys().unlink()
    assert not api_keys.Keys().admit("")


def test_nobody_opens_the_service_while_there_are_keys() -> None:
    """They would be of no use any more, and nobody was told."""
    key = api_keys.add("shop")
    with pytest.raises(Mistake, match=r"^there are keys \(shop\): remove each of them first$"):
        api_keys.open_to_all()
    assert api_keys.Keys().admit(key)
    assert not api_keys.Keys().admit("")


def test_with_keys_each_of_them_is_admitted_and_nothing_else() -> None:
    """Neither a part of one, nor its hash, nor its name."""
    shop, app = api_keys.add("shop"), api_keys.add("app")
    admitted = api_keys.Keys()
    assert admitted.admit(shop)
    assert admitted.admit(app)
    for other in ("", " ", shop[:-1], shop + "a", shop.upper(), "shop", hashlib.sha256(shop.encode()).hexdigest()):
        assert not admitted.admit(other), other


def test_a_key_works_from_the_moment_it_is_made_until_it_is_taken_back() -> None:
    """The same `Keys`, as in a router that runs on; and the other key works all the while."""
    admitted = api_keys.Keys()
    old = api_keys.add("old")
    assert admitted.admit(old)
    new = api_keys.add("new")
    assert (admitted.admit(old), admitted.admit(new)) == (True, True)
    api_keys.remove("old")
    assert (admitted.admit(old), admitted.admit(new)) == (False, True)


def test_a_key_of_strange_letters_is_refused_and_no_error() -> None:
    """A header holds any bytes, read as Latin-1."""
    api_keys.add("shop")
    admitted = api_keys.Keys()
    for strange in ("é" * 100, "\xff\xfe", "\x7f", "x" * 100_000):
        assert not admitted.admit(strange)


NONE_OF_OURS = ["{", "", "null", "[]", "0", "[1]", '"eg_x"', '{"shop": 7}', '{"shop": null}', '{"shop": ""}']


@pytest.mark.parametrize("harm", NONE_OF_OURS)
def test_a_file_that_is_not_one_of_ours_admits_nobody(harm: str) -> None:
    """It is told, and no door opens by mistake."""
    key = api_keys.add("shop")
    admitted = api_keys.Keys()
    assert admitted.admit(key)
    paths.api_keys().write_text(harm)
    for asked in ("", "eg_x", key):
        with pytest.raises(ValueError, match=r"keys\.json"):
            admitted.admit(asked)
    paths.api_keys().unlink()
    key = api_keys.add("again")
    assert admitted.admit(key)
    assert not admitted.admit("")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_admits_nobody() -> None:
    """As the last test; an error of the system."""
    api_keys.add("shop")
    paths.api_keys().chmod(0)
    with pytest.raises(PermissionError):
        api_keys.Keys().admit("")


@pytest.mark.parametrize("name", ["", "a b", "-x", ".x", "a/b", "x" * 65, "x\n", "ключ\n"])
def test_what_is_no_name_is_refused(name: str) -> None:
    """It would be hard to read in a list, or to type."""
    with pytest.raises(Mistake) as caught:
        api_keys.add(name)
    assert str(caught.value) == f"{name!r} is no name for a key: letters, digits, - . _ and at most 64 of them"
    assert not paths.api_keys().exists()


def test_a_name_that_is_taken_and_one_that_is_not_there_are_told() -> None:
    """With what to do next."""
    key = api_keys.add("shop")
    taken = r"^there is a key shop already\. Remove it first, or give the new one another name$"
    with pytest.raises(Mistake, match=taken):
        api_keys.add("shop")
    with pytest.raises(Mistake, match=r"^there is no key shp; did you mean 'shop'\?$"):
        api_keys.remove("shp")
    assert api_keys.Keys().admit(key)


def test_a_marker_that_cannot_be_looked_at_admits_nobody() -> None:
    """Only a marker that is not there says that no key is needed; one that names itself is another fault."""
    marker = api_keys._marker()
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.symlink_to(marker)
    with pytest.raises(OSError, match="symbolic links"):
        api_keys.Keys().admit("guess")
