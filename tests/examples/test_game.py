"""The game room: who gets a seat, what the rules refuse, and who may come back."""

import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from examples.game.app import STATIC, make_app
from examples.game.rules import Game, Mark
from fastapi_consumers import ConsumerError
from fastapi_consumers.testing import CallError, WebsocketCommunicator


@pytest.fixture
def app() -> FastAPI:
    return make_app()


def enter(app: FastAPI, name: str, token: str | None = None, room: str = "green") -> WebsocketCommunicator:
    offer = ["fc.v1.json", *([f"bearer.{token}"] if token else [])]
    return WebsocketCommunicator(app, f"/ws/{room}?name={name}", subprotocols=offer)


async def welcomed(player: WebsocketCommunicator) -> dict[str, Any]:
    frame = await player.receive_json_from(10)
    while frame.get("event") != "welcome":
        frame = await player.receive_json_from(10)
    data: dict[str, Any] = frame["data"]
    return data


async def sees(player: WebsocketCommunicator, **expected: Any) -> dict[str, Any]:
    """Look at the table until it is like this; ``here`` and ``away`` are names."""
    while True:
        frame = await player.receive_json_from(10)
        if frame.get("event") != "table":
            continue
        found: dict[str, Any] = frame["data"]
        found["here"] = [seat["name"] for seat in found["seats"] if seat["is_here"]]
        found["away"] = [seat["name"] for seat in found["seats"] if not seat["is_here"]]
        if {name: found[name] for name in expected} == expected:
            return found


async def refused(player: WebsocketCommunicator, action: str, **data: Any) -> str:
    with pytest.raises(CallError) as failed:
        await player.call(action, data)
    assert failed.value.message
    return str(failed.value.code)


class TestTheRules:
    def play(self, squares: str, first: Mark = "X") -> Game:
        game = Game(first)
        for square in squares:
            assert game.turn is not None
            game.play(game.turn, int(square))
        return game

    @pytest.mark.parametrize("line", ["012", "345", "678", "036", "147", "258", "048", "246"])
    def test_three_in_a_line_win(self, line: str) -> None:
        rest = [square for square in "012345678" if square not in line]
        moves = "".join(a + b for a, b in zip(line, rest, strict=False))[:5]
        game = self.play(moves)
        assert (game.winner, game.turn, list(game.line)) == ("X", None, [int(square) for square in line])

    def test_a_full_board_without_a_line_is_a_draw(self) -> None:
        game = self.play("012436587"[:9])
        assert (game.winner, game.turn, list(game.line)) == (None, None, [])

    def test_the_last_square_may_win(self) -> None:
        assert self.play("024316578").winner == "X"

    def test_nobody_plays_twice_in_a_row_or_on_a_taken_square_or_after_the_end(self) -> None:
        game = self.play("0")
        for mark, square, code in (("X", 1, "not_your_turn"), ("O", 0, "square_taken")):
            with pytest.raises(ConsumerError) as failed:
                game.play(mark, square)  # type: ignore[arg-type]
            assert failed.value.code == code
        over = self.play("03142")
        with pytest.raises(ConsumerError) as failed:
            over.play("O", 8)
        assert failed.value.code == "game_over"


class TestSeats:
    async def test_two_sit_and_a_third_is_told_that_it_is_taken(self, app: FastAPI) -> None:
        async with enter(app, "Ada") as ada, enter(app, "Bob") as bob:
            assert [(await welcomed(each))["mark"] for each in (ada, bob)] == ["X", "O"]
            await sees(ada, here=["Ada", "Bob"])
            async with enter(app, "Cleo") as cleo:
                assert (await cleo.receive_json_from())["error"]["code"] == "group_full"
                await cleo.assert_closed(1013)
            async with enter(app, "Cleo", room="blue") as cleo:
                assert (await welcomed(cleo))["mark"] == "X"

    async def test_who_was_lost_comes_back_to_the_same_seat_and_nobody_else_gets_it(self, app: FastAPI) -> None:
        async with enter(app, "Bob") as first:
            await welcomed(first)
            async with enter(app, "Ada") as ada:
                token = (await welcomed(ada))["token"]
                await first.call("play", {"square": 4})
            await sees(first, away=["Ada"])
            async with enter(app, "Cleo") as cleo:
                assert (await cleo.receive_json_from())["error"]["code"] == "table_taken"
                await cleo.assert_closed(1013)
            async with enter(app, "Ada", token) as ada:
                assert (await welcomed(ada))["mark"] == "O"
                table = await sees(ada, here=["Bob", "Ada"])
                assert table["board"][4] == "X"
                await ada.call("play", {"square": 0})
                await sees(first, turn="X", here=["Bob", "Ada"])

    async def test_a_second_connection_of_a_player_replaces_the_first(self, app: FastAPI) -> None:
        async with enter(app, "Ada") as ada, enter(app, "Bob") as bob:
            token = (await welcomed(ada))["token"]
            async with enter(app, "Ada", token) as again:
                assert (await welcomed(again))["mark"] == "X"
                await ada.assert_closed(4409)
                await sees(bob, here=["Bob"])
                await sees(bob, here=["Ada", "Bob"])
                await again.call("play", {"square": 0})

    async def test_a_seat_is_given_up_when_its_time_is_over(self) -> None:
        app = make_app(grace=0.05)
        async with enter(app, "Ada") as ada:
            async with enter(app, "Bob") as bob:
                token = (await welcomed(bob))["token"]
                await ada.call("play", {"square": 4})
                await sees(ada, turn="O")
            table = await sees(ada, here=["Ada"], away=[])
            assert (table["board"], table["turn"]) == ([None] * 9, "X")
            async with enter(app, "Bob", token) as late:
                assert (await late.receive_json_from())["error"]["code"] == "invalid_token"
                await late.assert_closed(4401)
            async with enter(app, "Cleo") as cleo:
                assert (await welcomed(cleo))["mark"] == "O"

    async def test_who_leaves_makes_room_at_once_and_an_empty_table_is_forgotten(self, app: FastAPI) -> None:
        async with enter(app, "Ada") as ada:
            async with enter(app, "Bob") as bob:
                await welcomed(bob)
                await ada.send_json_to({"action": "leave"})
                await ada.assert_closed(1000)
                await sees(bob, here=["Bob"], away=[])
                async with enter(app, "Cleo") as cleo:
                    assert (await welcomed(cleo))["mark"] == "X"
                    assert len(app.state.tables) == 1
                    for each in (bob, cleo):
                        await each.send_json_to({"action": "leave"})
                        await each.assert_closed(1000)
        assert len(app.state.tables) == 0

    @pytest.mark.parametrize(("room", "name"), [("green", ""), ("green", "x" * 31), ("GREEN", "Ada"), ("a.b", "Ada")])
    async def test_names_are_checked(self, app: FastAPI, room: str, name: str) -> None:
        async with enter(app, name, room=room) as player:
            assert (await player.receive_json_from())["error"]["code"] == "invalid_data"
            await player.assert_closed(4400)
        assert len(app.state.tables) == 0


class TestGames:
    async def test_wrong_moves_are_refused_and_change_nothing(self, app: FastAPI) -> None:
        async with enter(app, "Ada") as ada:
            await welcomed(ada)
            assert await refused(ada, "play", square=0) == "no_opponent"
            async with enter(app, "Bob") as bob:
                await welcomed(bob)
                assert await refused(bob, "play", square=0) == "not_your_turn"
                await ada.call("play", {"square": 0})
                assert await refused(ada, "play", square=1) == "not_your_turn"
                assert await refused(bob, "play", square=0) == "square_taken"
                for square in (9, -1, "x", None):
                    assert await refused(bob, "play", square=square) == "invalid_data"
                assert await refused(bob, "rematch") == "game_running"
                await bob.call("play", {"square": 8})
                table = await sees(ada, turn="X", here=["Ada", "Bob"], board=["X", *[None] * 7, "O"])
                assert table["winner"] is None

    async def test_a_win_counts_and_the_rematch_needs_both(self, app: FastAPI) -> None:
        async with enter(app, "Ada") as ada, enter(app, "Bob") as bob:
            await welcomed(ada)
            await welcomed(bob)
            for player, square in ((ada, 0), (bob, 3), (ada, 1), (bob, 4), (ada, 2)):
                await player.call("play", {"square": square})
            table = await sees(bob, winner="X")
            assert (table["line"], table["turn"]) == ([0, 1, 2], None)
            assert [seat["wins"] for seat in table["seats"]] == [1, 0]
            assert await refused(bob, "play", square=8) == "game_over"
            await bob.call("rematch")
            table = await sees(ada, winner="X", line=[0, 1, 2], here=["Ada", "Bob"])
            await ada.call("rematch")
            table = await sees(bob, winner=None)
            assert (table["board"], table["turn"]) == ([None] * 9, "O")
            assert [(seat["wins"], seat["wants_rematch"]) for seat in table["seats"]] == [(1, False), (0, False)]
            await bob.call("play", {"square": 4})


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
