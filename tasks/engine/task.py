"""A task is a name and plain data, and so is its outcome: no code object travels, and no pickle of ours.

`{"function": "tasks.data.validate:check_all", "arguments": […]}`: a function of this project, and JSON values. Whoever
does it imports the function from the checkout. What it raises comes back by name as well.
"""

from __future__ import annotations

import json
import traceback
from importlib import import_module
from typing import Any

from tasks.ground.errors import EvergreenError, WorldError

Task = dict[str, Any]
"""`function`, a name, and `arguments`, JSON values; what else it holds is for whoever gave it out."""

Outcome = dict[str, Any]
"""`result`, a JSON value; or `error`, `{"type": "tasks.ground.errors:StageFailed", "text": …}`; or `lost`, why."""

OWN = ("tasks.", "tests.")
"""Functions and errors are of these packages: a task names nothing else."""


class WorkersLost(WorldError):
    """Every worker that did a task died of it, or took too long."""


def task(function: str, *arguments: Any, **others: Any) -> Task:
    """A task; fails where an argument is no JSON value."""
    made: Task = json.loads(json.dumps({"function": function, "arguments": arguments, **others}, allow_nan=False))
    return made


def call(task: Task) -> Any:
    """Do a task in this process; what its function raises is raised."""
    return _named(task["function"])(*task["arguments"])


def do(task: Task) -> str:
    """Do a task for another process, and give the outcome as JSON: what its function raises is that as well.

    Raises:
        MemoryError: the task may succeed in another process.
    """
    try:
        return json.dumps({"result": call(task)})
    except MemoryError:
        raise
    except EvergreenError as error:
        own = {"type": f"{type(error).__module__}:{type(error).__qualname__}", "text": str(error)}
    except Exception:  # noqa: BLE001 - a defect: `result` raises it where the outcome is waited for
        own = {"type": "", "text": traceback.format_exc()}
    return json.dumps({"error": own})


def result(outcome: Outcome) -> Any:
    """The result of a task that was done elsewhere.

    Raises:
        EvergreenError: the task raised it.
        RuntimeError: the task raised something else: a defect, with its traceback.
        WorkersLost: nobody could do it.
    """
    if "lost" in outcome:
        raise WorkersLost(outcome["lost"])
    if "error" not in outcome:
        return outcome["result"]
    name, text = outcome["error"]["type"], outcome["error"]["text"]
    raise (_named(name) if name.startswith(OWN) else RuntimeError)(text)


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module.startswith(OWN):
        raise ValueError(f"{name!r} is no function of this project")
    return getattr(import_module(module), attribute)
