"""One platform for the tests of a process: a Prefect server, the warm parents, a project to begin from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.loop.platform import Platform, platform


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """About fifteen seconds, once."""
    with platform(tmp_path_factory.mktemp("loop")) as started:
        yield started
