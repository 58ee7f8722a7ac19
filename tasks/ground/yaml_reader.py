"""YAML as DVC reads it (YAML 1.2, by ruamel.yaml): params.yaml, expectation suites and DVC's own files.

`NO`, `on` and `12:30` are texts, `1e-3` is a number, merge keys work, a key that stands twice is a fault. PyYAML reads
1.1, where the first three mean False, True and 750.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.ground.errors import Mistake

__all__ = ["YAMLError", "dump", "load", "parse", "read", "text", "with_lines"]


def load(text: str) -> Any:
    """Whatever a text holds.

    Raises:
        YAMLError: it is not YAML.
    """
    return YAML(typ="safe").load(text)


def with_lines(text: str) -> Any:
    """Whatever a text holds; its mappings and lists know their lines (`.lc` of ruamel.yaml)."""
    return YAML().load(text)


def dump(value: Any) -> str:
    """A value as DVC writes it, keys in their order."""
    text = StringIO()
    YAML().dump(value, text)
    return text.getvalue()


def read(path: Path, where: str, error: type[Mistake], *, dvc_reads: bool) -> Any:
    """The content of a YAML file: mappings, lists, texts, finite numbers, truth values and nulls, and nothing else.

    Args:
        path: the file.
        where: how a message names it.
        error: what is raised.
        dvc_reads: whether DVC reads the file too, and so stops at a date without quotes and, between braces, at a text
            with a colon. Elsewhere a date is its text, `2013-01-01`.

    Raises:
        FileNotFoundError: there is no such file.
        Mistake: `error`, with a line per fault: the file, the key or the line, what is wrong, and what to do.
    """
    return parse(text(path, where, error), where, error, dvc_reads=dvc_reads)


def text(path: Path, where: str, error: type[Mistake]) -> str:
    """The text of a YAML file, for `parse`; raises what `read` does."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as fault:
        raise error(f"{where} is not YAML: {_in_a_line(fault)}") from None


def parse(text: str, where: str, error: type[Mistake], *, dvc_reads: bool) -> Any:
    """As `read`, of a text that comes from elsewhere."""
    try:
        content = YAML(typ="safe", pure=not dvc_reads).load(text)
        content = content if dvc_reads else _dates_as_text(content)
    except (YAMLError, ValueError, RecursionError) as fault:  # ValueError: a date of month 13
        raise error(f"{where} is not YAML: {_in_a_line(fault)}") from None
    if faults := [f"{where}: {key or '(top level)'}: {problem}" for key, problem in _faults(content, "", ())]:
        raise error("\n".join(faults))
    return content


def _in_a_line(fault: Exception) -> str:
    """ruamel.yaml's message and its place; without its advice to programmers."""
    mark = getattr(fault, "problem_mark", None) or getattr(fault, "context_mark", None)
    problem = getattr(fault, "problem", None) or str(fault)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    hint = "; a text that holds a colon stands in quotes there" if problem == "found unexpected ':'" else ""
    return f"{place}{' '.join(problem.split('To suppress')[0].split())}{hint}"


def _dates_as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {_dates_as_text(key): _dates_as_text(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_dates_as_text(each) for each in value]
    return str(value) if isinstance(value, dt.date) else value  # a datetime is one as well


def _faults(value: Any, key: str, above: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """The key and the fault of every value that JSON has no word for, or that would never compare as equal."""
    if isinstance(value, dict | list):
        if id(value) in above:
            yield key, "an anchor that holds itself"
            return
        if isinstance(value, dict):
            yield from _faults_of_keys(value, key)
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _faults(each, f"{key}.{name}" if key else str(name), (*above, id(value)))
    elif isinstance(value, dt.date):  # a datetime is one as well
        yield key, f"{value} is a date, which DVC cannot take; put it in quotes"
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, f"{value} is no finite number; write null, or put it in quotes"
    elif not isinstance(value, str | int | float | None):
        yield key, f"a {type(value).__name__} is no text, number, truth value, list or mapping"


def _faults_of_keys(mapping: dict[Any, Any], key: str) -> Iterator[tuple[str, str]]:
    for name in mapping:
        if not isinstance(name, str | int | float) or (isinstance(name, float) and not math.isfinite(name)):
            yield key, f"{name!r} is no key; put it in quotes"
    if len({isinstance(name, str) for name in mapping}) > 1:
        yield key, "some keys are texts, others are numbers: put all of them in quotes, or none"


_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def braces(text: str) -> Iterator[str]:
    """The words that a shell makes of `a_{0..2}` (`{00..12}` keeps zeros) or `{x,y}_a`."""
    match = re.search(r"\{([^{}]*(?:\.\.|,)[^{}]*)\}", text)
    if match is None:
        yield text
        return
    if span := _RANGE.fullmatch(match[1]):
        first, last = int(span[1]), int(span[2])
        width = max(len(span[1]), len(span[2])) if "0" in (span[1][0], span[2][0]) and len(span[1]) > 1 else 0
        if not first <= last < first + 100_000:
            raise ValueError(f"{text!r}: {match[0]} counts from the smaller to the larger number")
        words = [f"{number:0{width}}" for number in range(first, last + 1)]
    else:
        words = match[1].split(",")
    for word in words:
        yield from braces(text[: match.start()] + word + text[match.end() :])
