"""Notifications: in one process with a job that the test ends, and with a real worker and a real broker."""

import asyncio
import base64
import json
import os
import re
import signal
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import httpx
import itsdangerous
import pytest
from fastapi import FastAPI

from examples.notifications.app import STATIC, make_app
from examples.notifications.jobs import Job
from examples.notifications.worker import SEGMENT, count_primes, sieve
from fastapi_consumers.testing import CallError, WebsocketCommunicator, lifespan

SECRET = "a secret of the tests, which is long enough"


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
    """A session of Starlette's SessionMiddleware."""
    data = base64.b64encode(json.dumps({"user": name}).encode())
    return "session=" + itsdangerous.TimestampSigner(SECRET).sign(data).decode()


def browser(app: FastAPI, name: str) -> httpx.AsyncClient:
    headers = {"cookie": cookie(name)}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver", headers=headers)


def inbox(app: FastAPI, name: str, query: str = "") -> WebsocketCommunicator:
    return WebsocketCommunicator(app, f"/ws{query}", headers={"cookie": cookie(name)})


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


class TestSessions:
    async def test_who_logs_in_by_the_page_may_open_the_socket(self, app: FastAPI) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            for name, password in (("ann", "milk"), ("ann", ""), ("eve", ""), ("eve", "x")):
                assert (await client.post("/login", json={"name": name, "password": password})).status_code == 403
            assert (await client.get("/me")).json() is None
            assert (await client.post("/login", json={"name": "ann", "password": "tea"})).json() == {"id": "ann"}
            assert (await client.get("/me")).json() == {"id": "ann"}
            headers = {"cookie": f"session={client.cookies['session']}"}
            async with WebsocketCommunicator(app, "/ws", headers=headers) as ann:
                assert (await ann.receive_json_from())["group"] == "inbox.ann"
                assert (await client.post("/logout")).status_code == 204
                await ann.assert_closed(4401)
            assert (await client.get("/me")).json() is None

    @pytest.mark.parametrize("headers", [{}, {"cookie": cookie("eve")}, {"cookie": cookie("ann")[:-1]}])
    async def test_nobody_else_may(self, app: FastAPI, headers: dict[str, str]) -> None:
        async with WebsocketCommunicator(app, "/ws", headers=headers) as stranger:
            assert (await stranger.receive_json_from())["error"]["code"] == "not_authenticated"
            await stranger.assert_closed(4401)

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
                assert 0 < (await hears(ann, "progress", 30))["data"]["done"] <= 1
                finished = await hears(ann, "finished", 30)
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
                await hears(bob, "progress", 30)
                (pid,) = re.findall(r"process (\d+)", caplog.text)
                os.kill(int(pid), signal.SIGKILL)
                assert (await hears(bob, "failed", 30))["data"]["text"] == "The worker ended with code -9."
                assert "finished" not in await past(bob)

    async def test_jobs_end_with_the_app_and_their_users_are_told(self, url: str) -> None:
        for _ in range(2):
            app = make_app(url, secret=SECRET)
            async with lifespan(app):
                async with browser(app, "ann") as client, inbox(app, "ann") as ann:
                    found = (await ann.call("history", timeout=20))["results"]
                    if not found:
                        await start(client, 10**9)
                        await hears(ann, "progress", 30)
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
