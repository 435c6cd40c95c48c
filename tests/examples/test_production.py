"""The files that run an application in production: that they can be read, and that their times fit together. The
application itself: who may watch it, what is counted and logged.
"""

import base64
import importlib.util
import io
import json
import logging
import logging.config
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI
from fastapi.routing import APIRoute

from fastapi_consumers.testing import CallError, WebsocketCommunicator
from tests.examples.serving import served

FOLDER = Path(__file__).resolve().parent.parent.parent / "examples" / "production"
#: Seconds for all that follows uvicorn's own limit: the lifespan's end, and the interpreter's.
REST = 2.0


def read(name: str) -> str:
    return (FOLDER / name).read_text()


def graceful(command: list[str]) -> float:
    """What uvicorn is told of the time that it may take after the drain."""
    return float(command[command.index("--timeout-graceful-shutdown") + 1])


@pytest.fixture
def module() -> Iterator[ModuleType]:
    """The application's module, by the name that it has in the container. A new one each time: it drains once."""
    spec = importlib.util.spec_from_file_location("app", FOLDER / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["app"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["app"]


@pytest.fixture
def app(module: ModuleType) -> FastAPI:
    found: FastAPI = module.app
    return found


def http(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
def unit() -> ConfigParser:
    class Unit(ConfigParser):
        def optionxform(self, optionstr: str) -> str:
            return optionstr

    parser = Unit(interpolation=None, strict=False)
    parser.read_string(read("consumers@.service"))
    return parser


def test_the_unit_lets_the_drain_end_and_tells_the_supervisor_alone(unit: ConfigParser) -> None:
    service = unit["Service"]
    command = shlex.split(service["ExecStart"])
    environment = dict(each.split("=") for each in shlex.split(service["Environment"]))
    drain = float(environment["DRAIN_TIMEOUT"])
    assert float(service["TimeoutStopSec"]) >= drain + graceful(command) + REST
    assert service["KillMode"] == "mixed"
    assert int(service["LimitNOFILE"]) > 1024
    assert command[command.index("--port") + 1] == "%i"
    assert set(unit) == {"DEFAULT", "Unit", "Service", "Install"}


def test_the_container_runs_the_server_itself(unit: ConfigParser) -> None:
    lines = read("Dockerfile").splitlines()
    (command,) = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD "))
    assert command[0] == "uvicorn"
    assert "STOPSIGNAL SIGTERM" in lines
    assert re.search(r"^ENV .*LOG_LEVEL=INFO", read("Dockerfile"), re.M)
    assert graceful(command) == graceful(shlex.split(unit["Service"]["ExecStart"]))
    assert (FOLDER / "requirements.txt").is_file()


def test_the_cluster_waits_for_as_long_as_it_takes(app: FastAPI) -> None:
    pod: dict[str, Any] = yaml.safe_load(read("kubernetes.yaml"))["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (drain,) = (float(each["value"]) for each in container["env"] if each["name"] == "DRAIN_TIMEOUT")
    _, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    lines = read("Dockerfile").splitlines()
    (command,) = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD "))
    assert pod["terminationGracePeriodSeconds"] >= float(pause) + drain + graceful(command) + REST
    # What the probes ask is there.
    paths = {route.path for route in app.routes if isinstance(route, APIRoute)}
    assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("readiness", "liveness")} <= paths
    # The proxies have heard of it before the process is told.
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] <= float(pause)


def test_nginx_upgrades_and_asks_the_next_process() -> None:
    config = dict(re.findall(r"^\s*(proxy_set_header \S+|proxy_\w+)\s+(.*);$", read("nginx.conf"), re.MULTILINE))
    assert config["proxy_http_version"] == "1.1"
    assert config["proxy_set_header Upgrade"] == "$http_upgrade"
    assert config["proxy_set_header Connection"] == "$connection_upgrade"
    assert config["proxy_set_header X-Forwarded-For"] == "$remote_addr"
    assert "http_503" in config["proxy_next_upstream"].split()
    assert float(config["proxy_read_timeout"].removesuffix("s")) > 20 + 20  # uvicorn's ping, and what it waits for one


CHECKS = [
    ["nginx", "-t", "-q", "-c", "nginx.conf"],
    ["caddy", "validate", "--adapter", "caddyfile", "--config", "Caddyfile"],
]


@pytest.mark.parametrize("command", CHECKS, ids=["nginx", "caddy"])
def test_the_proxies_themselves_take_their_files(command: list[str], tmp_path: Path) -> None:
    program = shutil.which(command[0])
    if program is None:
        pytest.skip(f"no {command[0]} on PATH")
    # On a socket of its own: port 80 may be taken, or not be ours to take.
    text = read(command[-1]).replace("listen 80;", f"listen unix:{tmp_path}/socket;")
    if command[0] == "nginx":
        text = f"pid {tmp_path}/pid;\nerror_log stderr;\n" + text
    (tmp_path / command[-1]).write_text(text)
    done = subprocess.run(
        [program, *command[1:-1], str(tmp_path / command[-1])], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


#: What is not for everybody, and how else somebody might write it.
PRIVATE = ["/live", "/ready", "/health", "/metrics", "/admin", "/admin/", "/admin/socket", "/admin/static/x", "//admin"]
PRIVATE += ["/%61dmin/connections", "/room/../admin"]


@contextmanager
def proxy(name: str, folder: Path) -> Iterator[httpx.Client]:
    """nginx or Caddy with our file, before processes that are not there, and a client from elsewhere."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"no {name} on PATH")
    # Who comes over a Unix socket has no address, so it is not the host itself.
    config, place, nowhere = folder / "config", folder / "socket", f"unix:{folder}/nowhere"
    if name == "nginx":
        text = read("nginx.conf").replace("listen 80;", f"listen unix:{place};").replace("127.0.0.1:8001", nowhere)
        text = text.replace("server 127.0.0.1:8002 max_fails=0;", "").replace(
            "worker_connections 16384", "worker_connections 64"
        )
        text = text.replace(
            "http {", f"http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};"
        )
        text = f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\n{text}"
        command = [program, "-c", str(config), "-p", str(folder), "-e", "stderr"]
    else:
        text = read("Caddyfile").replace(":80 {", f":80 {{\n\tbind unix/{place}", 1)
        text = re.sub(r"reverse_proxy .* {[^}]*}", f"reverse_proxy unix/{folder}/nowhere", text)
        text = f"{{\n\tadmin off\n}}\n{text}"
        command = [program, "run", "--adapter", "caddyfile", "--config", str(config)]
    config.write_text(text)
    home = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=home)
        try:
            deadline = time.monotonic() + 60
            while not place.exists():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
            transport = httpx.HTTPTransport(uds=str(place), retries=5)
            with httpx.Client(transport=transport, base_url="http://chat.example.com", timeout=60) as client:
                yield client
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.parametrize(("name", "refusal"), [("nginx", 403), ("caddy", 404)])
def test_the_proxies_keep_what_is_private_from_the_outside(name: str, refusal: int, tmp_path: Path) -> None:
    with proxy(name, tmp_path) as client:
        for path in PRIVATE:
            url = httpx.URL("http://chat.example.com").copy_with(raw_path=path.encode())
            assert client.get(url).status_code == refusal, path
        for path in ("/", "/room/a", "/administration"):
            assert client.get(path).status_code == 502, path  # it is passed on, and nobody is there


def test_the_proxies_files_name_what_is_private(app: FastAPI) -> None:
    """Where there is no proxy to ask."""
    (pattern,) = re.findall(r"location ~ (\S+) {\s+allow 127\.0\.0\.1;\s+deny all;", read("nginx.conf"))
    (paths,) = re.findall(r"@private {\s+path (.*)\n\s+not remote_ip 127\.0\.0\.1\s+}", read("Caddyfile"))
    for path in ("/live", "/ready", "/health", "/metrics", "/admin"):
        assert re.search(pattern, path), path
        assert path in paths.split(), path
    assert re.search(pattern, "/admin/socket")
    assert not re.search(pattern, "/administration")
    assert "/admin/*" in paths.split()


PASSWORD, TOKEN = "a password of the tests", "a token of the tests"


async def test_nobody_is_an_operator_unless_the_environment_says_so(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, scraper = ("admin", PASSWORD), {"Authorization": f"Bearer {TOKEN}"}
    async with WebsocketCommunicator(app, "/room/a"), http(app) as client:
        for secrets in ({}, {"ADMIN_PASSWORD": "", "METRICS_TOKEN": ""}, {"ADMIN_PASSWORD": "x", "METRICS_TOKEN": "x"}):
            for name in ("ADMIN_PASSWORD", "METRICS_TOKEN"):
                monkeypatch.delenv(name, raising=False)
            for name, value in secrets.items():
                monkeypatch.setenv(name, value)
            for auth in (None, ("admin", ""), admin):
                assert (await client.get("/admin/connections", auth=auth)).status_code == 401
                assert (await client.get("/admin", auth=auth)).status_code == 401
            for headers in ({}, {"Authorization": "Bearer "}, scraper):
                assert (await client.get("/metrics", headers=headers)).status_code == 401

        monkeypatch.setenv("ADMIN_PASSWORD", PASSWORD)
        monkeypatch.setenv("METRICS_TOKEN", TOKEN)
        assert (await client.get("/admin", auth=admin)).status_code == 200
        [found] = (await client.get("/admin/connections", auth=admin)).json()["results"]
        assert (found["consumer"], found["path"]) == ("Room", "/room/a")
        # Each has what is its own.
        assert (await client.get("/admin", auth=("eve", PASSWORD))).status_code == 401
        assert (await client.get("/admin", headers=scraper)).status_code == 401
        assert (await client.get("/metrics", auth=admin)).status_code == 401
        assert (await client.get("/metrics", headers=scraper)).status_code == 200


async def test_the_dashboard_opens_with_the_same_password(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_PASSWORD", PASSWORD)
    stranger = WebsocketCommunicator(app, "/admin/socket")
    assert (await stranger.connect())[0] is False
    basic = f"Basic {base64.b64encode(f'admin:{PASSWORD}'.encode()).decode()}"
    async with WebsocketCommunicator(app, "/admin/socket", headers={"Authorization": basic}) as board:
        assert board.is_connected


async def scraped(app: FastAPI) -> str:
    async with http(app) as client:
        answer = await client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200, answer.text
        return answer.text


async def test_the_metrics_count_an_action(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_TOKEN", TOKEN)
    line = 'fastapi_consumers_calls_total{consumer="Room",kind="action",name="say",outcome="ok"}'
    async with WebsocketCommunicator(app, "/room/a") as visitor:
        assert line not in await scraped(app)
        await visitor.call("say", {"text": "hi"})
        await visitor.call("say", {"text": "hi"})
        text = await scraped(app)
        assert f"{line} 2.0" in text
        assert 'fastapi_consumers_connections{consumer="Room"} 1.0' in text


async def test_what_alerts_are_about_is_measured(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_TOKEN", TOKEN)
    async with WebsocketCommunicator(app, "/room/a") as visitor:
        await visitor.call("say", {"text": "hi"})
        with pytest.raises(CallError, match="action_not_found"):
            await visitor.call("nothing")
        text = await scraped(app)
    (group,) = yaml.safe_load(read("alerts.yml"))["groups"]
    page = (FOLDER.parent.parent / "docs" / "production.md").read_text("utf-8")
    (table,) = re.findall(r"^## What to watch\n(.*)", page, re.M | re.S)
    named = {name for rule in group["rules"] for name in re.findall(r"fastapi_consumers_\w+", rule["expr"])}
    assert named
    for name in named:
        assert re.search(rf"^# TYPE {name.removesuffix('_bucket')} ", text, re.M), name
        # Each alert is explained there, by the name that the metric has behind its prefix.
        assert f"`{name.removeprefix('fastapi_consumers_').removesuffix('_bucket')}" in table, name
    # And all that the page says to watch is there.
    in_table = set(re.findall(r"^\|[^|]*\| `(\w+)", table, re.M))
    assert in_table
    for name in in_table - {"process_open_fds", "process_cpu_seconds_total"}:
        assert re.search(rf"^# TYPE fastapi_consumers_{name} ", text, re.M), name
    (rules,) = re.findall(r"```yaml\n(- alert:.*?)```", table, re.S)
    known = {rule["alert"]: rule["expr"] for rule in group["rules"]}
    assert {rule["alert"]: rule["expr"] for rule in yaml.safe_load(rules)}.items() <= known.items()
    (scrape,) = yaml.safe_load(read("prometheus.yml"))["scrape_configs"]
    assert f'up{{job="{scrape["job_name"]}"}} == 0' in [rule["expr"] for rule in group["rules"]]


async def test_each_room_is_told_how_many_are_in_it(app: FastAPI) -> None:
    async with WebsocketCommunicator(app, "/room/a") as ann, WebsocketCommunicator(app, "/room/a"):
        schedules = app.state.consumers.schedules
        [status] = await schedules.list()
        assert (status.name, status.when, status.is_here) == ("Room.tell_count", "every 600 s", True)
        await schedules.run_now("Room.tell_count")
        # One more if its own moment comes while the test runs, perhaps before the second visitor.
        while (await ann.assert_event("here", timeout=20))["data"] != {"connections": 2}:
            pass


@pytest.fixture
def log(module: ModuleType) -> Iterator[io.StringIO]:
    """What the configuration of the example writes; whatever the tests had configured is put back."""
    loggers = [logging.getLogger(name) for name in (None, *module.logging_config("INFO")["loggers"])]
    before = [(each, each.level, each.propagate, each.handlers[:], each.filters[:]) for each in loggers]
    output = io.StringIO()
    config = module.logging_config("INFO")
    config["handlers"]["stdout"]["stream"] = output
    logging.config.dictConfig(config)
    yield output
    for each, level, propagate, handlers, filters in before:
        each.setLevel(level)
        each.propagate, each.handlers, each.filters = propagate, handlers, filters


async def test_the_log_is_json_that_can_be_searched_and_holds_no_token(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("LOG_ACTIONS", "1")
    output: io.StringIO = request.getfixturevalue("log")
    app: FastAPI = request.getfixturevalue("app")
    headers = {"Authorization": "Bearer s3cret-header", "Cookie": "session=s3cret-cookie"}
    async with WebsocketCommunicator(app, "/room/a?token=s3cret-query", headers=headers) as ann:
        await ann.call("say", {"text": "s3cret-text"})
    # As uvicorn does for each handshake.
    logging.getLogger("uvicorn.error").info(
        '%s - "WebSocket %s" [accepted]', "192.0.2.1:5", "/room/a?token=s3cret-query"
    )
    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    by_logger = {line["logger"]: line for line in lines if line.get("outcome") != "closed"}
    said, call = by_logger["app"], by_logger["fastapi_consumers.access"]
    (connection,) = (line for line in lines if line.get("outcome") == "closed")
    assert (call["action"], call["request_id"], call["outcome"], call["user"]) == ("say", "call-1", "ok", None)
    assert 0 <= call["duration"] <= connection["duration"]
    assert (said["message"], said["group"]) == ("said 11 characters", "room.a")
    assert said["connection"] == call["connection"] == connection["connection"]
    assert (connection["path"], connection["close_code"]) == ("/room/a", 1000)
    assert by_logger["uvicorn.error"]["message"] == '192.0.2.1:5 - "WebSocket /room/a" [accepted]'
    assert "s3cret" not in output.getvalue()


async def test_an_exception_is_one_line_too(app: FastAPI, log: io.StringIO) -> None:
    try:
        raise RuntimeError("it broke")
    except RuntimeError:
        logging.getLogger("fastapi_consumers.dispatch").exception("Room.say failed", extra={"action": "say"})
    (line,) = map(json.loads, log.getvalue().splitlines())
    assert (line["level"], line["action"]) == ("ERROR", "say")
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("RuntimeError: it broke")


def test_all_that_a_server_prints_is_json(tmp_path: Path) -> None:
    with served("examples.production.app", tmp_path, LOG_LEVEL="INFO") as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/ready?token=s3cret", timeout=60)
        assert answer.json() == {"ready": True}
        assert httpx.get(f"http://127.0.0.1:{port}/admin", timeout=60).status_code == 401
    text = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert "Application startup complete." in [line["message"] for line in lines]
    assert {line["logger"] for line in lines} >= {"uvicorn.error", "fastapi_consumers.draining"}
    assert "s3cret" not in text


async def test_the_app_says_that_it_is_not_ready_once_it_drains(app: FastAPI) -> None:
    async with WebsocketCommunicator(app, "/room/a") as visitor, http(app) as client:
        assert (await visitor.receive_json_from())["type"] == "joined"
        assert (await client.get("/ready")).status_code == 200
        await app.state.consumers.drain()
        await visitor.assert_closed(1012)
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/live")).status_code == 200
        assert (await client.get("/health")).json()["draining"] is True
