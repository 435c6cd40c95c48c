"""Limits as users meet them: consumers and HTTP endpoints, in two applications over one server."""

import functools
import logging
import math
from types import SimpleNamespace
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Response

from fastapi_consumers import (
    ConsumerError,
    GroupConsumer,
    ImproperlyConfigured,
    JSONConsumer,
    Throttled,
    action,
    add_consumers,
    path,
)
from fastapi_consumers.authentication import BearerTokenAuthentication
from fastapi_consumers.testing import CallError, Clock, WebsocketCommunicator
from fastapi_consumers.throttling import (
    ConnectionRateThrottle,
    GroupRateThrottle,
    RateLimit,
    RateThrottle,
    RedisBuckets,
    TokenBuckets,
    UserRateThrottle,
)

#: Longer than any stall of the machine.
PATIENT = 20.0


class Pinging(JSONConsumer, abstract=True):
    @action
    async def ping(self) -> str:
        return "pong"


class Shared(Pinging):
    throttle_classes = ["3/hour"]


async def code_of(client: WebsocketCommunicator, name: str = "ping") -> str:
    try:
        await client.call(name, timeout=PATIENT)
    except CallError as error:
        return error.code
    return "ok"


def patient(app: FastAPI) -> FastAPI:
    buckets = app.state.consumers.buckets
    if isinstance(buckets, RedisBuckets):
        buckets.timeout = PATIENT
    return app


async def ask(app: FastAPI, url: str, host: str = "203.0.113.5", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app, client=(host, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get(url, headers=headers)


@pytest.mark.parametrize("named", [True, False], ids=["limiter_url", "url"])
async def test_two_applications_over_one_server_count_together(make_app, url, named):
    options: dict[str, Any] = {"limiter_url": url} if named else {"url": url}
    apps = [patient(make_app(path("/", Shared), broker_timeout=PATIENT, **options)) for _ in range(2)]
    async with WebsocketCommunicator(apps[0], "/") as one, WebsocketCommunicator(apps[1], "/") as two:
        assert [await code_of(client) for client in (one, two, one, two, one)] == ["ok"] * 3 + ["throttled"] * 2
        assert apps[0].state.consumers.health()["limiter"] == {"outages": 0, "failures": 0}


async def test_in_memory_each_process_counts_by_itself_though_the_transport_is_shared(make_app, url):
    apps = [make_app(path("/", Shared), url=url, limiter_url="memory://", broker_timeout=PATIENT) for _ in range(2)]
    async with WebsocketCommunicator(apps[0], "/") as one, WebsocketCommunicator(apps[1], "/") as two:
        assert [await code_of(client) for client in (one, one, one, one)] == ["ok"] * 3 + ["throttled"]
        assert await code_of(two) == "ok"
        assert apps[0].state.consumers.health()["limiter"] == {}


async def test_a_limit_of_a_connection_asks_no_server(make_app):
    class Own(Pinging):
        throttle_classes = [ConnectionRateThrottle("1/hour")]

    # Where nobody listens: whoever asked would pass.
    app = make_app(path("/", Own), limiter_url="redis://127.0.0.1:1", throttle_failure="open")
    async with WebsocketCommunicator(app, "/") as one, WebsocketCommunicator(app, "/") as two:
        assert [await code_of(client) for client in (one, two, one)] == ["ok", "ok", "throttled"]
        assert app.state.consumers.health()["limiter"] == {"outages": 0, "failures": 0}


@pytest.mark.parametrize(
    ("failure", "codes"),
    [
        ("memory", ["ok", "ok", "ok", "throttled"]),
        ("open", ["ok"] * 4),
        ("closed", ["limiter_unavailable"] * 4),
    ],
)
async def test_without_the_server_limits_do_what_was_asked_for(make_app, own_broker, failure, codes, caplog):
    caplog.set_level(logging.WARNING)
    app = make_app(path("/", Shared), limiter_url=own_broker.url, throttle_failure=failure)

    @app.get("/http", dependencies=[Depends(RateLimit("1/hour"))])
    async def http() -> None: ...

    async with WebsocketCommunicator(app, "/") as client:
        own_broker.kill()
        assert [await code_of(client) for _ in codes] == codes
        statuses = [(await ask(app, "/http")).status_code for _ in range(2)]
        assert statuses == {"memory": [200, 429], "open": [200, 200], "closed": [503, 503]}[failure]
        assert app.state.consumers.health()["limiter"] == {"outages": 1, "failures": 6}
    assert len([record for record in caplog.records if "rate limits" in record.getMessage()]) == 1


async def test_a_handshake_is_refused_with_503_where_limits_are_closed(make_app):
    class Guarded(Pinging):
        connection_throttle_classes = ["5/second"]

    app = make_app(path("/", Guarded), limiter_url="redis://127.0.0.1:1", throttle_failure="closed")
    client = WebsocketCommunicator(app, "/", denial_response=True)
    assert await client.connect(PATIENT) == (False, 503)
    assert client.denial is not None
    assert dict(client.denial.headers)[b"retry-after"] == b"1"
    assert await WebsocketCommunicator(app, "/").connect(PATIENT) == (False, 1013)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"limiter_url": "http://x"}, "bad-limiter-url"),
        ({"limiter_url": 5}, "bad-limiter-url"),
        ({"limiter_url": SimpleNamespace(hit=print)}, "bad-limiter-url"),
        ({"limiter_url": "redis://[::1"}, "bad-limiter-url"),
        ({"throttle_failure": "maybe"}, "bad-throttle-failure"),
        ({"max_connection_rate": "fast"}, "bad-max-connection-rate"),
        ({"max_connection_rate": 5}, "bad-max-connection-rate"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "bad-trusted-proxies"),
        ({"trusted_proxies": "10.0.0.0/8"}, "bad-trusted-proxies"),
        ({"trusted_proxies": 5}, "bad-trusted-proxies"),
        ({"max_connections_per_user": 0}, "bad-limit"),
    ],
)
def test_wrong_arguments_are_named(arguments, code):
    with pytest.raises(ImproperlyConfigured) as caught:
        add_consumers(FastAPI(), **arguments)
    assert [problem.code for problem in caught.value.problems] == [code]


def test_the_password_of_a_limiter_url_is_not_told():
    with pytest.raises(ImproperlyConfigured) as caught:
        add_consumers(FastAPI(), limiter_url="http://:hunter2@host")
    assert "hunter2" not in str(caught.value)


async def test_a_throttle_is_told_of_each_handshake_that_it_refuses_and_may_answer_itself(make_app):
    told: list[Any] = []

    class Watching(UserRateThrottle):
        rate = "1/hour"

        async def on_throttled(self, consumer: Any, action: Any, retry_after: float) -> None:
            told.append((type(consumer).__name__, action, round(retry_after), consumer.scope["path"]))
            if consumer.scope["path"] == "/strict":
                raise ConsumerError("go_away", "Not again.", close_code=4999)

    class Nobodys(BearerTokenAuthentication):
        def get_user(self, token: str, connection: Any) -> Any:
            return None

    class Guarded(Pinging):
        connection_throttle_classes = [Watching(scope="one")]
        authentication_classes = [Nobodys]

    clock = Clock()
    app = make_app(path("/", Guarded), path("/strict", Guarded), limiter_url=TokenBuckets(clock))
    async with WebsocketCommunicator(app, "/"):
        assert told == []
    clock.advance(600)
    assert await WebsocketCommunicator(app, "/").connect() == (False, 4429)
    assert await WebsocketCommunicator(app, "/strict").connect() == (False, 4999)
    # One that is refused for its credential, and one for those that were wrong before.
    for path_, code in (("/", 4429), ("/strict", 4999)):
        assert await WebsocketCommunicator(app, path_, headers={"Authorization": "Bearer x"}).connect() == (False, code)
    waits = [3000, 3000, 3000, 3600]
    assert told == [("Guarded", None, wait, each) for wait, each in zip(waits, ["/", "/strict"] * 2, strict=True)]


# --- costs, keys, variants ---


async def test_a_call_may_cost_more_than_another_and_share_its_bucket(make_app):
    class Room(Pinging):
        throttle_classes = [UserRateThrottle("10/hour", scope="room")]

        @action(throttle_classes=[UserRateThrottle("10/hour", cost=7, scope="room")])
        async def export(self) -> str:
            return "done"

    clock = Clock()
    async with WebsocketCommunicator(make_app(path("/", Room), limiter_url=TokenBuckets(clock)), "/") as client:
        assert await client.call("export") == "done"
        assert [await code_of(client) for _ in range(3)] == ["ok", "ok", "throttled"]
        clock.advance(360)
        assert await code_of(client) == "ok"


async def test_a_cost_may_depend_on_the_request_and_nothing_is_counted_for_none(make_app):
    class ByLength(UserRateThrottle):
        rate = "10/hour"

        def get_cost(self, consumer: Any, action: Any) -> float:
            return {"free": 0, "ping": 4, "huge": 11}[action.name]

    class Room(Pinging):
        throttle_classes = [ByLength]

        @action
        async def free(self) -> None: ...

        @action
        async def huge(self) -> None: ...

    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        for _ in range(20):
            await client.call("free")
        with pytest.raises(CallError) as caught:
            await client.call("huge")
        assert caught.value.code == "throttled"
        assert caught.value.retry_after is None
        assert [await code_of(client) for _ in range(3)] == ["ok", "ok", "throttled"]


async def test_a_function_says_who_is_counted_together(make_app):
    class Room(Pinging):
        throttle_classes = [RateThrottle("1/hour", key=lambda consumer: consumer.path_params["room"])]

    app = make_app(path("/{room}", Room))
    async with WebsocketCommunicator(app, "/a") as one, WebsocketCommunicator(app, "/a", client=("10.9.9.9", 1)) as two:
        assert [await code_of(one), await code_of(two)] == ["ok", "throttled"]
        async with WebsocketCommunicator(app, "/b") as other:
            assert await code_of(other) == "ok"


class Grouped(GroupConsumer):
    groups = ["{room}"]

    @action(throttle_classes=[GroupRateThrottle("2/hour")])
    async def say(self) -> None: ...

    @action
    async def enter(self, group: str) -> None:
        await self.join(group)


@pytest.mark.parametrize("shared", [True, False], ids=["redis", "memory"])
async def test_a_member_cannot_leave_the_count_of_a_group_by_joining_others(make_app, url, shared):
    options: dict[str, Any] = {"url": url, "broker_timeout": PATIENT} if shared else {}
    first = patient(make_app(path("/{room}", Grouped), **options))
    second = patient(make_app(path("/{room}", Grouped), **options)) if shared else first
    async with WebsocketCommunicator(first, "/a") as one, WebsocketCommunicator(second, "/a") as two:
        assert await code_of(one, "say") == "ok"
        await one.call("enter", {"group": "b"})
        assert [await code_of(client, "say") for client in (one, two)] == ["ok", "throttled"]
        await one.call("enter", {"group": "c"})
        await two.call("enter", {"group": "c"})
        assert [await code_of(client, "say") for client in (one, two)] == ["throttled"] * 2
        async with WebsocketCommunicator(second, "/b") as other, WebsocketCommunicator(first, "/c") as last:
            # Of b one was taken; of c none, since a refused it.
            assert [await code_of(other, "say") for _ in range(2)] == ["ok", "throttled"]
            assert [await code_of(last, "say") for _ in range(3)] == ["ok", "ok", "throttled"]


async def test_the_variants_of_one_class_count_for_themselves(make_app, url):
    class Room(Pinging):
        throttle_classes = ["1/hour"]

    def routes() -> list[Any]:
        variants = [Room.as_asgi(max_groups=5), Room.as_asgi(throttle_classes=["1/hour"]), Room]
        return [path(f"/{index}", variant) for index, variant in enumerate(variants)]

    app = make_app(*routes())
    for index in range(3):
        async with WebsocketCommunicator(app, f"/{index}") as client:
            assert [await code_of(client), await code_of(client)] == ["ok", "throttled"]


# --- HTTP ---


def limited(**options: Any) -> FastAPI:
    app = FastAPI()
    add_consumers(app, **options)

    @app.get("/search", dependencies=[Depends(RateLimit("2/5 seconds"))])
    async def search() -> str:
        return "found"

    @app.get("/other")
    async def other(_: Annotated[None, Depends(RateLimit("2/5 seconds"))]) -> str:
        return "other"

    return app


@pytest.mark.parametrize("handled", [True, False])
async def test_http_endpoints_answer_429_with_retry_after(handled):
    clock = Clock()
    app = limited(limiter_url=TokenBuckets(clock), add_exception_handlers=handled)
    assert [(await ask(app, "/search")).status_code for _ in range(2)] == [200, 200]
    refused = await ask(app, "/search")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
    assert (await ask(app, "/other")).status_code == 200
    assert (await ask(app, "/search", host="203.0.113.6")).status_code == 200
    clock.advance(3)
    assert (await ask(app, "/search")).status_code == 200


GERMAN = {"accept-language": "de-AT, en;q=0.5"}


async def test_http_endpoints_are_refused_as_by_throttled_and_in_the_language_of_the_request():
    app = limited(limiter_url=TokenBuckets(Clock()))
    for _ in range(2):
        await ask(app, "/search")
    refused = await ask(app, "/search", **GERMAN)
    message = "Zu viele Anfragen."
    error = {"code": "throttled", "message": message, "retryable": True, "retry_after": 2.5}
    assert (refused.status_code, refused.json()) == (429, {"error": error})
    assert (refused.headers["retry-after"], refused.headers["content-language"]) == ("3", "de")
    assert refused.headers["vary"] == "accept-language"
    english = (await ask(app, "/search")).json()["error"]
    assert english == {**error, "message": "Too many requests."}


async def test_without_our_handler_the_detail_is_in_the_language_of_the_request():
    app = limited(limiter_url=TokenBuckets(Clock()), add_exception_handlers=False)
    for _ in range(2):
        await ask(app, "/search")
    refused = await ask(app, "/search", **GERMAN)
    assert (refused.status_code, refused.json()) == (429, {"detail": "Zu viele Anfragen."})
    assert (refused.headers["retry-after"], refused.headers["content-language"]) == ("3", "de")
    assert refused.headers["vary"] == "accept-language"


@pytest.mark.parametrize("kind", [Throttled, ConsumerError])
async def test_a_handler_of_ones_own_is_given_the_error(kind):
    app = limited(limiter_url=TokenBuckets(Clock()), add_exception_handlers=False)

    @app.exception_handler(kind)
    async def handle(request: Any, error: Any) -> Response:
        return Response(f"{error.code} {error.retry_after}", 420)

    answers = [await ask(app, "/search") for _ in range(3)]
    assert (answers[2].status_code, answers[2].text) == (420, "throttled 2.5")


@pytest.mark.parametrize(
    ("handled", "body"),
    [
        (
            True,
            {
                "error": {
                    "code": "limiter_unavailable",
                    "message": "Die Zugriffsgrenzen können zurzeit nicht geprüft werden.",
                    "retryable": True,
                }
            },
        ),
        (False, {"detail": "Die Zugriffsgrenzen können zurzeit nicht geprüft werden."}),
    ],
)
async def test_limits_that_cannot_be_checked_say_so_in_the_language_of_the_request(handled, body):
    app = limited(limiter_url="redis://127.0.0.1:1", throttle_failure="closed", add_exception_handlers=handled)
    refused = await ask(app, "/search", **GERMAN)
    assert (refused.status_code, refused.json()) == (503, body)
    assert (refused.headers["retry-after"], refused.headers["content-language"]) == ("1", "de")
    await app.state.consumers.close()


async def test_buckets_that_never_allow_it_name_no_time():
    class Never:
        def hit(self, key: Any, rates: Any, cost: float = 1) -> float:
            return math.inf

        hit_each = peek = hit

    refused = await ask(limited(limiter_url=Never()), "/search")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "throttled")
    assert "retry_after" not in refused.json()["error"]
    assert "retry-after" not in refused.headers


class Lookup:
    def __call__(self, name: str) -> str:
        return name


async def test_an_endpoint_without_a_name_has_one_limit_whatever_its_path_holds():
    app = FastAPI()
    add_consumers(app)
    once = [Depends(RateLimit("1/hour"))]
    for where, endpoint in (("/one/{name}", Lookup()), ("/two/{name}", functools.partial(Lookup()))):
        app.add_api_route(where, endpoint, dependencies=once)
    for where in ("/one", "/two"):
        answers = [await ask(app, f"{where}/{name}") for name in ("a", "b", "c")]
        assert [answer.status_code for answer in answers] == [200, 429, 429]


async def test_http_endpoints_of_two_applications_count_together(url):
    apps = [patient(limited(url=url, broker_timeout=PATIENT)) for _ in range(2)]
    try:
        assert [(await ask(app, "/search")).status_code for app in (*apps, *apps)] == [200, 200, 429, 429]
    finally:
        for app in apps:
            await app.state.consumers.close()


async def test_an_endpoint_and_a_consumer_may_share_a_limit(make_app):
    class Room(Pinging):
        throttle_classes = [UserRateThrottle("3/hour", scope="api")]

    app = make_app(path("/", Room))

    @app.get("/api", dependencies=[Depends(RateLimit("3/hour", cost=2, scope="api"))])
    async def api() -> None: ...

    assert (await ask(app, "/api")).status_code == 200
    async with WebsocketCommunicator(app, "/", client=("203.0.113.5", 9)) as client:
        assert [await code_of(client), await code_of(client)] == ["ok", "throttled"]


async def test_a_function_of_the_request_says_whom_to_count_and_none_is_not_counted():
    app = FastAPI()
    add_consumers(app)

    @app.get("/", dependencies=[Depends(RateLimit("1/hour", key=lambda request: request.headers.get("x-key")))])
    async def root() -> None: ...

    assert [(await ask(app, "/", **{"x-key": key})).status_code for key in "aab"] == [200, 429, 200]
    assert [(await ask(app, "/")).status_code for _ in range(3)] == [200] * 3


async def test_an_application_without_consumers_is_told_what_to_call():
    app = FastAPI()

    @app.get("/", dependencies=[Depends(RateLimit("1/hour"))])
    async def root() -> None: ...

    with pytest.raises(ImproperlyConfigured, match="call add_consumers"):
        await ask(app, "/")


async def coroutine(_: Any) -> str:
    return ""


@pytest.mark.parametrize("options", [{"key": coroutine}, {"key": 5}, {"cost": "1"}, {"cost": -1}, {"cost": 3}])
def test_what_cannot_limit_is_an_error_at_once(options):
    with pytest.raises((TypeError, ValueError)):
        RateLimit("2/second", **options)


# --- proxies ---


async def test_clients_behind_a_trusted_proxy_are_told_apart():
    app = limited(trusted_proxies=["10.0.0.0/8"])
    for client in ("203.0.113.1", "203.0.113.2"):
        answers = [await ask(app, "/search", host="10.0.0.1", **{"x-forwarded-for": client}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]


async def test_sockets_behind_a_trusted_proxy_are_told_apart_and_who_lies_is_not(make_app):
    class Room(Pinging):
        throttle_classes = ["1/hour"]

    app = make_app(path("/", Room), trusted_proxies=["10.0.0.1"])

    async def code(header: str) -> str:
        headers = {"X-Forwarded-For": header}
        async with WebsocketCommunicator(app, "/", headers=headers, client=("10.0.0.1", 1)) as client:
            return await code_of(client)

    assert [await code("198.51.100.1"), await code("198.51.100.2")] == ["ok", "ok"]
    assert await code("192.0.2.99, 198.51.100.1") == "throttled"
