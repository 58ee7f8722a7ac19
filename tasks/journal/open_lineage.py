"""OpenLineage: the lines of the journal as events for a catalogue of lineage (Marquez, DataHub, OpenMetadata).

Off, until one of OpenLineage's own variables names where they go (`OPENLINEAGE_URL`, `OPENLINEAGE__TRANSPORT__…`,
`OPENLINEAGE_CONFIG`). The journal is the queue: what could not be sent is sent later, in order, and nothing that is
written to the journal waits for it. An event may come twice after a kill, with the same run id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from tasks.ground import addresses, files, paths, settings
from tasks.ground.errors import Mistake, SourceUnavailable
from tasks.ground.words import one_line
from tasks.journal import journal, verification
from tasks.journal.journal import Line

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

PRODUCER = "urn:evergreen:journal"
"""OpenLineage asks each event for a URI of what made it."""

SWITCHES = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE__TRANSPORT")
"""A variable whose name begins so says where events go."""

DATA = "data"
"""The data set that holds all partitions; a candidate is one of its own."""

KEPT = 50
"""After so many events it is noted how far they were sent."""


def is_on() -> bool:
    """Whether events go anywhere."""
    return any(name.startswith(SWITCHES) and value for name, value in os.environ.items())


def waiting() -> dict[str, int]:
    """Chain → its newest line, of each that has lines which were not sent; data versions first. No line is read."""
    sent = files.read_state(paths.lineage_sent(), dict[str, int]())
    chains = sorted(verification.chains(), key=lambda chain: (chain != journal.PLATFORM, chain))
    heads = {chain: journal.head_of(chain) for chain in chains}
    return {chain: int(head["number"]) for chain, head in heads.items() if head and head["number"] > sent.get(chain, 0)}


def send() -> int:
    """Send what is new; gives how many events that were.

    Raises:
        Mistake: no variable says where to, or the package is not installed.
        SourceUnavailable: what was not sent is sent by the next call.
    """
    with files.lock("lineage"):
        chains = waiting() if is_on() else _refuse_off()
        client = _client() if chains else None
        return sum(_send(client, chain) for chain in chains) if client else 0


def _send(client: OpenLineageClient, chain: str) -> int:
    sent = files.read_state(paths.lineage_sent(), dict[str, int]())
    new = [line for line in journal.lines(chain) if line.number > sent.get(chain, 0)]
    done = 0
    try:
        for line in new:
            client.emit(event(chain, line))
            done += 1
            if done % KEPT == 0:
                _note(sent, chain, line)
    except Exception as error:  # a transport raises exceptions of its own kind; none is swallowed
        raise SourceUnavailable(
            f"OpenLineage: {done} of {len(new)} events of {chain} were sent: {addresses.masked(one_line(error, 300))}. "
            f"The rest is sent by the next try"
        ) from error
    finally:
        if done:
            _note(sent, chain, new[done - 1])
    return done


def _note(sent: dict[str, int], chain: str, line: Line) -> None:
    sent[chain] = line.number
    files.write_json(paths.lineage_sent(), sent)


def _client() -> OpenLineageClient:
    try:
        from openlineage.client import OpenLineageClient
    except ImportError:
        raise Mistake("OpenLineage's client is not installed: make setup WITH=lineage") from None
    return OpenLineageClient()


def _refuse_off() -> dict[str, int]:
    raise Mistake("nothing says where lineage goes: OPENLINEAGE_URL=http://… (or another of OpenLineage's variables)")


# ── a line as an event ────────────────────────────────────────────────────────────────────────────


def event(chain: str, line: Line) -> RunEvent:
    """What a line says happened: a run that is complete, of the job `<chain>.<kind>`."""
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.generated.tags_run import TagsRunFacet, TagsRunFacetFields

    told = {**_scalars(line.what), "who": line.who, "why": line.why, "flow_run": line.run}
    tags = [TagsRunFacetFields(key, value, "EVERGREEN") for key, value in told.items() if value]
    run = Run(str(uuid5(NAMESPACE_URL, f"{_namespace()}/{chain}/{line.number}")), {"tags": TagsRunFacet(tags)})
    return RunEvent(
        eventTime=line.time,
        producer=PRODUCER,
        eventType=RunState.COMPLETE,
        run=run,
        job=Job(_namespace(), f"{chain}.{line.kind}"),
        inputs=[*_inputs(chain, line)],
        outputs=[*_outputs(chain, line)],
    )


def _namespace() -> str:
    return os.environ.get("OPENLINEAGE_NAMESPACE") or settings.ROOT.name


def _scalars(what: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in what.items() if isinstance(value, str | int | float)}


def _inputs(chain: str, line: Line) -> Iterator[InputDataset]:
    from openlineage.client.event_v2 import InputDataset

    if line.kind == "training" and line.what.get("data"):
        yield InputDataset(_namespace(), DATA, facets=_version(line.what["data"]))
    for role in ("candidate", "challenger", "champion"):
        if line.kind != "training" and isinstance(candidate := line.what.get(role), str) and candidate:
            yield InputDataset(_namespace(), chain, facets=_version(candidate))


def _outputs(chain: str, line: Line) -> Iterator[OutputDataset]:
    from openlineage.client.event_v2 import OutputDataset

    if line.kind == "data" and line.what.get("version"):
        yield OutputDataset(_namespace(), DATA, facets=_version(line.what["version"]))
    if line.kind == "training":
        yield OutputDataset(_namespace(), chain, facets=_version(line.what["candidate"]))


def _version(version: str) -> dict[str, Any]:
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet

    return {"version": DatasetVersionDatasetFacet(version)}
