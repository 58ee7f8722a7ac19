"""How a command ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tasks.ground import exit_codes
from tests.conftest import Project


@pytest.mark.parametrize("command", [["env"], ["why", "tiny"]])
def test_who_reads_no_more_ends_a_command_without_a_word(small: Project, command: list[str]) -> None:
    """As `head` does: with the exit code that a shell gives for it, whether it prints much or little."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "deployments.cli", *command],
            cwd=small.root,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (exit_codes.BROKEN_PIPE, "")


def test_a_pipe_to_somebody_else_that_breaks_is_no_end_without_a_word() -> None:
    """A socket to a server, say."""

    @exit_codes.command
    def main() -> int:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        main()
