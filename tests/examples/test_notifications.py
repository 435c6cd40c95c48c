"""Notifications: in one process with a job that the test ends, and with a real worker and a real broker."""

import asyncio
import os
import re
import signal
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI

from examples.notifications.app import STATIC, make_app
from examples.notifications.jobs import Job
from examples.notifications.logins import LIFETIME, Logins
from examples.notifications.worker import SEGMENT, count_primes, sieve
from fastapi_consumers.testing import CallError, WebsocketCommunicator, lifespan

SECRET = "a secret of the tests, which is long enough"
#: Seconds for a process to start and to tell something, on a machine that has much else to do.
PATIENCE = 120


class Jobs:
    """Runs no process: the test says when a job ends, and with which code."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self._ends: defaultdict[str, asyncio.Future[int]] = defaultdict(asyncio.Future)

    async def __call__(self, job: Job) -> int:
        self.started.append(job.id)
        return await self._ends[job.id]

    def end(self, job: str, code: int) -> None:
        self._ends[job].set_result(code)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
async def app(jobs: Jobs) -> AsyncIterator[FastAPI]:
    app = make_app("memory://", jobs, SECRET)
    async with lifespan(app):
        yield app


def cookie(name: str) -> str:
    """That of a login of its own."""
    return f"token={Logins(SECRET).begin(name)}"


def token_that_ends(seconds: float, name: str = "ann") -> str:
    now = time.time()
    claims = {"sub": name, "jti": uuid.uuid4().hex, "began": now, "aud": "notifications", "exp": now + seconds}
    return jwt.encode(claims, SECRET, "HS256")


def browser(app: FastAPI, name: str) -> httpx.AsyncClient:
    headers = {"cookie": cookie(name)}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver", headers=headers)


def inbox(app: FastAPI, name: str, query: str = "") -> WebsocketCommunicator:
    return WebsocketCommunicator(app, f"/ws/{name}{query}", headers={"cookie": cookie(name)})


def with_token(app: FastAPI, token: str, name: str = "ann") -> WebsocketCommunicator:
    return WebsocketCommunicator(app, f"/ws/{name}", headers={"cookie": f"token={token}"})


async def start(client: httpx.AsyncClient, below: int = 1000) -> str:
    answer = await client.post("/jobs", json={"below": below})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job"])


async def hears(socket: WebsocketCommunicator, event: str, timeout: float = 20) -> dict[str, Any]:
    """The next event of this name; what comes before it is passed over."""
    while (frame := await socket.receive_json_from(timeout)).get("event") != event:
        pass
    found: dict[str, Any] = frame
    return found


async def past(socket: WebsocketCommunicator) -> list[str]:
    return [entry["event"] for entry in (await socket.call("history", timeout=20))["results"]]


async def refused(socket: WebsocketCommunicator, code: str, close_code: int = 4401) -> None:
    async with socket:
        assert (await socket.receive_json_from())["error"]["code"] == code
        await socket.assert_closed(close_code)


class TestLogins:
    async def test_who_logs_in_by_the_page_may_open_the_socket(self, app: FastAPI) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            for name, password in (("ann", "milk"), ("ann", ""), ("eve", ""), ("eve", "x")):
                assert (await client.post("/login", json={"name": name, "password": password})).status_code == 403
            assert (await client.get("/me")).json() is None
            answer = await client.post("/login", json={"name": "ann", "password": "tea"})
            assert answer.json() == {"id": "ann"}
            assert {"HttpOnly", "SameSite=strict"} <= set(answer.headers["set-cookie"].split("; "))
            assert (await client.get("/me")).json() == {"id": "ann"}
            async with with_token(app, client.cookies["token"]) as ann:
                assert (await ann.receive_json_from())["group"] == "inbox.ann"

    async def test_nobody_else_may(self, app: FastAPI) -> None:
        await refused(WebsocketCommunicator(app, "/ws/ann"), "not_authenticated")
        for bad in (cookie("eve"), cookie("ann")[:-2], "token="):
            await refused(WebsocketCommunicator(app, "/ws/ann", headers={"cookie": bad}), "invalid_token")

    async def test_a_refusal_is_in_the_language_of_the_browser(self, app: FastAPI) -> None:
        async with WebsocketCommunicator(app, "/ws/ann", headers={"accept-language": "de-AT, en;q=0.5"}) as stranger:
            error = (await stranger.receive_json_from())["error"]
        assert error["code"] == "not_authenticated"
        assert "Anmeldung" in error["message"]

    async def test_nobody_may_be_in_the_inbox_of_somebody_else(self, app: FastAPI) -> None:
        for path in ("/ws/ann", "/ws/Bob", "/ws/bob%20"):
            stranger = WebsocketCommunicator(app, path, headers={"cookie": cookie("bob")})
            await refused(stranger, "permission_denied", 4403)
        async with inbox(app, "bob") as bob:
            assert (await bob.receive_json_from())["group"] == "inbox.bob"

    async def test_a_token_that_has_ended_opens_nothing(self, app: FastAPI) -> None:
        token = token_that_ends(-1)
        await refused(with_token(app, token), "expired")
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://testserver", headers={"cookie": f"token={token}"}
        ) as client:
            assert (await client.get("/me")).json() is None
            assert (await client.post("/token")).status_code == 401

    async def test_a_socket_goes_on_with_the_next_token_and_ends_without(self, app: FastAPI) -> None:
        consumers, first = app.state.consumers, token_that_ends(120)
        headers = {"cookie": f"token={first}"}
        async with (
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://testserver", headers=headers
            ) as client,
            with_token(app, first) as ann,
            with_token(app, first) as idle,
        ):
            answer = await client.post("/token")
            renewed = answer.json()
            assert renewed["expires_in"] == LIFETIME
            # The cookie is the same token, of the same login.
            assert f"token={renewed['token']};" in answer.headers["set-cookie"]
            claims = [jwt.decode(each, options={"verify_signature": False}) for each in (first, renewed["token"])]
            assert claims[0]["jti"] == claims[1]["jti"]
            told = await ann.call("authenticate", {"token": renewed["token"]})
            assert told["user"] == "ann"
            assert 120 < told["expires_in"] <= LIFETIME
            with pytest.raises(CallError, match="user_changed"):
                await ann.call("authenticate", {"token": token_that_ends(120, "bob")})

            consumers.expiries.clock = lambda: time.time() + 240  # more than the grace after the end of the first
            consumers.expiries.look()
            await idle.assert_closed(4401)
            assert idle.close_reason == "expired"
            await ann.call("history")
            consumers.expiries.clock = lambda: time.time() + LIFETIME + 120
            consumers.expiries.look()
            await ann.assert_closed(4401)

    async def test_who_logs_out_is_logged_out_there_alone(self, app: FastAPI) -> None:
        async with browser(app, "ann") as desk, browser(app, "ann") as phone:
            tokens = [each.headers["cookie"].removeprefix("token=") for each in (desk, phone)]
            async with (
                with_token(app, tokens[0]) as one,
                with_token(app, tokens[0]) as two,
                with_token(app, tokens[1]) as far,
            ):
                renewed = (await desk.post("/token")).json()["token"]
                assert (await desk.post("/logout")).status_code == 204
                for closed in (one, two):
                    await closed.assert_closed(4401)
                    assert closed.close_reason == "revoked"
                await far.call("history")
            # What was handed out before is worth nothing.
            for token in (tokens[0], renewed):
                await refused(with_token(app, token), "invalid_token")
            assert (await desk.get("/me")).json() is None
            assert (await desk.post("/logout")).status_code == 401
            assert (await phone.get("/me")).json() == {"id": "ann"}

    async def test_who_logs_out_everywhere_is_logged_out_on_all_devices(self, app: FastAPI) -> None:
        async with browser(app, "ann") as desk, browser(app, "ann") as phone:
            tokens = [each.headers["cookie"].removeprefix("token=") for each in (desk, phone)]
            async with with_token(app, tokens[0]) as near, with_token(app, tokens[1]) as far, inbox(app, "bob") as bob:
                assert (await desk.post("/logout?everywhere=true")).status_code == 204
                for closed in (near, far):
                    await closed.assert_closed(4401)
                    assert closed.close_reason == "logged_out"
                await bob.call("history")
            for token in tokens:
                await refused(with_token(app, token), "invalid_token")
            assert (await phone.get("/me")).json() is None
            # And may come back.
            answer = await phone.post("/login", json={"name": "ann", "password": "tea"})
            async with with_token(app, answer.cookies["token"]) as ann:
                assert (await ann.receive_json_from())["group"] == "inbox.ann"

    async def test_jobs_are_started_by_those_who_are_logged_in(self, app: FastAPI, jobs: Jobs) -> None:
        async with browser(app, "eve") as eve:
            assert (await eve.post("/jobs", json={"below": 100})).status_code == 401
            assert (await eve.get("/unread")).status_code == 401
        assert jobs.started == []


class TestNotifications:
    async def test_the_end_of_a_job_is_told_to_its_user_alone_and_is_there_later(
        self, app: FastAPI, jobs: Jobs
    ) -> None:
        async with browser(app, "ann") as client, inbox(app, "ann") as ann, inbox(app, "bob") as bob:
            job = await start(client)
            assert (await hears(ann, "started"))["data"]["title"] == "Primes below 1,000"
            # What a worker does, from within.
            consumers = app.state.consumers
            await consumers.send("progress", {"job": job, "done": 0.5}, user="ann")
            await consumers.broadcast("inbox.ann", "finished", {"job": job}, idempotency_key=f"{job} end")
            jobs.end(job, 0)
            assert (await hears(ann, "progress"))["data"]["done"] == 0.5
            assert (await hears(ann, "finished"))["offset"] == 2
            assert (await bob.receive_json_from())["type"] == "joined"
            assert await bob.receive_nothing()
            assert (await client.get("/unread")).json() == 1
        async with inbox(app, "ann") as ann:
            assert await past(ann) == ["finished", "started"]

    async def test_a_worker_that_dies_is_noticed(self, app: FastAPI, jobs: Jobs) -> None:
        async with browser(app, "ann") as client, inbox(app, "ann") as ann:
            job = await start(client)
            await hears(ann, "started")
            jobs.end(job, -9)
            data = (await hears(ann, "failed"))["data"]
            assert (data["job"], data["text"]) == (job, "The worker ended with code -9.")

    async def test_no_more_than_two_at_once(self, app: FastAPI, jobs: Jobs) -> None:
        async with browser(app, "ann") as client, browser(app, "bob") as other:
            first = await start(client)
            await start(client)
            assert (await client.post("/jobs", json={"below": 100})).status_code == 429
            await start(other)
            async with inbox(app, "ann") as ann:
                jobs.end(first, 1)
                await hears(ann, "failed")
                await start(client)

    @pytest.mark.parametrize("below", [9, 10**9 + 1, "many", None])
    async def test_what_is_no_job_is_refused(self, app: FastAPI, jobs: Jobs, below: Any) -> None:
        async with browser(app, "ann") as client:
            assert (await client.post("/jobs", json={"below": below})).status_code == 422
        assert jobs.started == []

    async def test_what_was_read_on_one_device_is_read_on_all(self, app: FastAPI) -> None:
        consumers = app.state.consumers
        async with browser(app, "ann") as client, inbox(app, "ann") as phone, inbox(app, "ann") as desk:
            assert (await client.get("/unread")).json() == 0
            for number in range(3):
                await consumers.broadcast("inbox.ann", "finished", {"job": str(number)})
            assert (await client.get("/unread")).json() == 3
            await phone.call("read", {"up_to": 2})
            assert (await hears(desk, "read"))["data"] == {"up_to": 2}
            assert (await client.get("/unread")).json() == 1
            # Nobody can have read what has not come yet.
            await phone.call("read", {"up_to": 1000})
            await consumers.broadcast("inbox.ann", "failed", {"job": "4"})
            assert (await client.get("/unread")).json() == 1
            with pytest.raises(CallError) as failed:
                await phone.call("read", {"up_to": 0})
            assert failed.value.code == "invalid_data"

    async def test_who_comes_back_is_given_what_they_missed(self, app: FastAPI) -> None:
        async with inbox(app, "ann") as ann:
            joined = await ann.receive_json_from()
        await app.state.consumers.broadcast("inbox.ann", "finished", {"job": "1"})
        async with inbox(app, "ann", f"?recover={joined['epoch']}:{joined['offset']}") as ann:
            assert (await ann.receive_json_from())["recovered"] is True
            assert (await hears(ann, "finished"))["data"] == {"job": "1"}


class TestTheWorker:
    @pytest.mark.parametrize(("below", "count"), [(2, 0), (3, 1), (10, 4), (100, 25), (10_000, 1229)])
    def test_it_counts(self, below: int, count: int) -> None:
        assert list(count_primes(below)) == [(below, count)]
        assert len(sieve(below)) == count

    def test_it_counts_over_segments(self) -> None:
        segments = list(count_primes(SEGMENT + 1000))
        assert [done for done, _ in segments] == [SEGMENT, SEGMENT + 1000]
        assert sum(found for _, found in segments) == len(sieve(SEGMENT + 1000))


@pytest.mark.once
class TestTwoProcesses:
    @pytest.fixture
    def url(self, valkey_url: str) -> str:
        return f"{valkey_url}?prefix={uuid.uuid4().hex}:"

    async def test_a_worker_tells_of_its_progress_and_its_end_and_it_is_kept(self, url: str) -> None:
        app = make_app(url, secret=SECRET)
        async with lifespan(app):
            async with browser(app, "ann") as client, inbox(app, "ann") as ann:
                job = await start(client, 10_000_000)
                await hears(ann, "started")
                assert 0 < (await hears(ann, "progress", PATIENCE))["data"]["done"] <= 1
                finished = await hears(ann, "finished", PATIENCE)
                assert finished["data"]["job"] == job
                assert finished["data"]["text"] == "There are 664,579 primes below 10,000,000."
        # Another process of the application, later.
        app = make_app(url, secret=SECRET)
        async with lifespan(app):
            async with browser(app, "ann") as client, inbox(app, "ann") as ann:
                assert await past(ann) == ["finished", "started"]
                assert (await client.get("/unread")).json() == 1

    async def test_one_that_is_killed_is_told_to_have_failed(self, url: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "examples.notifications.jobs")
        app = make_app(url, secret=SECRET)
        async with lifespan(app):
            async with browser(app, "bob") as client, inbox(app, "bob") as bob:
                await start(client, 10**9)
                await hears(bob, "progress", PATIENCE)
                (pid,) = re.findall(r"process (\d+)", caplog.text)
                os.kill(int(pid), signal.SIGKILL)
                assert (await hears(bob, "failed", PATIENCE))["data"]["text"] == "The worker ended with code -9."
                assert "finished" not in await past(bob)

    async def test_jobs_end_with_the_app_and_their_users_are_told(self, url: str) -> None:
        for _ in range(2):
            app = make_app(url, secret=SECRET)
            async with lifespan(app):
                async with browser(app, "ann") as client, inbox(app, "ann") as ann:
                    found = (await ann.call("history", timeout=20))["results"]
                    if not found:
                        await start(client, 10**9)
                        await hears(ann, "progress", PATIENCE)
        assert [entry["event"] for entry in found] == ["failed", "started"]
        assert found[0]["data"]["text"] == "The server was stopped."


class TestThePage:
    async def test_it_loads_only_what_the_app_serves(self, app: FastAPI) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            page = await client.get("/")
            assert page.headers["content-security-policy"].startswith("default-src 'self'")
            for link in [*re.findall(r'(?:src|href)="([^"#]+)"', page.text), "/static/client.js"]:
                assert (await client.get(link)).status_code == 200, link

    def test_nothing_of_it_is_elsewhere_or_inline(self) -> None:
        for file in STATIC.iterdir():
            text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"://|innerHTML|<style|style=|<script(?![^>]*src=)|\son\w+=\"", text), file.name
