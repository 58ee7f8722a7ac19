"""Settings: where the project keeps its state, and the environment of every tool.

`environment()` is what `make shell` exports, and what every way in (`evergreen`, `python -m tasks`, the flows)
applies to its own process and those it starts. A variable that is already set wins, so one setting moves a store to a
real server: `MLFLOW_TRACKING_URI=https://… make run`. Only `arithmetic()` is not up to the shell: it decides what a
model is, bit by bit (docs/decisions/arithmetic.md).
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path

OWN = Path(__file__).resolve().parents[2]
"""The checkout that this file is part of."""


def _root() -> Path:
    """The folder that EVERGREEN_ROOT names; but a checkout is worked on by its own code, wherever a shell points."""
    named = os.environ.get("EVERGREEN_ROOT")
    return Path(named) if named and not (Path(named) / "tasks" / "ground" / "settings.py").exists() else OWN


def _var(root: Path) -> Path:
    """The state of a project; an experiment that DVC runs in a folder of its own uses that of its project."""
    return (_project_of_experiment(root) or root) / "var"


def _project_of_experiment(root: Path) -> Path | None:
    """`dvc exp run --temp` makes its folders below `.dvc/tmp/exps` of the project."""
    project, _, below = str(root).partition(f"{os.sep}.dvc{os.sep}tmp{os.sep}exps{os.sep}")
    return Path(project) if below else None


ROOT = _root()
"""The project that is worked on."""

BUILD = ROOT / "build"
"""What stages make. Nothing in it is a source: `rm -rf build` loses no version."""

VAR = _var(ROOT)
"""What services keep: databases, logs, releases, memos."""

STATE_VERSION = 3
"""The layout of `var/` that this build reads and writes (docs/reference/state.md). 1: builds that wrote no version."""

MIGRATION = "tasks.journal.migration"
"""What brings older state up to it; named and not imported, as the ground knows nothing that stands on it."""

UMASK = "EVERGREEN_UMASK"
"""Environment variable: the user's own umask, for files that are no state of the project."""


def environment() -> dict[str, str]:
    """Every variable the project's tools need, with its default."""
    return _environment(ROOT, VAR)


def _environment(root: Path, var: Path) -> dict[str, str]:
    prefect_port = os.environ.get("PREFECT_SERVER_API_PORT", "4200")
    store = f"sqlite:///{var / 'mlflow' / 'mlflow.db'}"
    return {
        "EVERGREEN_ROOT": str(root),
        "PYTHONPATH": str(root),
        "PATH": os.pathsep.join([*_commands(root), os.environ.get("PATH", "")]),
        # where each tool's state is
        "PREFECT_HOME": str(var / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect_port}/api",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": prefect_port,
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_BACKEND_STORE_URI": os.environ.get("MLFLOW_TRACKING_URI") or store,  # `mlflow ui` reads no other name
        "MLFLOW_PORT": "5000",
        "EVERGREEN_ENGINE": "local",  # who does what is wide: see tasks/engine/engine.py
        "EVERGREEN_HOST": "127.0.0.1",
        "EVERGREEN_PORT": "3000",
        "EVERGREEN_OPEN_PAGES": "",  # of the router, open beside API keys: status, metrics, openapi.json
        "EVERGREEN_MAX_AHEAD_S": "300",  # so far may a request's `time` be ahead of the clock: see request_schema.py
        "EVERGREEN_ORIGINS": "",  # sites whose pages may call the router from a browser; * for each
        "BENTOML_HOME": str(var / "bentoml"),
        "BENTOML_HOST": "127.0.0.1",
        "DVC_SITE_CACHE_DIR": str(var / "dvc"),
        # telemetry off
        "DO_NOT_TRACK": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "BENTOML_DO_NOT_TRACK": "True",
        "DVC_NO_ANALYTICS": "1",
        "DVC_STUDIO_OFFLINE": "1",
        "GX_ANALYTICS_ENABLED": "false",
        # a server restart must not kill runs that hold a concurrency slot: by default leases are kept in memory
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        # a trigger starts a run within seconds: a worker asks the server this often for due runs
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        # a flow's own log; Prefect's about itself from WARNING on
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
        "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s  %(flow_run_name)s  %(message)s",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s  %(flow_run_name)s  %(message)s",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MPLBACKEND": "Agg",
        **arithmetic(),
    }


def _commands(root: Path) -> list[str]:
    return [str(root / "bin"), str(root / ".venv" / "bin")]


def arithmetic() -> dict[str, str]:
    """What makes every x86-64 processor with AVX2 compute the same bits: no wider instructions, one kernel, one thread.

    A library is asked to leave out what it has for newer processors only: numpy's AVX-512 `exp` differs from the
    others' in the last bit, and so does a tree that learns from it. On any other processor only the threads are set.
    """
    # Sums that are split among threads round otherwise. What may have more of them all the same gets them for itself
    # (tasks/training/fit_threads.py); where threads spin while they wait, a fit beside other work takes times as long.
    threads = os.environ.get("EVERGREEN_THREADS", "1")
    pinned = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    if has_avx2():
        pinned |= {
            "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
            "OPENBLAS_CORETYPE": "Haswell",
            "ARROW_USER_SIMD_LEVEL": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own loops; its products of matrices are MKL's …
            "MKL_CBWR": "COMPATIBLE",  # … which otherwise has other sums for AMD than for Intel
        }
    return pinned


@cache
def has_avx2() -> bool:
    """Whether this is a Linux machine whose x86-64 processor has AVX2 and FMA, as all since 2015 have."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return False
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as lines:
            flags = next((line.split() for line in lines if line.startswith("flags")), [])
    except OSError:  # another system than Linux
        return False
    return {"avx2", "fma"} <= set(flags)


def apply() -> None:
    """Make this process, and those it starts, use the project's state. What is already set stays, arithmetic apart.

    Raises:
        SystemExit: a newer build has written the state.
    """
    _forget_another_checkout()
    for name, value in environment().items():
        os.environ.setdefault(name, value)
    os.environ.update(arithmetic())
    _keep_state_private()
    _check_state_version()
    on_path = os.environ["PATH"].split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([*(folder for folder in _commands(ROOT) if folder not in on_path), *on_path])


def _keep_state_private() -> None:
    """Make what this process and its children write from now on readable for its owner only; var/ as a whole too.

    State holds requests, predictions, hashes of keys and logs. What Git tracks has the rights that Git gives it.
    """
    usual = os.umask(0o077)
    os.environ.setdefault(UMASK, f"{usual:03o}")
    VAR.mkdir(parents=True, exist_ok=True)
    with suppress(PermissionError):  # another user's
        VAR.chmod(0o700)


def _check_state_version() -> None:
    """Refuse the state of a newer build; bring that of an older one up to date, and stamp it.

    SystemExit, because packages apply these settings while they are imported: a message without a traceback.
    """
    path = VAR / "state.json"
    try:
        version = int(json.loads(path.read_text(encoding="utf-8"))["version"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):  # none yet, of version 1, or torn
        version = 0
    if version > STATE_VERSION:
        raise SystemExit(
            f"{VAR} holds state of version {version}, and this build reads versions up to {STATE_VERSION}: a newer "
            f"build has worked here. Use that build (`git log` shows it), or restore a backup from before it "
            f"(docs/how-to/back-up-and-move.md). Nothing was read or changed"
        )
    if version < STATE_VERSION:
        _migrate(path)


def _migrate(path: Path) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}-0.tmp")  # not by `files`, which imports this module

    def stamp() -> None:
        beside.write_text(json.dumps({"version": STATE_VERSION}) + "\n", encoding="utf-8")
        beside.replace(path)

    if any((VAR / folder).exists() for folder in ("verdicts", "decisions", "rollouts", "data", "predictions")):
        from tasks.ground.errors import EvergreenError  # of the key

        try:
            import_module(MIGRATION).run(stamp)
        except (OSError, EvergreenError) as error:
            raise SystemExit(
                f"{VAR} holds state of an older build, and it could not be brought up to version {STATE_VERSION}: "
                f"{str(error).rstrip('.')}. What was there is still there. Make room or rights, then run again"
            ) from None
        return
    with suppress(OSError):  # a full disk, or another user's state: the next command stamps it
        stamp()


@contextmanager
def for_others(path: Path) -> Iterator[None]:
    """Give what the block writes outside var/ (a shared remote, a result) the rights that files usually get."""
    if path.is_relative_to(VAR):
        yield
        return
    private = os.umask(int(os.environ.get(UMASK, "077"), 8))
    try:
        yield
    finally:
        os.umask(private)


def _forget_another_checkout() -> None:
    """Unset what the activation of another checkout set in this shell."""
    named = Path(os.environ.get("EVERGREEN_ROOT") or ROOT)
    if named == ROOT:
        return
    for name, value in _environment(named, _var(named)).items():
        if name != "PATH" and os.environ.get(name) == value:
            del os.environ[name]
    if _project_of_experiment(ROOT) is None:
        print(f"this shell is activated for {named}; working on {ROOT}, where this command stands", file=sys.stderr)


def exports() -> str:
    """The environment as shell commands, for `eval "$(evergreen env)"`."""
    from shlex import quote

    kept = {name: os.environ.get(name, value) for name, value in environment().items() if name != "PATH"}
    lines = [f"export {name}={quote(value)}" for name, value in {**kept, **arithmetic()}.items()]
    return "\n".join([*lines, f'export PATH={quote(os.pathsep.join(_commands(ROOT)))}:"$PATH"'])
