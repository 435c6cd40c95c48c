"""The server of the chat demo, room by room. Throttles count by name, so each test has names of its own."""

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from examples.chat.app import STATIC, GroupRoom, RoomForTwo, make_app
from fastapi_consumers.testing import Clock, WebsocketCommunicator, lifespan
from fastapi_consumers.testing.errors import CallError

StopTime = Callable[[FastAPI], Clock]

_app: FastAPI


@pytest.fixture(autouse=True)
def app(tmp_path: Path) -> FastAPI:
    """An app, and a database, for each test."""
    global _app
    _app = make_app(tmp_path / "chat.db")
    return _app


def enter(room: str, name: str | None = None, query: str = "", *, app: FastAPI | None = None) -> WebsocketCommunicator:
    path = f"/ws/{room}" if name is None else f"/ws/{room}?name={name}{query}"
    return WebsocketCommunicator(app or _app, path)


def names(data: dict[str, Any]) -> list[str]:
    return [person["name"] for person in data["people"]]


async def welcomed(visitor: WebsocketCommunicator) -> dict[str, Any]:
    frame = await visitor.assert_event("welcome")
    data: dict[str, Any] = frame["data"]
    return data


async def came(visitor: WebsocketCommunicator, name: str) -> dict[str, Any]:
    """What the visitor is told of somebody who comes in, whether they have read their own welcome or not."""
    for _ in range(2):
        frame = await visitor.receive_json_from()
        if frame["event"] != "welcome":
            break
    assert (frame["event"], frame["data"]["person"]["name"]) == ("joined", name)
    data: dict[str, Any] = frame["data"]
    return data


async def notice(visitor: WebsocketCommunicator, kind: str, timeout: float = 20) -> dict[str, Any]:
    """The next notice of this kind; what comes before it is passed over."""
    async with asyncio.timeout(timeout):
        while (frame := await visitor.receive_json_from(timeout))["type"] != kind:
            pass
    found: dict[str, Any] = frame
    return found


async def hear_of(visitor: WebsocketCommunicator, change: str, *expected: str, timeout: float = 20) -> None:
    """Just these people come (``joins``) or go (``leaves``), told in however many notices."""
    found: list[str] = []
    while len(found) < len(expected):
        found += (await notice(visitor, "presence", timeout))[change]
    assert sorted(found) == sorted(expected)


async def past(visitor: WebsocketCommunicator, **data: Any) -> list[str]:
    """What was said, the newest first."""
    page = await visitor.call("history", data)
    return [entry["data"]["text"] for entry in page["results"]]


@pytest.fixture(autouse=True)
def rooms_end_empty() -> Any:
    yield
    assert RoomForTwo.people.all() == []
    assert RoomForTwo.counter == 0


class TestThePage:
    async def test_it_loads_only_what_the_app_serves(self, app: FastAPI) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            page = await client.get("/")
            assert page.headers["content-type"].startswith("text/html")
            assert page.headers["content-security-policy"].startswith("default-src 'self'")
            links = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
            assert {"/static/main.js", "/static/style.css", "/static/icon.svg"} <= set(links)
            modules = [f"/static/{name}.js" for name in ("connection", "dom", "log", "people")]
            for link in [*links, *modules]:
                answer = await client.get(link)
                assert answer.status_code == 200, link
                assert "javascript" in answer.headers["content-type"] or not link.endswith(".js"), link

    def test_nothing_of_it_is_elsewhere_or_inline(self) -> None:
        for file in STATIC.iterdir():
            text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "://" not in text, file.name
            assert "innerHTML" not in text, file.name
        html = (STATIC / "index.html").read_text("utf-8")
        assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=", html)


class TestNames:
    @pytest.mark.parametrize("room", ["two", "group"])
    @pytest.mark.parametrize("name", ["", "%20%20", "x" * 31, "a%0Ab", "a%00b"])
    async def test_one_that_is_none_is_refused_with_the_reason(self, room: str, name: str) -> None:
        async with enter(room, name) as visitor:
            frame = await visitor.receive_json_from()
            assert frame["type"] == "error"
            assert frame["error"] == {"code": "invalid_data", "message": "A name has 1 to 30 characters, on one line."}
            await visitor.assert_closed(4400)

    @pytest.mark.parametrize("room", ["two", "group"])
    async def test_nobody_comes_in_without_one(self, room: str) -> None:
        async with enter(room) as visitor:
            assert (await visitor.receive_json_from())["error"]["code"] == "not_authenticated"
            await visitor.assert_closed(4401)

    async def test_it_is_trimmed_and_otherwise_kept_as_it_is(self) -> None:
        async with enter("group", "%20%3Cb%3E%C3%89va%20") as visitor:
            assert (await welcomed(visitor))["you"] == "<b>Éva"

    async def test_thirty_characters_are_not_too_many(self) -> None:
        async with enter("group", "%C3%A9" * 30) as visitor:
            assert (await welcomed(visitor))["you"] == "é" * 30

    async def test_two_may_have_the_same(self) -> None:
        async with enter("two", "Twin") as one, enter("two", "Twin") as other:
            first, second = await welcomed(one), await welcomed(other)
            assert names(second) == ["Twin", "Twin"]
            assert first["you"]["id"] != second["you"]["id"]


class TestTheRelay:
    async def test_text_comes_to_all_exactly_as_it_was_sent(self) -> None:
        async with enter("relay") as one, enter("relay") as other:
            for text in ("hello", '{"action": "say"}', "  \t<b>\u2028é🎉", ""):
                await one.send_to(text)
                assert await one.receive_from() == await other.receive_from() == text

    async def test_bytes_too(self) -> None:
        async with enter("relay") as one, enter("relay") as other:
            await one.send_to(bytes_data=b"\x00\xff")
            assert await other.receive_from() == b"\x00\xff"

    async def test_a_message_that_is_too_big_ends_only_its_own_connection(self) -> None:
        async with enter("relay") as one, enter("relay") as other:
            await one.send_to("x" * 4097)
            await one.assert_closed(1009)
            assert await other.receive_nothing()


class TestTheRoomForTwo:
    async def test_both_know_who_is_there(self) -> None:
        async with enter("two", "Ada") as ada:
            first = await welcomed(ada)
            assert names(first) == ["Ada"]
            async with enter("two", "Bob") as bob:
                assert names(await welcomed(bob)) == names(await came(ada, "Bob")) == ["Ada", "Bob"]
                assert await ada.call("who") == {
                    "you": first["you"],
                    "people": (await bob.call("who"))["people"],
                }
                assert await bob.receive_nothing(), "whoever comes in is not told that they did"
            left = (await ada.assert_event("left"))["data"]
            assert (left["person"]["name"], names(left)) == ("Bob", ["Ada"])

    async def test_a_third_is_told_that_it_is_full_and_may_come_later(self) -> None:
        async with enter("two", "Ada") as ada, enter("two", "Bob") as bob:
            async with enter("two", "Cleo") as cleo:
                assert await cleo.receive_json_from() == {
                    "type": "error",
                    "error": {"code": "group_full", "message": "This group is full.", "retryable": True},
                }
                await cleo.assert_closed(1013)
                assert cleo.close_reason == "group_full"
            await came(ada, "Bob")
            await bob.disconnect()
            assert names((await ada.assert_event("left"))["data"]) == ["Ada"]
            async with enter("two", "Cleo") as cleo:
                assert names(await welcomed(cleo)) == ["Ada", "Cleo"]

    async def test_what_one_says_both_hear(self) -> None:
        async with enter("two", "Ada") as ada, enter("two", "Bob") as bob:
            you = (await welcomed(ada))["you"]
            await welcomed(bob)
            await came(ada, "Bob")
            assert await ada.call("say", {"text": " hi <b> "}) is None
            await ada.assert_event("said", {"by": you, "text": "hi <b>"}, "two")
            await bob.assert_event("said", {"by": you, "text": "hi <b>"}, "two")

    @pytest.mark.parametrize("data", [None, {}, {"text": ""}, {"text": "  "}, {"text": "x" * 501}, {"text": 1}])
    async def test_what_is_no_text_is_not_said(self, data: Any) -> None:
        async with enter("two", "Ada") as ada:
            await welcomed(ada)
            with pytest.raises(CallError) as failed:
                await ada.call("say", data)
            assert failed.value.code == "invalid_data"
            assert failed.value.details[0]["message"]
            assert await ada.receive_nothing()

    async def test_counting_too_fast_is_refused_with_the_time_to_wait(self, stop_time: StopTime) -> None:
        clock = stop_time(_app)
        async with enter("two", "Counting Ada") as ada, enter("two", "Counting Bob") as bob:
            await welcomed(ada)
            await welcomed(bob)
            await came(ada, "Counting Bob")
            assert [await ada.call("count") for _ in range(5)] == [1, 2, 3, 4, 5]
            with pytest.raises(CallError) as failed:
                await ada.call("count")
            assert (failed.value.code, failed.value.retry_after) == ("throttled", 2)
            # Each has an allowance of their own, and the socket is as it was.
            assert await bob.call("count") == 6
            for counter in range(1, 7):
                assert (await ada.assert_event("counted"))["data"]["counter"] == counter
            assert (await ada.call("who"))["you"]["name"] == "Counting Ada"
            clock.advance(2)
            assert await ada.call("count") == 7

    async def test_the_counter_is_of_those_who_are_there(self) -> None:
        async with enter("two", "Early Ada") as ada:
            await welcomed(ada)
            await ada.call("count")
            async with enter("two", "Bob") as bob:
                assert (await welcomed(bob))["counter"] == 1
        async with enter("two", "Cleo") as cleo:
            assert (await welcomed(cleo))["counter"] == 0

    async def test_a_deprecated_action_works_and_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        async with enter("two", "Ada") as ada:
            you = (await welcomed(ada))["you"]
            with caplog.at_level(logging.WARNING, "fastapi_consumers"):
                assert "deprecated" in await ada.call("wave")
            assert "deprecated action 'wave'" in caplog.text
            await ada.assert_event("waved", {"by": you})

    @pytest.mark.parametrize(
        ("action", "code"),
        [
            ("clear", "permission_denied"),
            ("shout", "action_disabled"),
            ("fail", "out_of_tea"),
            ("close_room", "action_not_found"),
            ("remove", "action_not_found"),
        ],
    )
    async def test_what_goes_wrong_leaves_the_socket_open(self, action: str, code: str) -> None:
        async with enter("two", "Ada") as ada:
            await welcomed(ada)
            with pytest.raises(CallError) as failed:
                await ada.call(action, {"text": "Hey!"} if action == "shout" else None)
            assert failed.value.code == code
            assert failed.value.message
            assert names(await ada.call("who")) == ["Ada"]

    async def test_close_ends_the_own_connection_alone(self) -> None:
        async with enter("two", "Ada") as ada, enter("two", "Bob") as bob:
            await came(ada, "Bob")
            await bob.send_json_to({"action": "close"})
            await bob.assert_closed(1000)
            assert names((await ada.assert_event("left"))["data"]) == ["Ada"]
            assert names(await ada.call("who")) == ["Ada"]


class TestTheGroup:
    async def test_everybody_hears_who_comes_what_is_said_and_who_goes(self) -> None:
        async with enter("group", "Ada") as ada, enter("group", "Bob") as bob:
            await hear_of(ada, "joins", "Ada", "Bob")
            async with enter("group", "Cleo") as cleo:
                await hear_of(ada, "joins", "Cleo")
                assert list((await cleo.call("presence"))["members"]) == ["Ada", "Bob", "Cleo"]
                await cleo.call("message", {"text": " hi <b> "})
                await cleo.assert_event("welcome")
                await bob.assert_event("welcome")
                for visitor in (cleo, bob):
                    said = await visitor.assert_event("said", group="group")
                    assert (said["data"]["by"], said["data"]["text"], said["offset"]) == ("Cleo", "hi <b>", 1)
            # Not before she has had the time to come back.
            await hear_of(ada, "leaves", "Cleo", timeout=20)
            assert (await ada.call("presence"))["count"] == 2

    async def test_several_windows_are_one_person(self) -> None:
        async with enter("group", "Ada") as ada, enter("group", "Bob") as bob:
            await hear_of(bob, "joins", "Ada", "Bob")
            async with enter("group", "Bob"):
                [meta] = (await notice(ada, "presence"))["joins"]["Ada"]["metas"]
                found = await ada.call("presence")
                assert found["count"] == 2
                assert [len(found["members"][name]["metas"]) for name in ("Ada", "Bob")] == [1, 2]
                assert found["members"]["Ada"]["metas"] == [meta]

    async def test_who_comes_back_soon_has_not_left(self) -> None:
        async with enter("group", "Ada") as ada:
            async with enter("group", "Bob"):
                await hear_of(ada, "joins", "Ada", "Bob")
            async with enter("group", "Bob") as bob:
                await welcomed(bob)
                async with enter("group", "Cleo"):
                    frame = await notice(ada, "presence")
                    assert (list(frame["joins"]), frame["leaves"]) == (["Cleo"], {})

    async def test_hints_of_writing_go_to_the_others_and_are_not_kept(self) -> None:
        async with enter("group", "Ada") as ada, enter("group", "Bob") as bob:
            await welcomed(ada)
            await welcomed(bob)
            await ada.call("typing")
            await ada.call("message", {"text": "written"})
            await bob.assert_event("typing", {"by": "Ada"}, "group.typing")
            await bob.assert_event("said")
            await ada.assert_event("said")
            assert await past(bob) == ["written"]

    async def test_too_many_hints_are_refused_and_messages_are_not(self, stop_time: StopTime) -> None:
        stop_time(_app)
        async with enter("group", "Hinting") as ada:
            for _ in range(10):
                await ada.call("typing")
            with pytest.raises(CallError) as failed:
                await ada.call("typing")
            assert (failed.value.code, failed.value.retry_after) == ("throttled", 1)
            await ada.call("message", {"text": "written"})

    async def test_a_private_message_goes_to_the_windows_of_both_and_is_not_kept(self) -> None:
        async with (
            enter("group", "Ada") as ada,
            enter("group", "Bob") as bob,
            enter("group", "Bob") as bobs,
            enter("group", "Eve") as eve,
        ):
            for visitor in (ada, bob, bobs, eve):
                await welcomed(visitor)
            await ada.call("whisper", {"to": "Bob", "text": "psst"})
            for visitor in (ada, bob, bobs):
                data = (await visitor.assert_event("whispered"))["data"]
                assert (data["by"], data["to"], data["text"]) == ("Ada", "Bob", "psst")
            await ada.call("message", {"text": "to all"})
            await eve.assert_event("said")
            assert await past(eve) == ["to all"]

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            ({"to": "Nobody", "text": "psst"}, "not_here"),
            ({"to": "Ada", "text": ""}, "invalid_data"),
            ({"to": "", "text": "psst"}, "invalid_data"),
            ({"text": "psst"}, "invalid_data"),
        ],
    )
    async def test_a_private_message_that_cannot_be_is_refused(self, data: Any, code: str) -> None:
        async with enter("group", "Ada") as ada:
            with pytest.raises(CallError) as failed:
                await ada.call("whisper", data)
            assert failed.value.code == code

    async def test_an_error_that_stays(self) -> None:
        async with enter("group", "Ada") as ada:
            with pytest.raises(CallError) as failed:
                await ada.call("grumble")
            assert failed.value.code == "be_kind"
            assert (await ada.call("presence"))["count"] == 1

    async def test_an_error_that_closes(self) -> None:
        async with enter("group", "Ada") as ada, enter("group", "Bob") as bob:
            await hear_of(ada, "joins", "Ada", "Bob")
            with pytest.raises(CallError) as failed:
                await bob.call("misbehave")
            assert (failed.value.code, failed.value.message) == ("shown_out", "You have been shown out of the room.")
            await bob.assert_closed(1008)
            assert bob.close_reason == "shown_out"
            await hear_of(ada, "leaves", "Bob", timeout=20)

    async def test_one_who_talks_too_much_must_wait(self, stop_time: StopTime) -> None:
        clock = stop_time(_app)
        async with enter("group", "Talker") as talker:
            for _ in range(20):
                await talker.call("message", {"text": "and"})
            with pytest.raises(CallError) as failed:
                await talker.call("message", {"text": "and"})
            assert (failed.value.code, failed.value.retry_after) == ("throttled", 0.5)
            clock.advance(0.5)
            await talker.call("message", {"text": "on"})


class TestTheHistoryOfTheGroup:
    async def test_a_restart_loses_nothing(self, tmp_path: Path) -> None:
        before = make_app(tmp_path / "kept.db")
        async with lifespan(before), enter("group", "Ada", app=before) as ada:
            joined = await notice(ada, "joined")
            for text in ("one", "two", "three"):
                await ada.call("message", {"text": text})
        assert (tmp_path / "kept.db").exists()

        after = make_app(tmp_path / "kept.db")
        async with lifespan(after):
            # Somebody new reads it; whoever was there when "one" was said is given the rest, in order.
            async with enter("group", "Bob", app=after) as bob:
                assert await past(bob) == ["three", "two", "one"]
            async with enter("group", "Ada", f"&recover={joined['epoch']}:1", app=after) as ada:
                told = {"recovered": True, "missed": 2, "top": 3}
                assert await notice(ada, "joined") == {**joined, "offset": 1, **told}
                for offset, text in ((2, "two"), (3, "three")):
                    frame = await ada.assert_event("said")
                    assert (frame["offset"], frame["data"]["text"]) == (offset, text)
                await ada.assert_event("welcome")
                await ada.call("message", {"text": "four"})
                assert (await ada.assert_event("said"))["offset"] == 4

    async def test_another_database_is_another_life_of_the_group(self, tmp_path: Path) -> None:
        async with enter("group", "Ada") as ada:
            epoch = (await notice(ada, "joined"))["epoch"]
            await ada.call("message", {"text": "one"})
        other = make_app(tmp_path / "other.db")
        async with lifespan(other), enter("group", "Ada", f"&recover={epoch}:1", app=other) as ada:
            joined = await notice(ada, "joined")
            assert joined["recovered"] is False
            assert joined["epoch"] != epoch
            assert await past(ada) == []

    async def test_it_is_read_page_by_page_the_newest_first(self, app: FastAPI) -> None:
        async with enter("group", "Ada") as ada:
            for number in range(1, 71):
                await app.state.consumers.broadcast(
                    "group", "said", {"by": "Eve", "text": str(number), "at": "2026-01-02T03:04:05Z"}
                )
            found: list[str] = []
            cursor = None
            sizes = []
            while not sizes or cursor is not None:
                page = await ada.call("history", {"cursor": cursor} if cursor else {})
                sizes.append(len(page["results"]))
                found += [entry["data"]["text"] for entry in page["results"]]
                cursor = page["next"]
            assert sizes == [30, 30, 10]
            assert found == [str(number) for number in range(70, 0, -1)]


class TestLeaving:
    """However somebody goes, the other is told, and the list is right."""

    @pytest.mark.parametrize("code", [1000, 1001, 1006])
    async def test_by_closing_reloading_or_losing_the_network(self, code: int) -> None:
        async with enter("two", "Ada") as ada, enter("two", "Bob") as bob:
            await came(ada, "Bob")
            await bob.disconnect(code)
            assert names((await ada.assert_event("left"))["data"]) == ["Ada"]

    async def test_by_a_frame_that_is_too_big(self) -> None:
        async with enter("two", "Ada") as ada, enter("two", "Bob") as bob:
            await came(ada, "Bob")
            await bob.send_to("x" * 4097)
            await bob.assert_closed(1009)
            assert names((await ada.assert_event("left"))["data"]) == ["Ada"]

    async def test_by_being_killed(self) -> None:
        async with enter("two", "Ada") as ada:
            bob = enter("two", "Bob")
            await bob.connect()
            await came(ada, "Bob")
            await bob.cancel()
            assert names((await ada.assert_event("left"))["data"]) == ["Ada"]

    @pytest.mark.parametrize("room", ["two", "group"])
    async def test_by_a_crash_on_the_way_in(self, room: str, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("on purpose")

        async with enter(room, "Ada") as ada:
            await welcomed(ada)
            cls = RoomForTwo if room == "two" else GroupRoom
            with monkeypatch.context() as patch:
                patch.setattr(cls, "send_event", fail)
                async with enter(room, "Bob") as bob:
                    await bob.assert_closed(1011)
            if room == "two":
                assert names((await ada.assert_event("left"))["data"]) == ["Ada"]
            else:
                # So soon that nobody was told that he was there.
                assert list((await ada.call("presence"))["members"]) == ["Ada"]
