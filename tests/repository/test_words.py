"""The words of this project: one name per thing, one thing per name (docs/reference/glossary.md)."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY
from tests.repository import words

GLOSSARY = (REPOSITORY / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")


def test_no_vague_name_lives_longer_than_three_lines() -> None:
    """Of `said`, `one`, `found` and the like nobody knows, ten lines on, what they hold."""
    assert not [line for path in words.modules() for line in words.vague_names(path)]


def test_no_two_classes_share_a_name() -> None:
    """Who reads `Release` knows which."""
    assert not words.shared_class_names()


def test_the_glossary_names_what_exists() -> None:
    """Each class of its last column is defined once; each module, folder and file of it is there."""
    classes = words.classes()
    modules = {path.relative_to(REPOSITORY).with_suffix("").as_posix() for path in words.modules()}
    named = re.findall(r"^\|.*\|([^|]*)\|$", GLOSSARY, flags=re.MULTILINE)
    wrong = []
    for text in (name for cell in named for name in re.findall(r"`([^`]+)`", cell)):
        place = text.removesuffix("/").replace(".", "/")
        is_module = any(f"/{place}/" in f"/{module}/" for module in modules)
        is_class = len(classes.get(text.rpartition(".")[2], [])) == 1
        if not (is_module or is_class or (REPOSITORY / place).exists() or "<" in text):
            wrong.append(text)
    assert not wrong


def test_words_that_were_replaced_stand_in_no_code() -> None:
    """Those that the glossary ends with: as a name of anything, and in what people read."""
    replaced = [
        word.strip() for word in GLOSSARY.partition("## Words that were replaced\n")[2].strip().strip(".").split(",")
    ]
    pattern = re.compile(rf"\b_?({'|'.join(map(re.escape, replaced))})s?\b", re.IGNORECASE)
    assert not [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in words.modules()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
