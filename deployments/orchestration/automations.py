"""What happens upon an event: a deployment is woken, a person is told.

Automations are made apart from the deployments, by name: with the deployment's own triggers, deploying again would
remove and remake them, and forget what they have seen. One is changed only when its definition here has changed, so
that one which was switched off in the UI stays off.
"""

from __future__ import annotations

import os
import re
from typing import Any

from flows.prefect_support import api
from tasks.ground import files

PENDING_MINUTES = 5
"""A run that is pending for longer than this is told about."""

OURS = re.compile(r"\(evergreen ([0-9a-f]{12})\)$")
"""At the end of a description: that the automation is one of these, and which definition it was made from."""

BLOCK = "evergreen-notify"

ENDED = [f"prefect.flow-run.{state}" for state in ("Running", "Completed", "Failed", "Crashed", "Cancelled")]


BURST_SECONDS = 2
"""The first event of a burst fires, the others within these seconds are dropped: the run that the first one asks for
starts when they have passed, so that it sees what all of them were to tell."""


def on_event(event: str, resource: str, related: dict[str, Any] | None = None) -> dict[str, Any]:
    """A trigger that fires once for a burst of events of this name, about one of these related resources."""
    return {
        "type": "event",
        "posture": "Reactive",
        "expect": [event],
        "match": {"prefect.resource.id": resource},
        "match_related": related or {},
        "threshold": 1,
        "within": BURST_SECONDS,
    }


def ensure(woken: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]], *, keep: bool = False) -> list[str]:
    """Bring the server's automations to: each of these deployments is woken, and people are told.

    Args:
        woken: title → id, trigger, and with which parameters (None: the deployment's own).
        keep: without removing those that are not wanted any more.

    Gives a line per change.
    """
    wanted = {title: _wake(*one) for title, one in woken.items()}
    wanted = {name_of(title): body for title, body in wanted.items()}
    if url := notify_url():
        wanted |= _notifications(_block(url))
    there = {one["name"]: one for one in registered()}
    lines = []
    for name in () if keep else sorted(there.keys() - wanted.keys()):
        api.call(f"/automations/{there[name]['id']}", method="DELETE")
        lines.append(f"automation «{name}» removed")
    for name, body in wanted.items():
        lines += _ensure(name, body, there.get(name))
    return lines


def registered(patience: int = len(api.PAUSES)) -> list[dict[str, Any]]:
    """The automations that are these, as the server has them."""
    return [one for one in api.call("/automations/filter", {}, patience=patience) if OURS.search(one["description"])]


def name_of(title: str) -> str:
    """The automation that wakes a deployment."""
    return f"wake {title}"


def notify_url() -> str | None:
    """Where people are told, if anywhere: the setting EVERGREEN_NOTIFY_URL."""
    return os.environ.get("EVERGREEN_NOTIFY_URL") or None


def _ensure(name: str, body: dict[str, Any], there: dict[str, Any] | None) -> list[str]:
    definition = files.digest(body)[:12]
    body = {**body, "name": name, "description": f"{body['description']} (evergreen {definition})"}
    if there is None:
        api.call("/automations/", body)
        return [f"automation «{name}» made"]
    seen = OURS.search(there["description"])
    if seen and seen.group(1) == definition:
        return []
    api.call(f"/automations/{there['id']}", {**body, "enabled": there["enabled"]}, method="PUT")
    return [f"automation «{name}» updated"]


def _wake(deployment_id: str, trigger: dict[str, Any], parameters: dict[str, Any] | None) -> dict[str, Any]:
    action: dict[str, Any] = {"type": "run-deployment", "source": "selected", "deployment_id": deployment_id}
    action |= {"parameters": parameters, "schedule_after": BURST_SECONDS}
    return {
        "description": "Wakes the flow, which looks itself at what is there",
        "trigger": trigger,
        "actions": [action],
    }


# ── people are told ───────────────────────────────────────────────────────────────────────────────


def _block(url: str) -> str:
    """Prefect's own notification block for the setting's address; gives its document's id."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    said = {"subject": "{{subject}}", "text": "{{body}}"}
    block = CustomWebhookNotificationBlock(name="evergreen", url=url, json_data=said)
    return str(block.save(BLOCK, overwrite=True))


FAILED = "tell: an automation failed"


def _notifications(block: str) -> dict[str, dict[str, Any]]:
    run = "{{ flow_run.name }}"
    link = "{{ flow_run|ui_url }}"
    return {
        "tell: a run failed": _tell(
            block,
            "A flow run failed or crashed",
            {"expect": ["prefect.flow-run.Failed", "prefect.flow-run.Crashed"]},
            f"{run}: {{{{ flow_run.state.name }}}}",
            f"{{{{ flow_run.state.message | default('no reason given', true) }}}}\n{link}",
        ),
        "tell: a partition was refused": _tell(
            block,
            "A partition was put into quarantine",
            {"expect": ["evergreen.partition.refused"]},
            "refused: {{ event.payload.dataset | default('?') }} {{ event.payload.partition | default('?') }}",
            "{{ event.payload.reason | default('no reason given') }}",
        ),
        "tell: a release was withdrawn": _tell(
            block,
            "A release did not stand its rollout",
            {"expect": ["evergreen.rollout.withdrawn"]},
            "withdrawn: {{ event.payload.model | default('?') }} version {{ event.payload.version | default('?') }}",
            "{{ event.payload.reason | default('no reason given') }}",
        ),
        "tell: an alarm was opened": _tell(
            block,
            "What is served, or what it is asked, is not as it was",
            {"expect": ["evergreen.alarm.opened"]},
            "alarm: {{ event.payload.model | default('?') }}: {{ event.payload.what | default('?') }}",
            "{{ event.payload.text | default('no reason given') }}\n"
            "Seen by somebody: evergreen acknowledge {{ event.payload.model | default('?') }} "
            "{{ event.payload.key | default('?') }}",
        ),
        "tell: an alarm was closed": _tell(
            block,
            "What is served, or what it is asked, is again as it was",
            {"expect": ["evergreen.alarm.closed"]},
            "over: {{ event.payload.model | default('?') }}: {{ event.payload.what | default('?') }}",
            "{{ event.payload.text | default('no reason given') }}",
        ),
        FAILED: _tell(
            block,
            "An automation could not do what it should: a wake or a message may be lost",
            # not of its own failure, which would be told without end: three times a second, where the block is gone
            {"expect": ["prefect.automation.action.failed"], "match": {"prefect.resource.name": f"!{FAILED}"}},
            "an automation failed: {{ event.resource.name | default('?') }}",
            "{{ event.payload.reason | default('no reason given') }}\n"
            "What it was to wake, the schedule will. `evergreen register` brings the automations back to what they "
            "should be.",
        ),
        "tell: a run does not start": _tell(
            block,
            f"A flow run is pending for more than {PENDING_MINUTES} minutes",
            {
                "posture": "Proactive",
                "after": ["prefect.flow-run.Pending"],
                "expect": ENDED,
                "for_each": ["prefect.resource.id"],
                "within": PENDING_MINUTES * 60,
            },
            f"{run} does not start",
            f"It is pending for more than {PENDING_MINUTES} minutes. Is the worker alive ((evergreen status))?\n{link}",
        ),
    }


def _tell(block: str, about: str, trigger: dict[str, Any], subject: str, body: str) -> dict[str, Any]:
    action = {"type": "send-notification", "block_document_id": block, "subject": subject, "body": body}
    defaults = {"type": "event", "posture": "Reactive", "threshold": 1, "within": 0}
    return {"description": about, "trigger": {**defaults, **trigger}, "actions": [action]}
