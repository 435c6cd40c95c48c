"""Guessing credentials: after too many wrong ones none is looked up, not even a right one; in memory and on Redis."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import HTTPException

from fastapi_consumers import JSONConsumer, NotAuthenticated, action, path
from fastapi_consumers.authentication import (
    BaseAuthentication,
    BearerTokenAuthentication,
    Credential,
    FirstMessageAuthentication,
)
from fastapi_consumers.redis_client import RedisClient
from fastapi_consumers.reporting import answerers
from fastapi_consumers.testing import CallError, Clock, WebsocketCommunicator
from fastapi_consumers.throttling import (
    AddressRateThrottle,
    RateThrottle,
    RedisBuckets,
    TokenBuckets,
    UserRateThrottle,
)
from tests.transports.conftest import broker

__all__ = ["broker"]

#: Longer than any stall of the machine.
PATIENT = 20.0
HOST, OTHER = "203.0.113.5", "203.0.113.6"


class Tokens(BearerTokenAuthentication):
    """Remembers what it was asked; what begins with ``slow`` it judges when ``judge`` is set."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.judge = {"slow wrong": asyncio.Event(), "slow right": asyncio.Event()}

    async def get_user(self, token: str, connection: Any) -> Any:
        self.asked.append(token)
        if token in self.judge:
            await self.judge[token].wait()
        if token == "broken":
            raise RuntimeError("the database is away")
        if token == "old":
            return "ann", Credential(expires_at=1.0)
        if token == "other":
            return "bob"
        return "ann" if token.endswith("right") else None


@pytest.fixture
def tokens() -> Tokens:
    return Tokens()


@pytest.fixture
def clock() -> Clock:
    # Beyond zero, as times on Redis are.
    return Clock(1_700_000_000)


@pytest.fixture(params=["memory", "redis"])
def buckets(request: Any, clock: Clock) -> Any:
    if request.param == "memory":
        return TokenBuckets(clock)
    url = f"{request.getfixturevalue('broker').url}?prefix={secrets.token_hex(6)}:"
    return RedisBuckets(RedisClient(url, timeout=PATIENT), timeout=PATIENT, clock=clock)


@pytest.fixture
def room(make_app: Any, tokens: Tokens, buckets: Any) -> Any:
    """``room(*throttles, **attributes of the class)``: an app with one consumer."""

    def make(*throttles: Any, limiter: Any = buckets, **attributes: Any) -> Any:
        class Room(JSONConsumer):
            authentication_classes = [tokens]
            connection_throttle_classes = list(throttles or ["2/hour"])

            @action
            async def who(self) -> Any:
                return str(self.user)

        kind = type("Room", (Room,), attributes)
        return make_app(path("/", kind), limiter_url=limiter)

    return make


async def status_of(app: Any, token: str | None = None, host: str = HOST, port: int = 1) -> int:
    """What the handshake is answered with; 101 if it is let in."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else None
    client = WebsocketCommunicator(app, "/", headers=headers, client=(host, port), denial_response=True)
    accepted, status = await client.connect(PATIENT)
    await client.disconnect()
    return 101 if accepted else int(status)


async def statuses_of(app: Any, *given: str | None, host: str = HOST) -> list[int]:
    return [await status_of(app, token, host) for token in given]


async def code_of(client: WebsocketCommunicator, name: str, data: Any = None) -> str:
    try:
        await client.call(name, data, timeout=PATIENT)
    except CallError as error:
        return error.code
    return "ok"


async def test_a_right_guess_after_too_many_wrong_ones_is_refused_and_never_looked_up(
    room: Any, tokens: Tokens, clock: Clock
) -> None:
    app = room("2/hour")
    assert await statuses_of(app, "a", "b", "c", "right") == [401, 401, 429, 429]
    assert tokens.asked == ["a", "b"]
    client = WebsocketCommunicator(
        app, "/", headers={"Authorization": "Bearer right"}, client=(HOST, 1), denial_response=True
    )
    assert await client.connect(PATIENT) == (False, 429)
    assert dict(client.denial.headers)[b"retry-after"] == b"1800"
    await client.wait()
    # Another address has nothing to do with it.
    assert await statuses_of(app, "right", "wrong", host=OTHER) == [101, 401]
    tokens.asked.clear()
    clock.advance(1799)
    assert await statuses_of(app, "right") == [429]
    clock.advance(1)
    assert await statuses_of(app, "right", "right") == [101, 101]
    assert tokens.asked == ["right", "right"]


async def test_in_two_applications_over_one_server_they_are_counted_together(
    room: Any, tokens: Tokens, buckets: Any, clock: Clock
) -> None:
    limiter = buckets
    if isinstance(buckets, RedisBuckets):
        limiter = RedisBuckets(RedisClient(buckets.client.url, timeout=PATIENT), timeout=PATIENT, clock=clock)
    one, other = room("2/hour"), room("2/hour", limiter=limiter)
    assert [await status_of(app, "wrong") for app in (one, other)] == [401, 401]
    assert [await status_of(app, "right") for app in (one, other)] == [429, 429]
    assert tokens.asked == ["wrong", "wrong"]


async def test_who_is_known_and_who_brings_nothing_shuts_nobody_out(room: Any) -> None:
    app = room("2/hour")
    # Nobody has guessed: strangers have used their rate up, and a user's is by user.
    assert await statuses_of(app, None, None, None) == [101, 101, 429]
    assert await statuses_of(app, "right", "right", "right") == [101, 101, 429]
    assert await statuses_of(app, "right", host=OTHER) == [429]


async def test_after_a_wrong_one_others_of_the_address_come_in_until_there_are_too_many(room: Any) -> None:
    app = room("3/hour")
    assert await statuses_of(app, "wrong", "right", "wrong", None, "right", None) == [401, 101, 401, 101, 101, 429]
    assert await statuses_of(app, "wrong", "right") == [429, 429]


async def test_what_is_refused_because_strangers_were_too_many_is_a_guess_all_the_same(
    room: Any, tokens: Tokens
) -> None:
    app = room("2/hour")
    assert await statuses_of(app, None, None, "a", "b", "right") == [101, 101, 429, 429, 429]
    assert tokens.asked == ["a", "b"]


@pytest.mark.parametrize("token", ["broken", "old"])
async def test_a_lookup_that_fails_and_one_that_was_good_once_are_no_guesses(room: Any, token: str) -> None:
    app = room("1/hour")
    first = 500 if token == "broken" else 401
    assert await statuses_of(app, token, token, "right") == [first, 429, 101]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENT):
        while not condition():  # noqa: ASYNC110 -- it waits for what has no event
            await asyncio.sleep(0.001)


def coming(app: Any) -> int:
    """How many lookups are under way, or wait for others."""
    return sum(line.users for line in app.state.consumers.admission.lookups.values())


async def test_of_guesses_that_are_made_at_once_no_more_are_looked_up_than_may_be_wrong(
    room: Any, tokens: Tokens
) -> None:
    app = room("2/hour")
    # The right one would be found before the wrong ones are.
    guesses = ["slow wrong"] * 5 + ["right"]
    tasks = []
    for count, token in enumerate(guesses, 1):
        tasks.append(asyncio.create_task(status_of(app, token)))
        await until(lambda: coming(app) == count)  # noqa: B023 -- it is awaited here
    await until(lambda: len(tokens.asked) == 2)
    tokens.judge["slow wrong"].set()
    async with asyncio.timeout(PATIENT):
        assert await asyncio.gather(*tasks) == [401, 401, 429, 429, 429, 429]
    assert tokens.asked == ["slow wrong", "slow wrong"]
    assert not app.state.consumers.admission.lookups


async def test_of_guesses_in_many_processes_at_once_the_right_one_is_let_in_no_more(room: Any, tokens: Tokens) -> None:
    one, other = room("2/hour"), room("2/hour")
    right = asyncio.create_task(status_of(one, "slow right"))
    await until(lambda: tokens.asked == ["slow right"])
    assert await statuses_of(other, "a", "b") == [401, 401]
    tokens.judge["slow right"].set()
    async with asyncio.timeout(PATIENT):
        assert await right == 429


def by_connection(rate: str) -> RateThrottle:
    """Bounds no handshakes, so that nothing does but guesses."""
    return RateThrottle(rate, key=lambda consumer: consumer.channel_name)


async def test_good_credentials_that_come_at_once_wait_for_each_other_and_are_all_let_in(
    room: Any, tokens: Tokens
) -> None:
    app = room(by_connection("2/hour"))
    tasks = []
    for port in range(6):
        tasks.append(asyncio.create_task(status_of(app, "slow right", port=port)))
        await until(lambda: coming(app) == port + 1)  # noqa: B023 -- it is awaited here
    await until(lambda: len(tokens.asked) == 2)
    # Another address does not wait.
    assert await status_of(app, "right", OTHER) == 101
    # Who is cut off meanwhile is no hindrance: under way, next, and behind that.
    for connection in list(app.state.consumers.connections):
        if connection.scope["client"][1] in (0, 2, 3):
            connection.shut(1012)
    async with asyncio.timeout(PATIENT):
        assert 101 not in await asyncio.gather(tasks[0], tasks[2], tasks[3])
        await until(lambda: tokens.asked == ["slow right", "slow right", "right", "slow right"])
        tokens.judge["slow right"].set()
        assert await asyncio.gather(tasks[1], *tasks[4:]) == [101] * 3
    assert not app.state.consumers.admission.lookups


async def test_whom_a_throttle_does_not_count_does_not_wait(room: Any, tokens: Tokens) -> None:
    app = room(RateThrottle("1/hour", key=lambda consumer: None))
    tasks = [asyncio.create_task(status_of(app, "slow right")) for _ in range(3)]
    await until(lambda: len(tokens.asked) == 3)
    tokens.judge["slow right"].set()
    async with asyncio.timeout(PATIENT):
        assert await asyncio.gather(*tasks) == [101] * 3


async def test_after_too_many_who_brings_nothing_is_refused_too(room: Any) -> None:
    # Nobody knows that it brings nothing, but its authentications, and these are not asked.
    assert await statuses_of(room(by_connection("1/hour")), None, None, "wrong", None) == [101, 101, 401, 429]


@pytest.mark.parametrize(
    "throttle",
    [
        AddressRateThrottle("2/hour"),
        UserRateThrottle("4/hour", cost=2),
        UserRateThrottle("2/hour; 9/day"),
        UserRateThrottle("2/hour", local=True),
        RateThrottle("2/hour", key=lambda consumer: consumer.scope["path"]),
    ],
    ids=repr,
)
async def test_every_rate_of_the_list_bounds_them(room: Any, tokens: Tokens, throttle: Any) -> None:
    app = room("50/hour", throttle)
    assert (await statuses_of(app, "a", "b", "c", "right"))[2:] == [429, 429]
    assert tokens.asked == ["a", "b"]


async def test_whom_a_throttle_does_not_count_guesses_uncounted(room: Any) -> None:
    app = room(RateThrottle("1/hour", key=lambda consumer: None))
    assert await statuses_of(app, "a", "b", "right") == [401, 401, 101]


async def test_clients_without_an_address_do_not_shut_each_other_out(room: Any) -> None:
    app = room("1/hour")
    answers = []
    for token in ("a", "b", "right"):
        headers = {"Authorization": f"Bearer {token}"}
        client = WebsocketCommunicator(app, "/", headers=headers, client=None, denial_response=True)
        answers.append(await client.connect(PATIENT))
        await client.disconnect()
    assert answers == [(False, 401), (False, 429), (True, None)]


class Raising(BaseAuthentication):
    """Refuses in a way of its own."""

    def __init__(self) -> None:
        self.asked = 0

    async def authenticate(self, connection: Any) -> Any:
        self.asked += 1
        given = connection.headers.get("authorization", "")
        if given == "Bearer http":
            raise HTTPException(403, "No.")
        if given == "Bearer ours":
            raise NotAuthenticated("No.", code="no")
        return ("ann", None) if given == "Bearer right" else None


@pytest.mark.parametrize(("token", "status"), [("http", 403), ("ours", 401)])
async def test_a_refusal_of_any_kind_is_counted(room: Any, token: str, status: int) -> None:
    way = Raising()
    app = room("1/hour", authentication_classes=[way])
    assert await statuses_of(app, token, "right") == [status, 429]
    assert way.asked == 1


# The first message


async def guess(app: Any, token: str) -> str:
    """The code that the first message is answered with, or ``refused`` before it could be sent."""
    client = WebsocketCommunicator(app, "/", client=(HOST, 1))
    if (await client.connect(PATIENT))[0]:
        code = await code_of(client, "authenticate", {"token": token})
        if code != "ok":
            await client.assert_closed(4429 if code == "throttled" else 4401)
    else:
        code = "refused"
    await client.disconnect()
    return code


async def test_guessing_by_first_messages_is_bounded_by_handshakes(room: Any, tokens: Tokens, clock: Clock) -> None:
    app = room("2/hour", authentication_classes=[FirstMessageAuthentication(tokens)])
    assert [await guess(app, token) for token in ("a", "b", "right")] == ["invalid_token", "invalid_token", "refused"]
    assert tokens.asked == ["a", "b"]
    clock.advance(1800)
    assert await guess(app, "right") == "ok"


async def test_first_messages_of_sockets_that_were_open_before_are_not_looked_up_either(
    room: Any, tokens: Tokens
) -> None:
    # By room, so that nothing bounds how many handshakes an address makes but that it guesses.
    throttle = RateThrottle("2/hour", key=lambda consumer: consumer.channel_name)
    app = room(throttle, authentication_classes=[tokens, FirstMessageAuthentication(tokens)])
    clients = [WebsocketCommunicator(app, "/", client=(HOST, 1)) for _ in range(4)]
    for client in clients:
        assert (await client.connect(PATIENT))[0]
    codes = [
        await code_of(client, "authenticate", {"token": token})
        for client, token in zip(clients, ("a", "b", "c", "right"), strict=True)
    ]
    assert codes == ["invalid_token", "invalid_token", "throttled", "throttled"]
    for client, close in zip(clients, (4401, 4401, 4429, 4429), strict=True):
        await client.assert_closed(close)
        await client.disconnect()
    assert tokens.asked == ["a", "b"]
    assert await statuses_of(app, "right") == [429]


@pytest.mark.parametrize(("code", "status"), [(None, 429), (4401, 429), (1012, 101)])
async def test_a_lookup_that_is_cut_off_is_a_guess_unless_the_server_restarts(
    room: Any, tokens: Tokens, code: int | None, status: int
) -> None:
    app = room(by_connection("1/hour"), authentication_classes=[tokens, FirstMessageAuthentication(tokens)])
    client = WebsocketCommunicator(app, "/", client=(HOST, 1))
    assert (await client.connect(PATIENT))[0]
    await client.send_json_to({"action": "authenticate", "request_id": 1, "data": {"token": "slow wrong"}})
    await until(lambda: tokens.asked == ["slow wrong"])
    if code is None:
        await client.disconnect()
    else:
        (connection,) = app.state.consumers.connections
        connection.shut(code)
        await client.assert_closed(code)
    await until(lambda: not app.state.consumers.admission.lookups)
    assert await statuses_of(app, "right") == [status]


# Refreshes


async def test_guesses_by_refreshes_are_counted_and_leave_the_socket_open(
    room: Any, tokens: Tokens, clock: Clock
) -> None:
    app = room("2/hour")
    headers = {"Authorization": "Bearer right"}
    async with WebsocketCommunicator(app, "/", headers=headers, client=(HOST, 1)) as client:
        # Good ones of the same user are none.
        given = ["right", "right", "right", "a", "other", "b", "right"]
        codes = [await code_of(client, "authenticate", {"token": token}) for token in given]
        assert codes == ["ok", "ok", "ok", "invalid_token", "user_changed", "throttled", "throttled"]
        assert tokens.asked == ["right", "right", "right", "right", "a", "other"]
        with pytest.raises(CallError) as refused:
            await client.call("authenticate", {"token": "right"}, timeout=PATIENT)
        assert refused.value.retry_after == 1800
        assert await client.call("who", timeout=PATIENT) == "ann"
        # It is the address that has guessed, wherever.
        assert await statuses_of(app, "right") == [429]
        clock.advance(1800)
        assert await code_of(client, "authenticate", {"token": "right"}) == "ok"


async def test_a_refresh_that_its_client_cancels_is_a_guess(room: Any, tokens: Tokens) -> None:
    app = room(by_connection("1/hour"))
    headers = {"Authorization": "Bearer right"}
    async with WebsocketCommunicator(app, "/", headers=headers, client=(HOST, 1)) as client:
        await client.send_json_to({"action": "authenticate", "request_id": 1, "data": {"token": "slow wrong"}})
        await until(lambda: tokens.asked == ["right", "slow wrong"])
        await client.send_json_to({"action": "cancel", "request_id": 2, "data": {"request_id": 1}})
        answer = await client.receive_json_from(PATIENT)
        while answer["request_id"] != 1:
            answer = await client.receive_json_from(PATIENT)
        assert answer["error"]["code"] == "cancelled"
        await until(lambda: not app.state.consumers.admission.lookups)
    assert await statuses_of(app, "right") == [429]


async def test_without_connection_throttles_refreshes_are_not_counted(room: Any) -> None:
    app = room(connection_throttle_classes=[])
    headers = {"Authorization": "Bearer right"}
    async with WebsocketCommunicator(app, "/", headers=headers, client=(HOST, 1)) as client:
        codes = [await code_of(client, "authenticate", {"token": token}) for token in ("a", "other") * 5 + ("right",)]
    assert codes == ["invalid_token", "user_changed"] * 5 + ["ok"]


async def test_an_anonymous_socket_is_not_told_which_tokens_are_good(room: Any, tokens: Tokens) -> None:
    app = room("9/hour")
    async with WebsocketCommunicator(app, "/") as client:
        for token in ("a", "right"):
            assert await code_of(client, "authenticate", {"token": token}) == "user_changed"
    assert tokens.asked == []


async def test_resetting_an_address_forgets_its_guesses(room: Any) -> None:
    app = room("1/hour")
    assert await statuses_of(app, "wrong", "right") == [401, 429]
    consumers = app.state.consumers
    # What it was counted by as a stranger, and its guess.
    assert await answerers(consumers)["reset_throttles"]({"address": HOST}) == {"reset": 2}
    assert await statuses_of(app, "right") == [101]
