"""Proposal: the best parameters as an edit of params.yaml, which leaves all else in it, comments and spaces too.

The file is read by ruamel.yaml for the places of its values only; what is between them is copied. What comes out is
read again, and must say what was meant and nothing else.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node

from tasks.ground import files, settings, yaml_reader
from tasks.ground.errors import ParamsError

FILE = "params.yaml"

Edit = tuple[int, int, str]
"""From, up to, and what stands there then."""


def edited(text: str, name: str, path: str, wanted: Mapping[str, Any]) -> str:
    """params.yaml with another class and other params of a model's estimator.

    Args:
        text: of params.yaml.
        name: of the model.
        path: the dotted class.
        wanted: estimator.params.

    Raises:
        ParamsError: the estimator is not written where it can be edited, as behind an alias.
    """
    estimator = _below(YAML().compose(text), "models", name, "estimator")
    params = _below(estimator, "params")
    edits = [_replaced(_below(estimator, "class"), path)]
    if isinstance(params, MappingNode) and params.value:
        edits += _edits_of_mapping(text, params, wanted)
    elif params is not None:
        edits.append(_replaced(params, dict(wanted)))
    elif wanted:
        edits.append(_added(text, estimator, {"params": dict(wanted)}))
    for begin, end, new in sorted((edit for edit in edits if edit), reverse=True):
        text = text[:begin] + new + text[end:]
    return text


def proposed(text: str, name: str, path: str, wanted: Mapping[str, Any]) -> str:
    """As `edited`, and read again.

    Raises:
        ParamsError: the file cannot be edited so; says what to write by hand.
    """
    meant = yaml_reader.parse(text, FILE, ParamsError, dvc_reads=True)
    meant["models"][name]["estimator"] |= {"class": path, "params": dict(wanted)}
    try:
        new = edited(text, name, path, wanted)
        if yaml_reader.parse(new, FILE, ParamsError, dvc_reads=True) == meant:
            return new
        why = "another part of it would change as well (an alias?)"
    except (ParamsError, ValueError, LookupError, AttributeError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
    raise ParamsError(
        f"params.yaml cannot be edited in place ({why}). Write it yourself, below models.{name}.estimator: "
        f"class: {path}, params: {_flow(dict(wanted))}"
    )


def patch(text: str, new: str) -> str:
    """A unified diff, as `git apply` takes it; empty where nothing differs."""
    lines = difflib.unified_diff(_lines(text), _lines(new), f"a/{FILE}", f"b/{FILE}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    """As git has them: a form feed ends no line."""
    return StringIO(text, newline="\n").readlines()


def read(path: Path | None = None) -> str:
    """The text of params.yaml with its line ends."""
    return (path or settings.ROOT / FILE).read_bytes().decode("utf-8")


def write(new: str) -> None:
    """Write params.yaml, whole or not at all, with the rights that it had."""
    path = settings.ROOT / FILE
    mode = path.stat().st_mode
    with files.replacing(path) as beside:
        beside.write_bytes(new.encode())
        beside.chmod(mode)


# ── places in the text ────────────────────────────────────────────────────────────────────────────


def _below(node: Node | None, *keys: str) -> Any:
    """The node of a key's value; None where there is none."""
    for key in keys:
        pairs = node.value if isinstance(node, MappingNode) else []
        node = next((value for name, value in pairs if name.value == key), None)
    return node


def _replaced(node: Node, value: Any) -> Edit:
    return node.start_mark.index, node.end_mark.index, _flow(value)


def _edits_of_mapping(text: str, node: MappingNode, wanted: Mapping[str, Any]) -> Iterator[Edit]:
    """Values that differ are replaced, one by one; with keys that go away all of it is written anew."""
    now = {key.value: value for key, value in node.value}
    if set(now) - set(wanted):
        yield _rewritten(text, node, wanted)
        return
    for key, value in wanted.items():
        if key in now and _parsed(text, now[key]) != value:
            yield _replaced(now[key], value)
    if new := {key: value for key, value in wanted.items() if key not in now}:
        yield _added(text, node, new)


def _rewritten(text: str, node: MappingNode, wanted: Mapping[str, Any]) -> Edit:
    begin, end = node.start_mark.index, node.end_mark.index
    if not node.flow_style:  # a block ends where the next key begins: blank lines and comments behind it stay
        end = _end_of_block(text, node)
    return begin, end, _flow(dict(wanted))


def _added(text: str, node: MappingNode, new: Mapping[str, Any]) -> Edit:
    """Further keys at the end of a mapping."""
    if node.flow_style:
        at = node.value[-1][1].end_mark.index if node.value else node.start_mark.index + 1
        joined = ", ".join(f"{_flow(key)}: {_flow(value)}" for key, value in new.items())
        return at, at, f", {joined}" if node.value else joined
    indent, at = " " * node.value[0][0].start_mark.column, _end_of_line(text, _end_of_block(text, node))
    line_end = "\r\n" if "\r\n" in text else "\n"
    return at, at, "".join(f"{line_end}{indent}{_flow(key)}: {_flow(value)}" for key, value in new.items())


def _end_of_block(text: str, node: Node) -> int:
    """Behind the last value of a block, before comments and blank lines that follow."""
    while isinstance(node, MappingNode) and not node.flow_style and node.value:
        node = node.value[-1][1]
    begin, end = node.start_mark.index, node.end_mark.index
    return int(begin + len(text[begin:end].rstrip()))


def _end_of_line(text: str, at: int) -> int:
    ends = [end for end in (text.find("\r\n", at), text.find("\n", at)) if end >= 0]
    return min(ends, default=len(text))


def _parsed(text: str, node: Node) -> Any:
    return yaml_reader.load(text[node.start_mark.index : node.end_mark.index])


def _flow(value: Any) -> str:
    """A value on one line, within braces: JSON is YAML; a text that needs no quotes has none."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, str) and value.replace("_", "a").replace(".", "a").isalnum():
        return value if yaml_reader.load(value) == value else json.dumps(value)
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """YAML 1.2 reads `1e-05` as a number too, but a reader of 1.1 takes it for a text: with a point it is none."""
    text = repr(value)
    return text if "." in text or "e" not in text else text.replace("e", ".0e")
