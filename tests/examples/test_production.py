"""The files that run an application in production: that they can be read, and that their times fit together."""

import json
import re
import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi.routing import APIRoute

from examples.production.app import app
from fastapi_consumers.testing import WebsocketCommunicator

FOLDER = Path(__file__).resolve().parent.parent.parent / "examples" / "production"
#: Seconds for all that follows uvicorn's own limit: the lifespan's end, and the interpreter's.
REST = 2.0


def read(name: str) -> str:
    return (FOLDER / name).read_text()


def graceful(command: list[str]) -> float:
    """What uvicorn is told of the time that it may take after the drain."""
    return float(command[command.index("--timeout-graceful-shutdown") + 1])


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
    drain = float(service["Environment"].removeprefix("DRAIN_TIMEOUT="))
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
    assert graceful(command) == graceful(shlex.split(unit["Service"]["ExecStart"]))
    assert (FOLDER / "requirements.txt").is_file()


def test_the_cluster_waits_for_as_long_as_it_takes() -> None:
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


async def test_the_app_says_that_it_is_not_ready_once_it_drains() -> None:
    async with (
        WebsocketCommunicator(app, "/room/a") as visitor,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        assert (await visitor.receive_json_from())["type"] == "joined"
        assert (await client.get("/ready")).status_code == 200
        await app.state.consumers.drain()
        await visitor.assert_closed(1012)
        assert (await client.get("/ready")).status_code == 503
        assert (await client.get("/live")).status_code == 200
        assert (await client.get("/health")).json()["draining"] is True
