"""The server of the chat demo, room by room. Throttles count by name, so each test has names of its own."""

import logging
import re
from typing import Any

import httpx
import pytest

from examples.chat.app import STATIC, GroupRoom, RoomForTwo, app
from fastapi_consumers.testing import WebsocketCommunicator
from fastapi_consumers.testing.errors import CallError


def enter(room: str, name: str | None = None) -> WebsocketCommunicator:
    return WebsocketCommunicator(app, f"/ws/{room}" if name is None else f"/ws/{room}?name={name}")


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


@pytest.fixture(autouse=True)
def rooms_end_empty() -> Any:
    yield
    assert RoomForTwo.people.all() == []
    assert RoomForTwo.counter == 0
    assert GroupRoom.people.all() == []


class TestThePage:
    async def test_it_loads_only_what_the_app_serves(self) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
            page = await client.get("/")
            assert page.headers["content-type"].startswith("text/html")
            assert page.headers["content-security-policy"].startswith("default-src 'self'")
            links = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
            assert {"/static/main.js", "/static/style.css", "/static/icon.svg"} <= set(links)
            for link in [*links, "/static/connection.js"]:
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
            assert (await welcomed(visitor))["you"]["name"] == "<b>Éva"

    async def test_thirty_characters_are_not_too_many(self) -> None:
        async with enter("group", "%C3%A9" * 30) as visitor:
            assert (await welcomed(visitor))["you"]["name"] == "é" * 30

    async def test_two_may_have_the_same(self) -> None:
        async with enter("group", "Twin") as one, enter("group", "Twin") as other:
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
                    "error": {"code": "group_full", "message": "This group is full."},
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

    async def test_counting_too_fast_is_refused_with_the_time_to_wait(self) -> None:
        async with enter("two", "Counting Ada") as ada, enter("two", "Counting Bob") as bob:
            await welcomed(ada)
            await welcomed(bob)
            await came(ada, "Counting Bob")
            assert [await ada.call("count") for _ in range(5)] == [1, 2, 3, 4, 5]
            with pytest.raises(CallError) as failed:
                await ada.call("count")
            assert failed.value.code == "throttled"
            assert 0 < failed.value.retry_after <= 2
            # Each has an allowance of their own, and the socket is as it was.
            assert await bob.call("count") == 6
            for counter in range(1, 7):
                assert (await ada.assert_event("counted"))["data"]["counter"] == counter
            assert (await ada.call("who"))["you"]["name"] == "Counting Ada"

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
            await welcomed(ada)
            await welcomed(bob)
            async with enter("group", "Cleo") as cleo:
                you = (await welcomed(cleo))["you"]
                assert names(await came(bob, "Cleo")) == ["Ada", "Bob", "Cleo"]
                await cleo.call("message", {"text": "hi"})
                await cleo.assert_event("said", {"by": you, "text": "hi"}, "group")
                await bob.assert_event("said", {"by": you, "text": "hi"}, "group")
            assert names((await bob.assert_event("left"))["data"]) == ["Ada", "Bob"]

    async def test_an_error_that_stays(self) -> None:
        async with enter("group", "Ada") as ada:
            with pytest.raises(CallError) as failed:
                await ada.call("grumble")
            assert failed.value.code == "be_kind"
            assert names(await ada.call("who")) == ["Ada"]

    async def test_an_error_that_closes(self) -> None:
        async with enter("group", "Ada") as ada, enter("group", "Bob") as bob:
            await came(ada, "Bob")
            with pytest.raises(CallError) as failed:
                await bob.call("misbehave")
            assert (failed.value.code, failed.value.message) == ("shown_out", "You have been shown out of the room.")
            await bob.assert_closed(1008)
            assert bob.close_reason == "shown_out"
            assert names((await ada.assert_event("left"))["data"]) == ["Ada"]

    async def test_one_who_talks_too_much_must_wait(self) -> None:
        async with enter("group", "Talker") as talker:
            with pytest.raises(CallError) as failed:
                for _ in range(21):
                    await talker.call("message", {"text": "and"})
            assert failed.value.code == "throttled"
            assert failed.value.retry_after > 0


class TestLeaving:
    """However somebody goes, the others are told, and the list is right."""

    @pytest.mark.parametrize("room", ["two", "group"])
    @pytest.mark.parametrize("code", [1000, 1001, 1006])
    async def test_by_closing_reloading_or_losing_the_network(self, room: str, code: int) -> None:
        async with enter(room, "Ada") as ada, enter(room, "Bob") as bob:
            await came(ada, "Bob")
            await bob.disconnect(code)
            assert names((await ada.assert_event("left"))["data"]) == ["Ada"]

    @pytest.mark.parametrize("room", ["two", "group"])
    async def test_by_a_frame_that_is_too_big(self, room: str) -> None:
        async with enter(room, "Ada") as ada, enter(room, "Bob") as bob:
            await came(ada, "Bob")
            await bob.send_to("x" * 4097)
            await bob.assert_closed(1009)
            assert names((await ada.assert_event("left"))["data"]) == ["Ada"]

    @pytest.mark.parametrize("room", ["two", "group"])
    async def test_by_being_killed(self, room: str) -> None:
        async with enter(room, "Ada") as ada:
            bob = enter(room, "Bob")
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
            assert names((await ada.assert_event("left"))["data"]) == ["Ada"]
