"""``connect`` in a pipe, against a real server."""

import asyncio
import base64
import json
import signal
import socket
import subprocess
import sys
import threading

import pytest

from fastapi_consumers.cli.connect import session as session_module
from fastapi_consumers.cli.connect.handshake import HandshakeFailed
from fastapi_consumers.cli.connect.session import Session
from fastapi_consumers.cli.connect.target import Target
from tests.cli.conftest import PATIENCE


def test_lines_are_actions_and_answers_are_paired_with_them(call, url):
    result = call("connect", f"{url}/room/1", input='say text="hi there"\n\nsum_up a=2 b=3\nsay {"text": "ho"}\n')
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].startswith("joined room.1 at ")
    assert [line.partition(" (")[0] for line in lines[1:]] == [
        'said room.1 @1 {"text": "hi there"}',
        "#1 say ok",
        "#2 sum_up ok 5",
        'said room.1 @2 {"text": "ho"}',
        "#3 say ok",
    ]
    assert result.err == f"connected to {url}/room/1, speaking fc.v1.json\nclosed: 1000\n"


def test_frames_go_through_as_they_are_for_programs(call, url):
    frames = ['{"action":"sum_up","request_id":"x","data":{"a":1}}', '{"action":"sum_up","data":{"a":5}}']
    frames.append('{"action":"sum_up","request_id":7,"data":{"a":9}}')
    result = call("connect", "--json", f"{url}/room/2", input="\n".join(frames))
    assert result.code == 0
    found = [json.loads(line) for line in result.out.splitlines()]
    assert [(each["type"], each.get("request_id"), each.get("data")) for each in found] == [
        ("joined", None, None), ("reply", "x", 1), ("reply", None, 5), ("reply", 7, 9)]  # fmt: skip
    told = [json.loads(line) for line in result.err.splitlines()]
    assert [each["type"] for each in told] == ["opened", "closed"]


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("nothing", 3, "#1 nothing error action_not_found: There is no action"),
        ("sum_up a=x", 3, "    a: Input should be a valid integer"),
        ("say hi", 2, "Expected JSON or name=value after the action; found 'hi'"),
        ('say text="hi', 2, "not closed"),
        ("close code=4403", 1, "closed: 4403 on_request"),
        ("close code=1000", 1, "1 request has no answer"),
        ("wait_for_ever", 1, "1 request has not been answered within 4 s"),
    ],
)
def test_what_went_wrong_is_told_with_an_exit_code(call, url, line, code, text):
    result = call("connect", "--timeout", "4" if "ever" in line else "20", f"{url}/room/3", input=line)
    assert result.code == code
    assert text in result.out + result.err


def test_it_listens_after_the_last_line_if_asked_to(call, url):
    frame = '{"action": "close", "data": {"code": 1000}}'
    result = call("connect", "--wait", "inf", f"{url}/room/4?recover=none:0", input=frame)
    assert result.code == 0
    assert "cannot be recovered" in result.out


def test_tokens_headers_cookies_and_origins_are_sent(call, url):
    options = ["-H", "X-One: 1: 2", "--cookie", "a=b", "--cookie", "c=d", "--origin", "https://example.com"]
    result = call(
        "connect", "--json", "--token", "t-ann", *options, f"{url}/room/5",
        input='{"action": "look", "request_id": 1}',
    )  # fmt: skip
    [reply] = [json.loads(line) for line in result.out.splitlines() if '"reply"' in line]
    assert reply["data"] == {
        "user": "ann", "authorization": "Bearer t-ann", "cookie": "a=b; c=d", "origin": "https://example.com",
        "x-one": "1: 2", "sec-websocket-protocol": "fc.v1.json",
    }  # fmt: skip


@pytest.mark.parametrize("token", ["t-ann", "t-ä n"])
def test_a_token_may_be_among_the_subprotocols(call, url, monkeypatch, token):
    monkeypatch.setenv("FASTAPI_CONSUMERS_TOKEN", token)
    result = call("connect", "--token-in", "subprotocol", f"{url}/members", input="")
    assert (result.code, result.out) == (0, "")
    assert "speaking fc.v1.json" in result.err


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/closed", "HTTP 403 Forbidden, permission_denied: No poets, \\x1b[31mplease."),
        ("/members", "HTTP 401 Unauthorized, not_authenticated"),
        ("/nothing", "HTTP 403 Forbidden. The server refuses this. Without a reason of its own"),
        ("/rare", "HTTP 429 Too Many Requests, throttled"),
    ],
)
def test_a_refusal_is_told_with_its_reason(call, url, path, text):
    if path == "/rare":
        assert call("connect", url + path).code == 0
    result = call("connect", url + path)
    assert (result.code, result.out) == (1, "")
    assert text in result.err
    assert ("Try again after 3" in result.err) == (path == "/rare")
    assert ("--token" in result.err) == (path == "/members")
    told = json.loads(call("connect", "--json", url + path).err)
    assert told["type"] == "refused"
    assert (told["status"], told.get("error", {}).get("code")) == {
        "/closed": (403, "permission_denied"), "/members": (401, "not_authenticated"),
        "/nothing": (403, None), "/rare": (429, "throttled"),
    }[path]  # fmt: skip


def test_a_socket_that_is_accepted_to_be_refused_says_why(call, url):
    result = call("connect", "--wait", "inf", f"{url}/told")
    assert result.code == 1
    assert result.out.startswith("error not_authenticated: ")
    assert "closed: 4401" in result.err


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("http://:secret@x:1/a?token=secret", "Did you mean ws://x:1/a?"),
        ("localhost:8000/a?token=secret", "found 'localhost:8000/a'. Did you mean ws://localhost:8000/a?"),
        ("ws://", "Expected a URL"),
        ("ws://x:port/", "URL cannot be read"),
        ("ws://x/#a", "%23"),
        ("ftp://x/", "found 'ftp://x/'"),
    ],
)
def test_a_bad_url_is_told_without_its_secrets(call, given, text):
    result = call("connect", given)
    assert (result.code, result.out) == (2, "")
    assert text in result.err
    assert "secret" not in result.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--header", "no colon"], "Expected --header 'NAME: VALUE'"),
        (["--header", "a b: c"], "Expected --header"),
        (["--header", "a: b\nc: d"], "Expected --header"),
        (["--cookie", "a"], "Expected --cookie NAME=VALUE"),
        (["--subprotocol", "a b"], "cannot be a subprotocol"),
        (["--subprotocol", "fc.v1.msgpack"], "speaks JSON"),
        (["--token", "ä"], "try --token-in subprotocol"),
        (["--json", "--raw"], "leave out --raw"),
        (["--app", "nothing:app"], "There is no module 'nothing'"),
    ],
)
def test_options_that_cannot_be_meant_are_told(call, options, text):
    result = call("connect", *options, "ws://127.0.0.1:1/")
    assert (result.code, result.out) == (2, "")
    assert text in result.err


def answering(answer):
    """A server that says this to whoever connects; its port, and the socket to close."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return listening


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "is no WebSocket endpoint: it answered HTTP 200 OK"),
        (b"HTTP/1.1 426 No\r\nContent-Length: 6\r\n\r\nno\x1bway", "It said: no\\x1bway"),
        (b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", "Try again after 7 s."),
        (b"HTTP/1.1 101 Fine\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n", "is no WebSocket endpoint"),
        (b"SSH-2.0-x\r\n", "does not speak HTTP: try wss://"),
    ],
)
def test_what_is_no_websocket_is_told(call, answer, text):
    with answering(answer) as listening:
        result = call("connect", f"ws://127.0.0.1:{listening.getsockname()[1]}/x?token=secret")
        listening.shutdown(socket.SHUT_RDWR)
    assert (result.code, result.out) == (1, "")
    assert text in result.err
    assert "secret" not in result.err


def test_servers_that_cannot_be_reached_are_told(call, url):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        result = call("connect", "--timeout", "0.2", f"ws://127.0.0.1:{port}/")
        assert "did not answer within 0.2 s" in result.err
    for host in ("127.0.0.1", "localhost"):
        result = call("connect", f"ws://{host}:{port}/")
        assert (result.code, result.out) == (1, "")
        assert f"Nothing listens at ws://{host}:{port}/" in result.err
    result = call("connect", f"wss{url.removeprefix('ws')}/room/1")
    assert "does not speak TLS" in result.err


def test_frames_of_any_kind_are_shown_and_steer_no_terminal(call, url):
    result = call("connect", "--wait", "inf", f"{url}/odd", input="")
    assert result.out.splitlines() == [
        "not\\njson \\x1b[2J", f"80 bytes {'00 01 ' * 15}00 01…", '{"a": 1}']  # fmt: skip
    result = call("connect", "--json", "--wait", "inf", f"{url}/odd", input="")
    found = [json.loads(line) for line in result.out.splitlines()]
    assert found == ["not\njson \x1b[2J", {"binary": base64.b64encode(b"\x00\x01" * 40).decode()}, {"a": 1}]


def test_raw_lines_are_sent_as_they_are(call, url):
    result = call("connect", "--raw", "--wait", "inf", f"{url}/echo", input='hello  there\n{"a": 1}\nbye')
    assert (result.code, result.out.splitlines()) == (0, ["hello  there", '{"a": 1}', "bye"])


def test_as_a_program_in_a_real_pipe(run, url):
    result = run("connect", "--json", f"{url}/room/6", input='{"action":"sum_up","request_id":1,"data":{"a":1}}\n')
    assert (result.returncode, json.loads(result.stdout.splitlines()[-1])["data"]) == (0, 1)


def test_ctrl_c_ends_it_with_a_code_of_its_own(command_environment, url):
    command = [sys.executable, "-m", "fastapi_consumers", "connect", "--json", "--wait", "inf", f"{url}/room/7"]
    with subprocess.Popen(
        command,
        env=command_environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A job in the background of a shell ignores it, and would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["type"] == "joined"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err


# -- coming back ---------------------------------------------------------------------------------------------------


class Recorder:
    """A view that keeps what it is shown."""

    def __init__(self):
        self.seen = []
        self.changed = asyncio.Event()

    def opened(self, target, subprotocol, again):
        self._add(("opened", again))

    def received(self, frame, message, answer):
        self._add((message["type"], message.get("data", message.get("recovered"))))

    def closed(self, end):
        self._add(("closed", end.code, end.unanswered))

    def waiting(self, seconds, failure):
        self._add(("waiting", failure.status if failure else None))

    def _add(self, what):
        self.seen.append(what)
        self.changed.set()

    async def until(self, what):
        async with asyncio.timeout(PATIENCE):
            while what not in self.seen:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def start(monkeypatch):
    """Starts sessions that come back only when they are told to hurry."""
    monkeypatch.setattr(session_module, "FIRST_DELAY", 600.0)
    tasks = []

    async def start(url, **options):
        view = Recorder()
        session = Session(Target(url), view, **{"reconnect": True, **options})
        session.task = asyncio.create_task(session.run())
        tasks.append(session.task)
        await view.until(("opened", False))
        return session, view

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_it_comes_back_and_recovers_what_was_said_meanwhile(start, url):
    session, view = await start(f"{url}/room/away?recover=x:1&token=no")
    await view.until(("joined", False))
    other, others = await start(f"{url}/room/away")
    await session.send('{"action": "close", "request_id": 1, "data": {"code": 1012}}')
    await view.until(("waiting", None))
    assert ("closed", 1012, 1) in view.seen
    assert not await session.send('{"action": "say", "data": {"text": "lost"}}')
    await other.send('{"action": "say", "data": {"text": "meanwhile"}}')
    await others.until(("event", {"text": "meanwhile"}))
    session.hurry()
    await view.until(("event", {"text": "meanwhile"}))
    assert view.seen[-3:] == [("opened", True), ("joined", True), ("event", {"text": "meanwhile"})]
    await session.stop()
    assert (await session.task).code == 1000


async def test_a_final_close_code_ends_it(start, url):
    session, _ = await start(f"{url}/room/final")
    await session.send('{"action": "close", "data": {"code": 4403}}')
    assert (await session.task)[:2] == (4403, "on_request")


async def test_it_stops_while_it_waits_to_come_back(start, url):
    session, view = await start(f"{url}/room/stops")
    await session.drop()
    await view.until(("closed", 1001, 0))
    await session.stop()
    assert (await session.task).code == 1001


async def test_one_that_is_refused_later_ends(start, url, monkeypatch):
    session, view = await start(f"{url}/room/later")
    await session.send('{"action": "close", "data": {"code": 1012}}')
    await view.until(("waiting", None))
    session.target = Target(f"{url}/closed")
    session.hurry()
    with pytest.raises(HandshakeFailed, match="No poets"):
        await session.task
