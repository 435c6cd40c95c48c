"""The server of the list of tasks: what is kept, what is told, and what happens to changes that meet."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from examples.tasks.app import LIMIT, STATIC, Task, get_session, make_app
from fastapi_consumers.testing import CallError, WebsocketCommunicator, lifespan


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return make_app(tmp_path / "tasks.db")


def enter(app: FastAPI, name: str = "home", query: str = "") -> WebsocketCommunicator:
    return WebsocketCommunicator(app, f"/ws/{name}{query}")


async def joined(client: WebsocketCommunicator) -> dict[str, Any]:
    frame: dict[str, Any] = await client.receive_json_from()
    assert frame["type"] == "joined"
    return frame


async def add(client: WebsocketCommunicator, text: str) -> str:
    """Its id."""
    id = str(uuid4())
    [task] = await client.call("add", {"id": id, "text": text})
    assert (task["id"], task["text"], task["done"]) == (id, text.strip(), False)
    return id


async def texts(client: WebsocketCommunicator) -> list[str]:
    return [task["text"] for task in await client.call("read")]


async def refusal(client: WebsocketCommunicator, action: str, **data: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        await client.call(action, data)
    return caught.value


async def test_all_see_what_one_does_and_other_lists_do_not(app: FastAPI) -> None:
    async with enter(app) as ann, enter(app) as bob, enter(app, "work") as eve:
        for client in (ann, bob, eve):
            await joined(client)
        id = await add(ann, " Buy milk ")
        [task] = (await bob.assert_event("changed", group="list.home"))["data"]["tasks"]
        assert (task["text"], task["version"]) == ("Buy milk", 1)
        [changed] = await bob.call("check", {"id": id, "done": True})
        assert (changed["done"], changed["version"]) == (True, 2)
        await bob.assert_event("changed", {"tasks": [changed]})
        await bob.call("rename", {"id": id, "text": "Buy bread"})
        await bob.assert_event("changed")
        await ann.call("remove", {"id": id})
        await bob.assert_event("removed", {"id": id})
        assert await texts(bob) == []
        assert await eve.receive_nothing()


async def test_tasks_outlive_the_app(app: FastAPI, tmp_path: Path) -> None:
    async with enter(app) as ann:
        await joined(ann)
        await add(ann, "Buy milk")
    other = make_app(tmp_path / "tasks.db")
    async with enter(other) as ann, enter(other, "work") as eve:
        await joined(ann)
        await joined(eve)
        assert await texts(ann) == ["Buy milk"]
        assert await texts(eve) == []


@pytest.mark.parametrize("text", ["", "  ", "x" * 101, None, 1])
async def test_what_is_no_text_is_refused_with_the_reason(app: FastAPI, text: Any) -> None:
    async with enter(app) as ann:
        await joined(ann)
        error = await refusal(ann, "add", id=str(uuid4()), text=text)
        assert error.code == "invalid_data"
        assert [detail["loc"] for detail in error.details] == [["text"]]
        assert error.details[0]["message"]
        assert await texts(ann) == []


async def test_what_is_asked_twice_is_done_once(app: FastAPI) -> None:
    async with enter(app) as ann:
        await joined(ann)
        id = await add(ann, "Buy milk")
        for _ in range(2):
            [task] = await ann.call("add", {"id": id, "text": "Buy milk"})
            assert task["version"] == 1
        for _ in range(2):
            assert await ann.call("remove", {"id": id}) is None
        # It is told again too: perhaps only the database heard of it the first time.
        for event in ("changed", "changed", "changed", "removed", "removed"):
            await ann.assert_event(event)
        assert await ann.receive_nothing()


async def test_what_another_has_removed_is_gone(app: FastAPI) -> None:
    async with enter(app) as ann, enter(app, "work") as eve:
        await joined(ann)
        await joined(eve)
        id = await add(ann, "Buy milk")
        # Of another list it may not be touched either.
        assert (await refusal(eve, "rename", id=id, text="Stolen")).code == "not_found"
        assert (await refusal(eve, "remove", id=id)).code == "not_found"
        assert await texts(ann) == ["Buy milk"]
        await ann.call("remove", {"id": id})
        assert (await refusal(ann, "check", id=id, done=True)).message == "Somebody has removed this task."


async def test_a_list_has_its_limit(app: FastAPI) -> None:
    async with lifespan(app) as state, enter(app) as ann:
        await joined(ann)
        async with state["sessions"]() as session:
            session.add_all(Task(id=uuid4(), list_name="home", text=str(each), position=each) for each in range(LIMIT))
            await session.commit()
        assert (await refusal(ann, "add", id=str(uuid4()), text="One more")).code == "list_full"


async def test_moving(app: FastAPI) -> None:
    async with enter(app) as ann:
        await joined(ann)
        one, two, three = [await add(ann, text) for text in ("one", "two", "three")]
        await ann.call("move", {"id": three, "after": one})
        assert await texts(ann) == ["one", "three", "two"]
        await ann.call("move", {"id": two, "after": None})
        assert await texts(ann) == ["two", "one", "three"]
        await ann.call("move", {"id": two, "after": three})
        assert await texts(ann) == ["one", "three", "two"]
        await ann.call("move", {"id": two, "after": two})
        assert await texts(ann) == ["one", "three", "two"]
        assert (await refusal(ann, "move", id=one, after=str(uuid4()))).code == "not_found"


async def test_there_is_always_room_between_two(app: FastAPI) -> None:
    async with lifespan(app) as state, enter(app) as ann:
        await joined(ann)
        one, two, three = [await add(ann, text) for text in ("one", "two", "three")]
        async with state["sessions"]() as session:
            close = await session.get(Task, UUID(two))
            assert close is not None
            close.position = 1 + 2**-52  # the number that follows that of the first
            await session.commit()
        changed = await ann.call("move", {"id": three, "after": one})
        assert [(task["text"], task["position"]) for task in changed] == [("one", 1), ("three", 2), ("two", 3)]
        assert await texts(ann) == ["one", "three", "two"]


async def test_who_comes_back_is_sent_what_they_missed(app: FastAPI) -> None:
    async with lifespan(app), enter(app) as bob:
        await joined(bob)
        async with enter(app) as ann:
            place = await joined(ann)
            id = await add(ann, "Buy milk")
            offset = (await ann.assert_event("changed"))["offset"]
        await bob.call("check", {"id": id, "done": True})
        await bob.call("remove", {"id": id})
        async with enter(app, query=f"?recover={place['epoch']}:{offset}") as ann:
            assert (await joined(ann))["recovered"] is True
            [task] = (await ann.assert_event("changed"))["data"]["tasks"]
            assert task["done"] is True
            await ann.assert_event("removed", {"id": id})
            assert await ann.receive_nothing()


async def test_after_a_restart_the_list_has_to_be_read(app: FastAPI, tmp_path: Path) -> None:
    async with enter(app) as ann:
        place = await joined(ann)
        await add(ann, "Buy milk")
    async with enter(make_app(tmp_path / "tasks.db"), query=f"?recover={place['epoch']}:0") as ann:
        assert (await joined(ann))["recovered"] is False
        assert await texts(ann) == ["Buy milk"]


async def test_two_changes_at_once_are_a_conflict_and_can_be_asked_for_again(app: FastAPI) -> None:
    rivals = ["Bob was faster"]

    class Raced(AsyncSession):
        """Just before it commits, somebody else changes the same task."""

        async def commit(self) -> None:
            async with sessions() as rival:
                for text in rivals:
                    for task in self.dirty:
                        other = await rival.get(Task, task.id)
                        assert other is not None
                        other.text = text
                await rival.commit()
            rivals.clear()
            await super().commit()

    async def raced(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
        async with Raced(sessions.kw["bind"], expire_on_commit=False) as session:
            yield session

    async with lifespan(app) as state, enter(app) as ann:
        sessions = state["sessions"]
        await joined(ann)
        id = await add(ann, "Buy milk")
        app.dependency_overrides[get_session] = raced
        error = await refusal(ann, "rename", id=id, text="Buy bread")
        assert (error.code, error.retryable) == ("conflict", True)
        assert await texts(ann) == ["Bob was faster"]
        [task] = await ann.call("rename", {"id": id, "text": "Buy bread"})
        assert (task["text"], task["version"]) == ("Buy bread", 3)


async def test_the_page_loads_only_what_the_app_serves(app: FastAPI) -> None:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver", follow_redirects=True) as client:
        page = await client.get("/")
        assert page.url.path == "/lists/home"
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
