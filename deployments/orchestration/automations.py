"""Prefect automations: events trigger deployments, and failures notify people.

They are created apart from the deployments, by name: registering a deployment with triggers of its own would remove and
remake them, and forget what they have seen. An automation is changed only when its definition here has changed, so that
one which was switched off in the UI stays off.
"""

from __future__ import annotations

import os
import re
from functools import partial
from typing import Any

from flows.prefect_support import api
from tasks.ground import files

PENDING_MINUTES = 5  # people are notified of a run that is pending for longer

OURS = re.compile(r"\(evergreen ([0-9a-f]{12})\)$")
"""The end of a description: this project made the automation, from the definition with this digest."""

BLOCK = "evergreen-notify"

BURST_SECONDS = 2
"""The first event of a burst fires, the others within these seconds are dropped: the run that the first one asks for
starts when they have passed, so that it sees the effect of all of them."""

AUTOMATION_FAILED = "notify: an automation failed"

Body = dict[str, Any]


def on_event(event: str, resource: str, related: Body | None = None) -> Body:
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


def run_deployment(deployment_id: str, trigger: Body, parameters: Body | None) -> Body:
    """An automation that runs a deployment upon a trigger; parameters None: with the deployment's own."""
    action = {"type": "run-deployment", "source": "selected", "deployment_id": deployment_id}
    return {
        "description": "Starts the flow, which looks at the current state itself",
        "trigger": trigger,
        "actions": [{**action, "parameters": parameters, "schedule_after": BURST_SECONDS}],
    }


def ensure(triggers: dict[str, Body], *, keep: bool = False) -> list[str]:
    """Create and update automations, and those that notify people; gives a line per change.

    Args:
        triggers: title of a deployment → the automation that runs it.
        keep: whether automations of this project that are no longer wanted stay.
    """
    wanted = {name_of(title): body for title, body in triggers.items()}
    if url := notify_url():
        wanted |= _notifications(_block(url))
    existing = {automation["name"]: automation for automation in registered()}
    lines = []
    for name in () if keep else sorted(existing.keys() - wanted.keys()):
        api.call(f"/automations/{existing[name]['id']}", method="DELETE")
        lines.append(f"automation «{name}» removed")
    changes = (_ensure(name, body, existing.get(name)) for name, body in wanted.items())
    return lines + [change for change in changes if change]


def registered() -> list[Body]:
    """The automations of this project, as the server has them."""
    return [each for each in api.call("/automations/filter", {}) if OURS.search(each["description"])]


def name_of(title: str) -> str:
    """The name of the automation that runs a deployment."""
    return f"trigger {title}"


def notify_url() -> str | None:
    """The webhook that people are notified by, if any: the setting EVERGREEN_NOTIFY_URL."""
    return os.environ.get("EVERGREEN_NOTIFY_URL") or None


def _ensure(name: str, body: Body, existing: Body | None) -> str | None:
    definition = files.digest(body)[:12]
    body = {**body, "name": name, "description": f"{body['description']} (evergreen {definition})"}
    if existing is None:
        api.call("/automations/", body)
        return f"automation «{name}» made"
    registered = OURS.search(existing["description"])
    if registered and registered.group(1) == definition:
        return None
    api.call(f"/automations/{existing['id']}", {**body, "enabled": existing["enabled"]}, method="PUT")
    return f"automation «{name}» updated"


# ── notifications ─────────────────────────────────────────────────────────────────────────────────


def _block(url: str) -> str:
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    message = {"subject": "{{subject}}", "text": "{{body}}"}
    block = CustomWebhookNotificationBlock(name="evergreen", url=url, json_data=message)
    return str(block.save(BLOCK, overwrite=True))


def _payload(field: str, missing: str = "?") -> str:
    """A field of the event; a key that is missing without a default would end the action without a word."""
    return f"{{{{ event.payload.{field} | default('{missing}') }}}}"


RUN, LINK = "{{ flow_run.name }}", "{{ flow_run|ui_url }}"
REASON, TEXT = _payload("reason", "no reason given"), _payload("text", "no reason given")
MODEL = _payload("model")


def _notifications(block: str) -> dict[str, Body]:
    notify = partial(_notification, block)
    ended = [f"prefect.flow-run.{state}" for state in ("Running", "Completed", "Failed", "Crashed", "Cancelled")]
    return {
        "notify: a run failed": notify(
            ["prefect.flow-run.Failed", "prefect.flow-run.Crashed"],
            f"{RUN}: {{{{ flow_run.state.name }}}}",
            f"{{{{ flow_run.state.message | default('no reason given', true) }}}}\n{LINK}",
        ),
        "notify: a partition was refused": notify(
            ["evergreen.partition.refused"], f"refused: {_payload('dataset')} {_payload('partition')}", REASON
        ),
        "notify: a release was withdrawn": notify(
            ["evergreen.rollout.withdrawn"], f"withdrawn: {MODEL} version {_payload('version')}", REASON
        ),
        "notify: an alarm was opened": notify(
            ["evergreen.alarm.opened"],
            f"alarm: {MODEL}: {_payload('what')}",
            f"{TEXT}\nTo acknowledge it: evergreen acknowledge {MODEL} {_payload('key')}",
        ),
        "notify: an alarm was closed": notify(["evergreen.alarm.closed"], f"over: {MODEL}: {_payload('what')}", TEXT),
        AUTOMATION_FAILED: notify(
            ["prefect.automation.action.failed"],
            "an automation failed: {{ event.resource.name | default('?') }}",
            f"{REASON}\nThe schedule does what it was to trigger. `evergreen register` restores the automations.",
            # not its own failure, which would notify without end: three times a second, where the block is gone
            match={"prefect.resource.name": f"!{AUTOMATION_FAILED}"},
        ),
        "notify: a run does not start": notify(
            ended,
            f"{RUN} does not start",
            f"It is pending for more than {PENDING_MINUTES} minutes. Is the worker alive (evergreen status)?\n{LINK}",
            posture="Proactive",
            after=["prefect.flow-run.Pending"],
            for_each=["prefect.resource.id"],
            within=PENDING_MINUTES * 60,
        ),
    }


def _notification(block: str, events: list[str], subject: str, text: str, **trigger: Any) -> Body:
    """An automation that sends a message through the block upon these events."""
    action = {"type": "send-notification", "block_document_id": block, "subject": subject, "body": text}
    defaults = {"type": "event", "posture": "Reactive", "threshold": 1, "within": 0, "expect": events}
    about = "Sends a message to EVERGREEN_NOTIFY_URL"
    return {"description": about, "trigger": {**defaults, **trigger}, "actions": [action]}
