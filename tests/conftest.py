"""What all tests share. Whatever only one folder of tests needs lives in that folder."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from fastapi_consumers import Publisher, SyncPublisher, add_consumers, backends, streams
from fastapi_consumers.history import RedisHistoryStore
from fastapi_consumers.redis_client import RedisClient
from fastapi_consumers.schedule_stores import RedisScheduleStore, schedule_store_of
from fastapi_consumers.testing import WebsocketCommunicator, lifespans
from fastapi_consumers.throttling import RedisBuckets
from fastapi_consumers.transports import RedisTransport
from fastapi_consumers.transports.broadcaster import BroadcasterTransport
from fastapi_consumers.transports.urls import transport_of

# For `examples` and `tests`. At the end of the path, so that an installed wheel of the package comes before its source.
sys.path.append(str(Path(__file__).resolve().parent.parent))

# Processes that tests start are not measured by coverage: it made them slow, and showed little that is not run here.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        os.environ.pop(name, None)

# One profile everywhere: no deadline, because a shared machine stalls; the same examples on every run under CI.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))

#: Seconds that a test waits for what must come, where it does not say how long. A busy machine stalls for seconds.
PATIENCE = 20.0


def _be_patient() -> None:
    """Give brokers, apps and sockets more time than is usual. What is tried with less names its time."""
    calls: list[tuple[Any, str]] = [
        *[(each, "broker_timeout") for each in (add_consumers, transport_of)],
        *[(each.__init__, "broker_timeout") for each in (RedisTransport, BroadcasterTransport)],
        *[(each.__init__, "broker_timeout") for each in (Publisher, SyncPublisher)],
        *[(each.__init__, "timeout") for each in (RedisClient, RedisHistoryStore, RedisScheduleStore, RedisBuckets)],
        *[(each, "timeout") for each in (backends.presence_store, backends.schedule_backend, backends.rate_buckets)],
        (schedule_store_of, "timeout"),
    ]
    for call, name in calls:
        assert name in call.__kwdefaults__
        call.__kwdefaults__[name] = PATIENCE
    WebsocketCommunicator.default_timeout = PATIENCE
    lifespans.LIFESPAN_TIMEOUT = PATIENCE
    streams.EPOCH_TIMEOUT = PATIENCE


_be_patient()


#: Folders and files whose tests start servers, processes or builds of their own: what they try is the same on every
#: Python, and takes most of the time.
_ONCE = (
    "tests/admin/",
    "tests/authentication/test_served.py",
    "tests/cli/",
    "tests/contrib/test_workers.py",
    "tests/examples/",
    "tests/history/test_oracle.py",
    "tests/history/test_redis.py",
    "tests/history/test_sql.py",
    "tests/history/test_urls.py",
    "tests/presence/test_processes.py",
    "tests/publishing/",
    "tests/schedules/test_processes.py",
    "tests/server/",
    "tests/test_pagination_sql.py",
    "tests/test_streams_oracle.py",
    "tests/testing/test_plugin.py",
    "tests/throttling/",
    "tests/transports/test_cluster.py",
    "tests/transports/test_postgres.py",
    "tests/transports/test_redis.py",
    "tests/transports/test_sentinel.py",
    "tests/transports/test_tls.py",
)
#: Of these, what depends most on the versions of what the package stands on.
_LOWEST = (
    "tests/admin/test_api.py",
    "tests/history/test_redis.py",
    "tests/history/test_sql.py",
    "tests/server/test_lanes.py",
    "tests/test_pagination_sql.py",
    "tests/transports/test_redis.py",
)
#: What runs once too, by a parameter of tests that others run.
_ONCE_PARAMETERS = {"cluster", "postgres", "sentinel"}
#: Files in which some tests run once, and others everywhere; beside those that are for a browser.
_MIXED = (
    "tests/asyncapi/test_parser.py",
    "tests/history/test_contract.py",
    "tests/presence/test_contract.py",
    "tests/schedules/test_contract.py",
    "tests/transports/test_contract.py",
    "tests/transports/test_urls.py",
)
ROOT = Path(__file__).resolve().parent.parent


def _runs_once(path: str) -> bool:
    return path.startswith((*_ONCE, *_MIXED)) or path.endswith("_browser.py")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import what the marks leave out anyway: each worker would, for seconds."""
    marks = config.option.markexpr.replace("'", "")
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    path = collection_path.relative_to(ROOT).as_posix()
    if marks == "browser or once":
        return not _runs_once(path) or None
    if "not once" in marks and path.startswith(_ONCE):
        return not ("or lowest" in marks and path.startswith(_LOWEST)) or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        words = set(callspec.id.split("-")) if callspec is not None else set()
        if item.nodeid.startswith("tests/test_docs.py"):
            item.add_marker(pytest.mark.docs)
        if item.nodeid.startswith(_ONCE) or not words.isdisjoint(_ONCE_PARAMETERS):
            item.add_marker(pytest.mark.once)
        if any(map(item.get_closest_marker, ("browser", "once"))) and not _runs_once(item.nodeid.partition("::")[0]):
            raise pytest.UsageError(f"{item.nodeid} would be left out where it is to run: put its file into _MIXED")
        if item.nodeid.startswith(_LOWEST):
            item.add_marker(pytest.mark.lowest)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium or Chrome. Without one the test is skipped, but on CI it fails: nobody would notice."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        reason = "no Chromium on PATH (Debian: apt-get install chromium), and CHROMIUM does not name one"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return executable


class Postgres:
    """A PostgreSQL server of the tests' own, on a port of loopback, that can die and come back."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        # Not in pytest's own folder, which only the user who runs the tests can enter: the server refuses to be root.
        self.folder = Path(tempfile.mkdtemp(prefix="fastapi-consumers-postgres-"))
        password = self.folder / "password"
        password.write_text("pa:ss/word")
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = _unprivileged()
            self._identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
            for each in (self.folder, password):
                os.chown(each, user.pw_uid, user.pw_gid)
        options = ("--username=fc", f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C")
        self._run("initdb", f"--pgdata={self.folder / 'data'}", "--no-sync", *options)
        self._start_on_a_port_of_its_own()

    def _start_on_a_port_of_its_own(self) -> None:
        from tests.ports import free_port  # At this file's own import it is not known yet where `tests` are.

        for attempt in range(5):
            self.port = free_port()
            try:
                self.start()
                return
            except AssertionError:  # Somebody else has taken it.
                if attempt == 4:
                    raise

    @property
    def url(self) -> str:
        return f"postgresql://fc:pa%3Ass%2Fword@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self.folder}"
        self._control("start", f"--options={options}", f"--log={self.folder / 'log'}")

    def kill(self) -> None:
        self._control("stop", "--mode=immediate")

    def remove(self) -> None:
        try:
            self.kill()
        finally:
            shutil.rmtree(self.folder)

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", f"--pgdata={self.folder / 'data'}", "--wait", "--timeout=100", *arguments)

    def _run(self, name: str, *arguments: str) -> None:
        command = [str(self._binaries / name), *arguments]
        # Into a file: the server inherits it, and a pipe would stay open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=120, **self._identity
            )
            output.seek(0)
            assert done.returncode == 0, output.read().decode(errors="replace")


def _unprivileged() -> pwd.struct_passwd:
    users = {user.pw_name: user for user in pwd.getpwall()}
    return users.get("postgres") or users["nobody"]


@pytest.fixture(scope="session")
def postgres_binaries() -> Path:
    """Where PostgreSQL's programs are. Without them the test is skipped, but on CI it fails: nobody would notice."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found is not None else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))[::-1]
    for folder in folders:
        if all((folder / name).is_file() for name in ("initdb", "pg_ctl", "postgres")):
            return folder
    reason = "no PostgreSQL server: initdb is not on PATH (Debian: apt-get install postgresql)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres(postgres_binaries: Path) -> Iterator[Postgres]:
    """A server that all tests share, and leave as it is."""
    server = Postgres(postgres_binaries)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres_url(postgres: Postgres) -> str:
    """The URL of a PostgreSQL server's database, which all tests share."""
    return postgres.url
