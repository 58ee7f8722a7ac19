"""Files and folders here or in a bucket: an address is shown without its credentials, a file is written whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.ground import storage
from tasks.ground.errors import SourceUnavailable
from tests.conftest import Project


def test_an_address_that_no_client_is_for_is_one_error(project: Project) -> None:
    """It names the address, without credentials, and what to do."""
    with pytest.raises(SourceUnavailable, match=r"the landing zone gopher://\*\*\*@host cannot be reached.*Look there"):
        storage.Location.of("gopher://key:secret@host", label="the landing zone ", advice="Look there")


def test_a_location_here_is_written_whole_and_read_back(project: Project) -> None:
    """Relative to the project; hidden and unfinished files are not listed."""
    folder = storage.Location.of("var/landing")
    (folder / "flights" / "2013-01.csv").write_bytes(b"a,b\n")
    for name in (".hidden.csv", "2013-02.csv.part"):
        Path(project.root / "var/landing/flights" / name).write_bytes(b"x")
    assert list(folder.files()) == ["flights/2013-01.csv"]
    assert (folder / "flights").names() == [".hidden.csv", "2013-01.csv", "2013-02.csv.part"]
    assert (folder / "flights/2013-01.csv").read() == b"a,b\n"
    assert folder.shown == "var/landing"
    (folder / "flights").remove()
    assert not (folder / "flights").exists()
