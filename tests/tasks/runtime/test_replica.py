"""A replica: frames in, frames out, and the prediction log between them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline

from tasks.release.package import package
from tasks.runtime import inference_body, predictor, replica
from tasks.runtime.ordinal_codes import Codes
from tasks.runtime.replica import EXPLAIN, INFER, PREDICT, REPLY, REQUEST, STATISTICS, TRY
from tests import releases
from tests.releases import CATEGORIES, NUMBERS, frame, rows

ROW: dict[str, Any] = {"place": "north", "kind": "a", "hour": 6, "size": 0.25}
BODY = json.dumps({"rows": [ROW]}).encode()


def asked(number: int, body: bytes = BODY, kind: int = PREDICT, key: str = "", name: str = "") -> bytes:
    """A frame to a replica."""
    named, keyed = (name or f"r{number}").encode(), key.encode()
    held = named + keyed + body
    return REQUEST.pack(len(held), kind, number, time.time(), len(named), len(keyed)) + held


# ── frames ────────────────────────────────────────────────────────────────────────────────────────


FRAMES = [asked(1), asked(2, b"", EXPLAIN), asked(3, b"x" * 300, TRY, key="é", name="n" * 255), asked(2**63)]


def pumped(*pieces: bytes, slowly: bool = True) -> list[list[replica.RequestFrame]]:
    """What is read where somebody sends pieces, and pauses between them."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        with ours:
            for piece in pieces:
                ours.sendall(piece)
                if slowly:
                    time.sleep(0.0005)

    with ThreadPoolExecutor(1) as sender, theirs:
        sent = sender.submit(send)
        batches = list(replica._batches(theirs))
        sent.result()
    return batches


def flat(found: list[list[replica.RequestFrame]]) -> list[tuple[int, int, str, str | None, bytes]]:
    """Requests, however they were batched."""
    return [(one.kind, one.number, one.name, one.key, one.body) for batch in found for one in batch]


EXPECTED = [
    (PREDICT, 1, "r1", None, BODY),
    (EXPLAIN, 2, "r2", None, b""),
    (TRY, 3, "n" * 255, "é", b"x" * 300),
    (PREDICT, 2**63, f"r{2**63}", None, BODY),
]


@pytest.mark.slow
def test_frames_may_be_cut_at_any_byte() -> None:
    """The socket owes nobody whole frames."""
    stream = b"".join(FRAMES)
    for cut in range(1, len(stream), 7):
        assert flat(pumped(stream[:cut], stream[cut:])) == EXPECTED


def test_frames_may_come_byte_by_byte_or_all_at_once() -> None:
    """What is there is one batch."""
    stream = b"".join(FRAMES)
    assert flat(pumped(*(stream[i : i + 1] for i in range(len(stream))), slowly=False)) == EXPECTED
    assert [len(batch) for batch in pumped(stream)] == [4]


def test_a_frame_larger_than_a_batch_is_read_whole() -> None:
    """And what follows it is not lost."""
    large = os.urandom(3 * replica.LARGEST_BATCH)
    found = flat(pumped(asked(1, large) + asked(2), slowly=False))
    assert [(number, len(body)) for _, number, _, _, body in found] == [(1, len(large)), (2, len(BODY))]
    assert found[0][4] == large


def test_half_a_frame_is_nobodys_request() -> None:
    """A router that dies in the middle of one has asked nothing."""
    assert flat(pumped(asked(1) + asked(2)[:-1])) == [EXPECTED[0]]


# ── the log ───────────────────────────────────────────────────────────────────────────────────────


def request(number: int, key: str | None = None) -> replica.RequestFrame:
    """A request that arrived 5 ms ago."""
    return replica.RequestFrame(PREDICT, number, time.time() - 0.005, f"r{number}", key, b"")


LOGGED = '{"ids":["a"],"keys":null,"rows":[{"place":"ø"}],"predictions":[{"prediction":1}]}'
ANSWER = predictor.Answer(200, b"", LOGGED[1:-1].encode())


@pytest.fixture
def log(tmp_path: Path) -> Iterator[replica.PredictionLog]:
    """An empty one."""
    kept = replica.PredictionLog(tmp_path / "incoming", "small", "97a3", "3")
    yield kept
    kept._close()


def written(folder: Path) -> dict[Path, list[Any]]:
    """Log file → its lines."""
    return {path: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.glob("*/*.jsonl")}


def test_a_line_holds_what_was_asked_by_whom_when_and_what_was_answered(log: replica.PredictionLog) -> None:
    """In this order: whoever looks for a request need not parse the rows."""
    log.write([(request(1, 'cl"ient'), ANSWER)])
    ((path, lines),) = written(log.folder).items()
    said = lines[0]
    assert list(said) == ["request", "time", "ms", *("model", "version", "release", "key"), *json.loads(LOGGED)]
    assert (said["request"], said["key"], said["rows"]) == ("r1", 'cl"ient', [{"place": "ø"}])
    assert (said["model"], said["version"], said["release"]) == ("small", "3", "97a3")
    assert 5 <= said["ms"] < 1000
    assert said["time"].endswith("Z")
    assert abs(datetime.fromisoformat(said["time"]).timestamp() - time.time()) < 2
    assert path.parent.name == said["time"][:10]
    assert path.name.startswith(f"97a3.{os.getpid()}.")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_tells_the_time_that_the_client_gave(log: replica.PredictionLog) -> None:
    """In UTC; it lies in the file of today all the same."""
    asked_at = datetime.fromisoformat("2013-06-03T01:00:00.25+02:00")
    log.write([(request(1), predictor.Answer(200, b"", ANSWER.logged, asked_at))])
    ((path, lines),) = written(log.folder).items()
    assert lines[0]["time"] == "2013-06-02T23:00:00.250000Z"
    assert path.parent.name == time.strftime("%Y-%m-%d", time.gmtime())


def test_a_batch_is_one_write(log: replica.PredictionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """So no process that is killed leaves a batch half answered and half logged."""
    sizes = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: sizes.append(len(data)) or write(file, data))
    log.write([(request(n), ANSWER) for n in range(50)])
    log.write([(request(n), ANSWER) for n in range(50, 60)])
    log.write([])
    ((path, lines),) = written(log.folder).items()
    assert len(sizes) == 2
    assert sum(sizes) == path.stat().st_size
    assert [one["request"] for one in lines] == [f"r{n}" for n in range(60)]


def test_a_file_that_is_large_is_closed_and_the_next_one_begun(
    log: replica.PredictionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the batch that made it so; each line is in one of them."""
    monkeypatch.setattr(replica, "LARGEST_LOG", 1500)
    for n in range(40):
        log.write([(request(n), ANSWER)])
    files = written(log.folder)
    assert len(files) > 4
    assert all(path.stat().st_size < 2000 for path in files)
    assert sorted((one["request"] for lines in files.values() for one in lines), key=lambda r: int(r[1:])) == [
        f"r{n}" for n in range(40)
    ]


def test_a_new_day_gets_a_new_file_in_a_new_folder(log: replica.PredictionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The day is the one of the answer, in UTC, wherever the machine is."""
    clock = [1795305599.9]  # 2026-11-21T23:59:59.9Z
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: clock[0])
    try:
        log.write([(request(1), ANSWER)])
        clock[0] += 0.2
        log.write([(request(2), ANSWER), (request(3), ANSWER)])
    finally:
        monkeypatch.undo()
        time.tzset()
    held = {path.parent.name: [one["request"] for one in lines] for path, lines in written(log.folder).items()}
    assert held == {"2026-11-21": ["r1"], "2026-11-22": ["r2", "r3"]}


def test_a_file_that_somebody_removed_is_begun_again(log: replica.PredictionLog) -> None:
    """What is written into a file without a name is lost with its process."""
    log.write([(request(1), ANSWER)])
    shutil.rmtree(log.folder)
    log.write([(request(2), ANSWER)])
    ((_, lines),) = written(log.folder).items()
    assert [one["request"] for one in lines] == ["r2"]


def test_a_full_disk_costs_lines_and_says_so_and_nothing_is_half_written(
    log: replica.PredictionLog, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A write that comes up short is taken back; the next batch is tried again; what was kept stays whole."""
    log.write([(request(1), ANSWER)])
    write, room = os.write, [150]

    def limited(file: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = write(file, data[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", limited)
    for n in (2, 3, 4):
        log.write([(request(n), ANSWER), (request(n + 10), ANSWER)])
        assert log.trouble == f"[Errno {errno.ENOSPC}] No space left on device"
    assert log.lost == 6
    monkeypatch.undo()
    log.write([(request(5), ANSWER)])
    assert (log.trouble, log.lost) == (None, 6)
    held = written(log.folder)
    assert sorted(one["request"] for lines in held.values() for one in lines) == ["r1", "r5"]
    assert len(held) == 2, "a batch that could not be kept leaves no empty file"
    assert capfd.readouterr().err.count("the prediction log cannot be written") == 1, "told once, not each time"


def test_a_folder_that_cannot_be_made_costs_lines_and_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do the words about it that go to the same disk: what a replica says is in a file as well."""
    (tmp_path / "incoming").write_text("a file")
    with Path("/dev/full").open("w", encoding="utf-8", buffering=1) as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", full)
        log = replica.PredictionLog(tmp_path / "incoming", "small", "97a3", None)
        log.write([(request(1), ANSWER)])
        with contextlib.suppress(OSError):
            full.close()
    assert log.lost == 1
    assert "incoming" in str(log.trouble)


# ── the process ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with all the code that it needs."""
    folder = tmp_path_factory.mktemp("release")
    learnt = rows(300)
    label = np.array([row["hour"] > 11 for row in learnt]).astype(int)
    trees = HistGradientBoostingClassifier(max_iter=3)
    pipeline = Pipeline([("columns", Codes(CATEGORIES, NUMBERS)), ("trees", trees)]).fit(frame(learnt), label)
    releases.write(folder, pipeline, "classification", [0, 1])
    for source, target in package.sources("flight_delay").items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / target)
    return folder


@dataclass
class Running:
    """A replica's process, and our end of its socket."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    log: Path
    said: Path

    def send(self, *frames: bytes) -> None:
        """All at once."""
        self.socket.sendall(b"".join(frames))

    def frame(self) -> tuple[int, int, bytes]:
        """The next status, number and body."""
        length, status, number = REPLY.unpack(self._exactly(REPLY.size))
        return status, number, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        held = b""
        while len(held) < size:
            came = self.socket.recv(size - len(held))
            assert came, f"the replica is gone: {self.said.read_text()}"
            held += came
        return held

    def answers(self, number: int) -> tuple[dict[int, tuple[int, Any]], dict[str, Any]]:
        """Number → status and body of so many; and what was said of the statistics last."""
        found, statistics = {}, {}
        while len(found) < number:
            status, which, body = self.frame()
            if which:
                found[which] = status, json.loads(body)
            else:
                assert status == STATISTICS
                statistics = json.loads(body)
        return found, statistics

    def statistics(self) -> dict[str, Any]:
        """Those of a batch come after its answers."""
        status, number, body = self.frame()
        assert (status, number) == (STATISTICS, 0)
        return dict(json.loads(body))


@pytest.fixture
def start(release: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts a replica, as the router would, in an interpreter of its own."""
    begun: list[Running] = []

    def begin(folder: Path = release, **more: Any) -> Running:
        ours, theirs = socket.socketpair()
        ours.settimeout(60)
        said = tmp_path / f"said-{len(begun)}"
        script = folder / "tasks" / "runtime" / "replica.py"
        line = [sys.executable, "-I", str(script), "--fd", str(theirs.fileno()), "--version", "3"]
        with theirs, said.open("wb") as words:
            process = subprocess.Popen(
                [*line, "--log", str(tmp_path / "incoming")], pass_fds=[theirs.fileno()], stderr=words, **more
            )
        begun.append(Running(process, ours, tmp_path / "incoming", said))
        return begun[-1]

    yield begin
    for running in begun:
        running.process.kill()
        running.process.wait()
        running.socket.close()


def test_the_first_frame_says_that_it_is_ready_and_who_it_is(start: Callable[..., Running], release: Path) -> None:
    """The protocol, the candidate, and what `GET /schema` will answer."""
    status, number, body = start().frame()
    said = json.loads(body)
    assert (status, number, said["protocol"]) == (200, 0, replica.PROTOCOL)
    assert said["candidate"] == "0123456789abcdef"
    assert set(said["schemas"]) == {"predict", "explain", "infer"}
    assert [one["name"] for one in said["tensors"]["inputs"]] == list(ROW)
    assert said["edges"] == [0.25, 0.5, 0.75]
    assert said["model_sha256"] == json.loads((release / "release.json").read_text())["model_sha256"]


def test_answers_have_the_numbers_of_what_was_asked_and_only_what_was_answered_is_logged(
    start: Callable[..., Running],
) -> None:
    """Refused requests are not, nor an operator's, nor explanations; all kinds may be in one batch."""
    running = start()
    running.frame()
    bad = json.dumps({"rows": [{**ROW, "hour": 99}]}).encode()
    explain = json.dumps({"row": ROW}).encode()
    unseen = json.dumps({"rows": [{**ROW, "place": "nowhere"}, ROW]}).encode()
    running.send(asked(7), asked(8, bad), asked(9, kind=TRY), asked(10, explain, EXPLAIN), asked(11, unseen, key="k"))
    found, _ = running.answers(5)
    statistics = running.statistics()
    assert {number: status for number, (status, _) in found.items()} == {7: 200, 8: 400, 9: 200, 10: 200, 11: 200}
    assert found[7][1]["version"] == "3"
    assert "contributions" in found[10][1]
    ((_, lines),) = written(running.log).items()
    assert [(one["request"], one["key"], len(one["rows"])) for one in lines] == [("r7", None, 1), ("r11", "k", 2)]
    for number, line in zip((7, 11), lines, strict=True):
        assert line["ids"] == [one["id"] for one in found[number][1]["predictions"]]
    assert sum(statistics["counts"]) == 3
    assert statistics["unseen"] == {"place": 1}
    assert (statistics["log"], statistics["lost"]) == (None, 0)


def test_a_request_maps_no_memory(start: Callable[..., Running]) -> None:
    """`recv` of a megabyte allocates one: that cost a fifth of a request, where no import had widened the heap."""
    running = start()
    running.frame()

    def ask(count: int) -> int:
        for number in range(1, count + 1):
            running.send(asked(number))
            running.answers(1)
            running.statistics()
        stat = Path(f"/proc/{running.process.pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[7])  # minflt, see proc(5)

    warm = ask(100)
    assert ask(200) - warm < 100, "half a page fault a request; it was two"


def test_tensors_and_rows_may_be_in_one_batch(start: Callable[..., Running]) -> None:
    """Each gets its answer as it asked, and both are logged; tensors that are wrong end nothing."""
    running = start()
    running.frame()
    kinds = {"place": "BYTES", "kind": "BYTES", "hour": "INT64", "size": "FP64"}
    inputs = [{"name": name, "shape": [1], "datatype": kinds[name], "data": [ROW[name]]} for name in ROW]
    tensors = [json.dumps({"inputs": given}).encode() for given in (inputs, inputs[1:] * 2)]
    packed = [inference_body.pack(len(text), text) for text in tensors]
    running.send(asked(1), asked(2, packed[0], INFER), asked(3, packed[1], INFER), asked(4))
    replies: dict[int, tuple[int, bytes]] = {}
    while len(replies) < 4:
        status, number, body = running.frame()
        replies |= {number: (status, body)} if number else {}
    assert {number: status for number, (status, _) in replies.items()} == {1: 200, 2: 200, 3: 400, 4: 200}
    probability = json.loads(replies[1][1])["predictions"][0]["probability"]
    outputs = {one["name"]: one["data"] for one in json.loads(inference_body.unpack(replies[2][1])[1])["outputs"]}
    assert outputs["probability"] == [probability]
    assert b"kind: comes twice: send each tensor once" in replies[3][1]
    ((_, lines),) = written(running.log).items()
    assert sorted(line["request"] for line in lines) == ["r1", "r2", "r4"]


def test_nothing_is_logged_where_everything_is_refused(start: Callable[..., Running]) -> None:
    """Not even a folder is made."""
    running = start()
    running.frame()
    running.send(asked(1, b"{"), asked(2, b'{"rows": []}'))
    found, _ = running.answers(2)
    assert [status for status, _ in found.values()] == [400, 400]
    assert not running.log.exists()


def test_a_disk_that_is_full_costs_no_answer_and_the_router_is_told(start: Callable[..., Running]) -> None:
    """With what was lost; a disk that has room again is used again."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY))

    running = start(preexec_fn=limit)
    running.frame()
    statistics = {}
    for number in range(1, 5):
        running.send(asked(number, json.dumps({"rows": [ROW] * 4}).encode()))
        found, _ = running.answers(1)
        assert found[number][0] == 200
        statistics = running.statistics()
    assert statistics["lost"] == 4
    assert statistics["log"]
    assert sum(statistics["counts"]) == 16
    assert "the prediction log cannot be written" in running.said.read_text()
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    running.send(asked(5))
    running.answers(1)
    assert running.statistics() | {"counts": 0} == {"counts": 0, "unseen": {}, "log": None, "lost": 4}
    assert [one["request"] for lines in written(running.log).values() for one in lines] == ["r5"], (
        "no half line is left"
    )


def test_it_ends_when_the_router_is_gone_and_not_by_ctrl_c(start: Callable[..., Running]) -> None:
    """Ctrl-C reaches the whole group; the router lets its replicas finish."""
    running = start()
    running.frame()
    running.process.send_signal(signal.SIGINT)
    running.send(asked(1))
    assert running.answers(1)[0][1][0] == 200
    running.socket.close()
    assert running.process.wait(20) == 0


@pytest.mark.slow
def test_what_was_answered_is_in_the_log_whenever_it_is_killed(start: Callable[..., Running]) -> None:
    """Between any two writes of the kernel; what was logged and not answered may be there as well."""
    known: set[str] = set()
    for round_ in range(3):
        running = start()
        running.frame()
        running.send(*(asked(number, name=f"{round_}-{number}") for number in range(1, 2000)))
        running.socket.settimeout(20)
        before = len(known)
        with contextlib.suppress(AssertionError, ConnectionError):  # all that it had sent is read
            while True:
                _, number, body = running.frame()
                if number:
                    known |= {one["id"] for one in json.loads(body)["predictions"]}
                if len(known) - before == 200 * (round_ + 1):
                    running.process.kill()
                    running.process.wait()
    kept = set()
    for path in running.log.glob("*/*.jsonl"):
        for line in path.read_bytes().split(b"\n")[:-1]:
            kept |= set(json.loads(line)["ids"])
    assert len(known) >= 1200
    assert known <= kept


def test_a_release_that_cannot_start_says_why(start: Callable[..., Running], release: Path, tmp_path: Path) -> None:
    """On its standard error, which the router reads."""
    broken = shutil.copytree(release, tmp_path / "broken")
    (broken / "model.skops").write_bytes(b"no")
    running = start(broken)
    assert running.process.wait(60) == 1
    assert "was changed after it was packaged" in running.said.read_text()


def test_a_frame_says_its_head_in_the_order_of_the_network() -> None:
    """A router of today speaks to a replica of last year: PROTOCOL must change with these."""
    assert (replica.PROTOCOL, REQUEST.format, REPLY.format) == (1, "!IBQdBB", "!IHQ")
    assert struct.calcsize("!IBQdBB") == 23
