"""Flow runs that are forked from a process that has imported Prefect already, and what stands for them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deployments.local import services
from tasks.ground import http
from tests.deployments.conftest import until

ROOT = Path(__file__).parents[3]

PROBE = """
import os, signal, sys, threading, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
open(sys.argv[1], "w").write(" ".join([str(os.getpid()), os.environ["COLOUR"], os.getcwd(), *map(str, sys.argv[2:])]))
print("heard", "prefect.flow_engine" in sys.modules, flush=True)
threading.Thread(target=lambda: [time.sleep(0.3), open("late", "w").close()]).start()
if "sleep" in sys.argv: time.sleep(60)
sys.exit(3)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder; its name is longer than a socket's may be."""
    folder = tmp_path_factory.mktemp("fork") / ("long" * 30)
    folder.mkdir()
    (folder / "deployments").symlink_to(ROOT / "deployments")
    return folder


@pytest.fixture
def root(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, with a module that can be run, and nothing that another run has left."""
    for path in ("out", "late", "var/log/flows.log"):
        (folder / path).unlink(missing_ok=True)
    (folder / "probe.py").write_text(PROBE)
    monkeypatch.setenv("EVERGREEN_ROOT", str(folder))
    monkeypatch.setenv("COLOUR", "green")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def servers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """The fork servers that were started, the newest last."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for server in started:
        server.kill()
        server.wait()


@pytest.fixture
def forkserver(root: Path, servers: list[subprocess.Popen[bytes]]) -> psutil.Process:
    """The fork server, as the platform starts it, once it listens; another one where a test has killed the last."""
    if not servers or servers[-1].poll() is not None:
        (service,) = [one for one in services.local_services() if one.name == "forkserver"]
        servers.append(subprocess.Popen(service.command, cwd=root))
        until(lambda: http.hears(Path("var/run/flows.sock")), 120, "the fork server")
    return psutil.Process(servers[-1].pid)


def begin(*arguments: str) -> subprocess.Popen[bytes]:
    """Start what stands for a run of the module."""
    return subprocess.Popen([sys.executable, "-m", "deployments.orchestration.flow_run", "probe", "out", *arguments])


def said() -> list[str]:
    """What the module has written, once it has."""
    path = Path("out")
    return str(until(lambda: path.exists() and path.read_text(), 20, "the module")).split(" ")


@pytest.mark.usefixtures("forkserver")
def test_a_run_is_forked_and_is_what_was_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arguments, environment, folder, exit code and output; what it still has to do at its end is done."""
    monkeypatch.setenv("COLOUR", "red")
    run = begin("a", "b c")
    assert run.wait(20) == 3
    pid, *rest = said()
    assert int(pid) != run.pid
    assert rest == ["red", str(root), "a", "b", "c"]
    assert (root / "var/log/flows.log").read_text() == "heard True\n"
    assert (root / "late").exists()


@pytest.mark.usefixtures("forkserver")
def test_the_code_is_what_the_checkout_says_now(root: Path) -> None:
    """Nothing of it was imported ahead."""
    assert begin().wait(20) == 3
    (root / "probe.py").write_text("import sys; sys.exit(4)")
    assert begin().wait(20) == 4


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor cannot be left to others")
@pytest.mark.usefixtures("forkserver")
def test_a_rollout_leaves_a_processor(root: Path) -> None:
    """To what serves; another run takes all."""
    code = "import os, sys; open(sys.argv[1], 'w').write(str(len(os.sched_getaffinity(0))))"
    (root / "probe.py").write_text(code)
    for aside, fewer in (([], 0), (["--aside"], 1)):
        subprocess.run([sys.executable, "-m", "deployments.orchestration.flow_run", *aside, "probe", "out"], check=True)
        assert int(said()[0]) == len(os.sched_getaffinity(0)) - fewer


@pytest.mark.usefixtures("root", "forkserver")
@pytest.mark.parametrize(("told", "code"), [(signal.SIGTERM, 7), (signal.SIGKILL, -9)])
def test_what_happens_to_one_happens_to_the_other(told: signal.Signals, code: int) -> None:
    """A cancelled run may tidy up, a killed one is gone."""
    run = begin("sleep")
    child = psutil.Process(int(said()[0]))
    time.sleep(0.2)
    os.kill(run.pid, told)
    assert run.wait(20) == code
    child.wait(20)
    assert not child.is_running()


@pytest.mark.usefixtures("forkserver")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_run_has_started_ends_with_it(root: Path, how: signal.Signals) -> None:
    """Nothing works on where somebody has cancelled a run."""
    code = "import subprocess, sys, time; started = subprocess.Popen(['sleep', '600'])"
    code += "; open(sys.argv[1], 'w').write(str(started.pid)); time.sleep(60)"
    (root / "probe.py").write_text(code)
    run = begin()
    started = psutil.Process(int(said()[0]))
    os.kill(run.pid, how)
    assert run.wait(20) == -signal.SIGKILL
    started.wait(20)
    assert not started.is_running()


@pytest.mark.usefixtures("root", "forkserver")
def test_the_socket_is_made_again_where_somebody_removed_it(forkserver: psutil.Process) -> None:
    """With all of var/run."""
    shutil.rmtree("var/run")
    until(lambda: http.hears(Path("var/run/flows.sock")), 20, "the socket")
    assert forkserver.is_running()
    run = begin()
    assert run.wait(20) == 3
    assert int(said()[0]) != run.pid


@pytest.mark.usefixtures("root", "forkserver")
def test_a_killed_run_is_told_as_killed() -> None:
    """Prefect's worker tells so, too."""
    run = begin("sleep")
    os.kill(int(said()[0]), signal.SIGKILL)
    assert run.wait(20) == -signal.SIGKILL


@pytest.mark.usefixtures("root")
def test_runs_outlive_the_fork_server(forkserver: psutil.Process) -> None:
    """And end as they would have."""
    run = begin("sleep")
    child = int(said()[0])
    forkserver.kill()
    forkserver.wait(20)
    time.sleep(0.2)
    assert run.poll() is None
    os.kill(child, signal.SIGTERM)
    assert run.wait(20) == 7


def test_without_a_fork_server_it_runs_by_itself(root: Path, servers: list[subprocess.Popen[bytes]]) -> None:
    """In the process that was started."""
    for server in servers:
        server.kill()
        server.wait()
    run = begin()
    assert run.wait(20) == 3
    assert int(said()[0]) == run.pid
    assert (root / "var/log/flows.log").read_text() == "heard False\n"


@pytest.mark.usefixtures("root")
def test_a_fork_server_that_stands_still_holds_nobody_up(forkserver: psutil.Process) -> None:
    """The run begins by itself; when the forkserver is heard of again, nothing runs twice."""
    forkserver.suspend()
    assert not http.hears(Path("var/run/flows.sock"))
    code = (
        "import os, sys; sys.path[0] = os.getcwd(); from deployments.orchestration import flow_run;"
        "flow_run.PATIENCE_S = 0.5; sys.argv = ['flow_run', 'probe', 'out']; flow_run.main()"
    )
    run = subprocess.Popen([sys.executable, "-c", code])
    assert run.wait(20) == 3
    assert int(said()[0]) == run.pid
    Path("out").unlink()
    forkserver.resume()
    with socket.socket(socket.AF_UNIX) as garbage:
        garbage.connect("var/run/flows.sock")
        garbage.sendall(b"[]\n")
        assert not garbage.recv(1)
    until(lambda: not forkserver.children(), 20, "the end of what was forked for nobody")
    assert not Path("out").exists()
    assert forkserver.is_running()


@pytest.mark.usefixtures("root")
def test_other_packages_want_another_fork_server(forkserver: psutil.Process, tmp_path: Path) -> None:
    """What is imported already is no longer what is installed: the run begins without it, and it ends."""
    packages = tmp_path / "packages"
    packages.mkdir()
    forkserver.kill()
    forkserver.wait(20)
    code = (
        "import sysconfig; from pathlib import Path; from deployments.orchestration import flow_fork_server as server;"
        f"sysconfig.get_path = lambda _: {str(packages)!r}; server.PRELOADED = ();"
        "server.main(Path('var/run/flows.sock'))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        until(lambda: http.hears(Path("var/run/flows.sock")), 30, "another fork server")
        (packages / "new").mkdir()
        run = begin()
        assert run.wait(20) == 3
        assert int(said()[0]) == run.pid
        assert other.wait(20) == 0
