"""The landing watcher on a bucket, as its own process: a real S3 API, a real Prefect server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.local import servers
from flows.prefect_support import api
from tasks.ground import settings
from tests.deployments.alone import Alone, server
from tests.deployments.conftest import until

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

SECRET = "s3cr3t-of-nobody"


@pytest.fixture(scope="module")
def alone(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """A project whose landing zone is in a bucket, on a server of this machine that speaks S3."""
    from moto.server import ThreadedMotoServer

    speaks_s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    speaks_s3.start()
    host, port = speaks_s3.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        given = {
            "AWS_ACCESS_KEY_ID": "AKIAOFNOBODY",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for name, value in {**given, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        with server(small_copied, tmp_path_factory.mktemp("bucket") / "project") as alone:
            alone.project.edit("params.yaml", "landing: var/landing", "landing: s3://watched/landing")
            yield alone
    speaks_s3.stop()


@pytest.fixture
def bucket(alone: Alone) -> Iterator[Any]:
    """The bucket's own client."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    yield s3fs.S3FileSystem()
    s3fs.S3FileSystem.clear_instance_cache()


def triggered() -> list[dict[str, Any]]:
    """The runs of ingest that somebody asked for."""
    runs = api.call("/flow_runs/filter", {"deployments": {"name": {"any_": ["ingest"]}}})
    return [one for one in runs if not one["auto_scheduled"]]


def end(run: dict[str, Any]) -> None:
    """As ingest would end that took nothing in."""
    api.call(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "COMPLETED"}, "force": True})


def test_an_object_that_appears_in_the_bucket_triggers_ingest(alone: Alone, bucket: Any) -> None:
    """A missing bucket is reported once; an empty one triggers nothing; then one object, and then another, does."""
    story = settings.VAR / "log" / "watch.log"
    deployment = api.call("/deployments/name/ingest/ingest")
    for schedule in deployment[
        "schedules"
    ]:  # a run of the clock that is due, and that no worker begins, is a trigger too
        api.call(f"/deployments/{deployment['id']}/schedules/{schedule['id']}", {"active": False}, method="PATCH")
    with servers.process([sys.executable, "-u", "-m", "deployments.watching.watcher"], "watch") as running:
        until(lambda: "SourceUnavailable: the landing zone s3://watched/landing" in story.read_text(), 60)
        bucket.mkdir("watched")
        until(lambda: "all is well again" in story.read_text(), 60)
        assert triggered() == []
        bucket.pipe_file("watched/landing/readings/2013-04.csv.part", b"half")
        bucket.pipe_file("watched/landing/readings/2013-04.csv", b"whole")
        until(triggered, 60, "ingest is triggered")
        assert "readings/2013-04.csv in the landing zone: ingest is triggered" in story.read_text()
        end(triggered()[0])
        bucket.pipe_file("watched/landing/readings/2013-05.csv", b"whole")
        until(lambda: "readings/2013-05.csv in the landing zone: ingest is triggered" in story.read_text(), 60)
        assert running.poll() is None
    assert story.read_text().count("SourceUnavailable") == 1
    assert SECRET not in story.read_text()
