"""The server of the agent: answers in parts, several at a time, that can be stopped."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from examples.agent.app import STATIC, make_app
from examples.agent.model import NOTES, NOTHING, Model
from fastapi_consumers.testing import CallError, Clock, WebsocketCommunicator


class Halting(Model):
    """Gives one word, and no more until it may go on."""

    def __init__(self) -> None:
        super().__init__(pause=0)
        self.may_go_on = asyncio.Event()

    async def answer(self, question: str) -> AsyncGenerator[str, None]:
        async with aclosing(super().answer(question)) as words:
            async for word in words:
                yield word
                await self.may_go_on.wait()


@pytest.fixture
def model() -> Halting:
    return Halting()


@pytest.fixture
def app(model: Halting) -> FastAPI:
    return make_app(model)


async def ask(client: WebsocketCommunicator, request_id: int, question: str = "What is presence?") -> None:
    await client.send_json_to({"action": "ask", "request_id": request_id, "data": {"question": question}})


async def cancel(client: WebsocketCommunicator, request_id: int) -> None:
    await client.send_json_to({"action": "cancel", "data": {"request_id": request_id}})


async def part(client: WebsocketCommunicator) -> tuple[int, str]:
    """The next one: of which question it is, and its text."""
    frame = await client.receive_json_from()
    assert frame["status"] == "partial"
    return frame["request_id"], frame["data"]


async def cancelled(client: WebsocketCommunicator, request_id: int) -> None:
    frame = await client.receive_json_from()
    assert (frame["request_id"], frame["error"]["code"]) == (request_id, "cancelled")


async def stopped(model: Model, busy: int) -> None:
    async with asyncio.timeout(20):
        while True:
            await asyncio.sleep(0)
            if model.busy == busy:
                break


async def test_an_answer_comes_word_by_word() -> None:
    model = Model(pause=0)
    async with WebsocketCommunicator(make_app(model), "/ws") as client:
        words = [word async for word in client.stream("ask", {"question": "What is presence?"})]
        assert "".join(words) == model.find("What is presence?")
        assert len(words) == len("".join(words).split())
    assert model.busy == 0


async def test_one_is_stopped_and_another_goes_on(app: FastAPI, model: Halting) -> None:
    async with WebsocketCommunicator(app, "/ws") as client:
        await ask(client, 1)
        assert await part(client) == (1, "Presence ")
        await ask(client, 2, "What happens to a slow client?")
        assert await part(client) == (2, "A ")
        assert model.busy == 2
        await cancel(client, 1)
        await cancelled(client, 1)
        assert model.busy == 1
        model.may_go_on.set()
        rest = ""
        while (frame := await client.receive_json_from())["status"] == "partial":
            assert frame["request_id"] == 2
            rest += frame["data"]
        assert frame["status"] == "ok"
        assert "A " + rest == model.find("What happens to a slow client?")


async def test_three_are_answered_at_a_time(app: FastAPI, model: Halting) -> None:
    async with WebsocketCommunicator(app, "/ws") as client:
        for request_id in range(1, 6):
            await ask(client, request_id)
        assert sorted([await part(client) for _ in range(3)]) == [(number, "Presence ") for number in (1, 2, 3)]
        assert await client.receive_nothing()
        # One that waits can be stopped as well.
        await cancel(client, 4)
        await cancel(client, 2)
        answers = [await client.receive_json_from() for _ in range(3)]
        assert {(each["request_id"], each["status"]) for each in answers} == {
            (4, "error"),
            (2, "error"),
            (5, "partial"),
        }
        assert model.busy == 3


async def test_nobody_works_for_one_who_has_gone(app: FastAPI, model: Halting) -> None:
    async with WebsocketCommunicator(app, "/ws") as client:
        await ask(client, 1)
        await part(client)
    await stopped(model, 0)


@pytest.mark.parametrize("question", ["", "  ", "x" * 301, None])
async def test_what_is_no_question_is_refused(app: FastAPI, model: Halting, question: Any) -> None:
    async with WebsocketCommunicator(app, "/ws") as client:
        with pytest.raises(CallError) as caught:
            await client.call("ask", {"question": question})
        assert (caught.value.code, caught.value.details[0]["loc"]) == ("invalid_data", ["question"])
        assert model.busy == 0


async def test_who_asks_too_often_is_told_how_long_to_wait_and_can_still_stop(
    app: FastAPI, stop_time: Callable[[FastAPI], Clock]
) -> None:
    stop_time(app)
    async with WebsocketCommunicator(app, "/ws") as client:
        await ask(client, 1)
        await part(client)
        for _ in range(19):
            with pytest.raises(CallError):
                await client.call("ask", {"question": ""})
        with pytest.raises(CallError) as caught:
            await client.call("ask", {"question": "And now?"})
        assert (caught.value.code, caught.value.retry_after) == ("throttled", 3)
        await cancel(client, 1)
        await cancelled(client, 1)


@pytest.mark.parametrize(
    ("question", "word"),
    [
        ("How does an action stream its answer?", "generator"),
        ("How do I CANCEL a request?", "request_id"),
        ("What is presence?", "lease"),
        ("How do I test it?", "WebsocketCommunicator"),
    ],
)
def test_the_model_knows_its_notes(question: str, word: str) -> None:
    answer = Model().find(question)
    assert word in answer
    assert answer == Model().find(question)
    assert set(answer.split("\n\n")) <= set(NOTES)


@pytest.mark.parametrize("question", ["", "What is the meaning of life?", "?!"])
def test_the_model_knows_what_it_does_not_know(question: str) -> None:
    assert Model().find(question) == NOTHING


async def test_the_page_loads_only_what_the_app_serves(app: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        page = await client.get("/")
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        links = set(re.findall(r'(?:src|href)="([^"#]+)"', page.text))
        for file in STATIC.iterdir():
            text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "://" not in text, file.name
            assert "innerHTML" not in text, file.name
            links |= set(re.findall(r'from "([^"]+)"', text))
        assert links == {f"/static/{file.name}" for file in STATIC.iterdir() if file.name != "index.html"}
        for link in links:
            assert (await client.get(link)).status_code == 200, link
    assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=", page.text)
