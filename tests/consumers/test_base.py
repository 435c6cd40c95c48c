"""``Consumer``: raw text and bytes, with the names and meanings of Django Channels."""

import logging
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute

from fastapi_consumers import (
    AcceptConnection,
    Consumer,
    DenyConnection,
    GroupConsumer,
    ImproperlyConfigured,
    StopConsumer,
    event,
    path,
)
from fastapi_consumers.attributes import OPTION_NAMES
from fastapi_consumers.testing import SocketClosed, WebsocketCommunicator


class Echo(Consumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data, bytes_data=bytes_data)


async def test_text_and_bytes_come_as_they_were_sent(make_app):
    async with WebsocketCommunicator(make_app(path("/", Echo)), "/") as client:
        await client.send_to("")
        await client.send_to(bytes_data=b"\x00\xff")
        assert await client.receive_from() == ""
        assert await client.receive_from() == b"\x00\xff"


async def test_by_default_connect_accepts_and_what_comes_is_ignored(make_app):
    class Silent(Consumer):
        pass

    app = make_app(path("/", Silent))
    async with WebsocketCommunicator(app, "/") as client:
        await client.send_to("anybody?")
    async with WebsocketCommunicator(app, "/", subprotocols=["fc.v1.msgpack"]) as client:
        assert client.subprotocol is None  # no envelopes here, so none of their subprotocols


async def test_accept_takes_a_subprotocol_and_headers_as_pairs_or_mapping(make_app):
    class One(Consumer):
        async def connect(self):
            await self.accept("b", [("X-Seat", "7"), (b"x-row", b"3")])

    class Two(Consumer):
        async def connect(self):
            await self.accept(subprotocol="a", headers={"x-seat": "8"})

    app = make_app(path("/one", One), path("/two", Two))
    async with WebsocketCommunicator(app, "/one", subprotocols=["a", "b"]) as client:
        assert client.subprotocol == "b"
        assert [(name.lower(), value) for name, value in client.accept_headers] == [(b"x-seat", b"7"), (b"x-row", b"3")]
    async with WebsocketCommunicator(app, "/two", subprotocols=["a", "b"]) as client:
        assert client.subprotocol == "a"
        assert client.accept_headers == [(b"x-seat", b"8")]


async def test_a_connect_that_neither_accepts_nor_closes_is_refused_and_logged(make_app, caplog):
    class Forgetful(Consumer):
        async def connect(self):
            pass

    client = WebsocketCommunicator(make_app(path("/", Forgetful)), "/")
    assert await client.connect() == (False, 1011)
    assert "Forgetful.connect() ended without self.accept() or self.close()" in caplog.text
    await client.wait()


async def test_close_in_connect_refuses_and_disconnect_is_called(make_app):
    codes = []

    class Closed(Consumer):
        async def connect(self):
            await self.close(*self.arguments)

        async def disconnect(self, code):
            codes.append(code)

    class Named(Closed):
        arguments = (4321, "go away")

    class Plain(Closed):
        arguments = ()

    app = make_app(path("/named", Named), path("/plain", Plain))
    client = WebsocketCommunicator(app, "/named")
    assert await client.connect() == (False, 4321)
    assert client.close_reason == "go away"
    await client.wait()
    client = WebsocketCommunicator(app, "/plain")
    assert await client.connect() == (False, 4403)
    await client.wait()
    assert codes == [4321, 4403]


async def test_close_ends_the_socket_with_its_code_and_reason(make_app):
    class Strict(Consumer):
        async def receive(self, text_data=None, bytes_data=None):
            if text_data == "bye":
                await self.close()
            else:
                await self.close(code=4002, reason="é" * 100)
            await self.send("too late")

    app = make_app(path("/", Strict))
    async with WebsocketCommunicator(app, "/") as client:
        await client.send_to("bye")
        assert await client.receive_output() == {"type": "websocket.close", "code": 1000, "reason": ""}
    async with WebsocketCommunicator(app, "/") as client:
        await client.send_to("x")
        assert await client.receive_output() == {"type": "websocket.close", "code": 4002, "reason": "é" * 61}


@pytest.mark.parametrize(("close", "code"), [(True, 1000), (4005, 4005)])
async def test_send_with_close_sends_and_then_closes(make_app, close, code):
    class Curt(Consumer):
        async def connect(self):
            await self.accept()
            await self.send("no", close=close)

    async with WebsocketCommunicator(make_app(path("/", Curt)), "/") as client:
        assert await client.receive_from() == "no"
        await client.assert_closed(code)


async def test_what_is_sent_before_accept_follows_it_in_order(make_app):
    class Eager(Consumer):
        async def connect(self):
            await self.send("1")
            await self.send("2")
            await self.accept()
            await self.send("3")

    async with WebsocketCommunicator(make_app(path("/", Eager)), "/") as client:
        assert [await client.receive_from() for _ in range(3)] == ["1", "2", "3"]


async def test_send_without_data_is_a_mistake_of_the_caller(make_app):
    raised = []

    class Empty(Consumer):
        async def receive(self, text_data=None, bytes_data=None):
            with pytest.raises(ValueError, match="text_data or bytes_data"):
                await self.send()
            raised.append(True)
            await self.close()

    async with WebsocketCommunicator(make_app(path("/", Empty)), "/") as client:
        await client.send_to("x")
        await client.assert_closed(1000)
    assert raised == [True]


async def test_accept_connection_accepts_and_deny_connection_refuses(make_app):
    class Gate(Consumer):
        async def connect(self):
            raise AcceptConnection if self.path_params["way"] == "in" else DenyConnection

    app = make_app(path("/{way}", Gate))
    async with WebsocketCommunicator(app, "/in"):
        pass
    client = WebsocketCommunicator(app, "/out")
    assert await client.connect() == (False, 4403)
    await client.wait()
    client = WebsocketCommunicator(app, "/out", denial_response=True)
    assert await client.connect() == (False, 403)
    await client.wait()


async def test_deny_connection_after_accept_closes_with_4403(make_app):
    class Late(Consumer):
        async def connect(self):
            await self.accept()
            raise DenyConnection

    async with WebsocketCommunicator(make_app(path("/", Late)), "/") as client:
        await client.assert_closed(4403)


async def test_stop_consumer_closes_with_1000_and_tears_down(make_app, caplog):
    codes = []

    class Stop(Consumer):
        async def connect(self):
            await self.accept()
            if self.path_params["where"] == "connect":
                raise StopConsumer

        async def receive(self, text_data=None, bytes_data=None):
            raise StopConsumer

        async def disconnect(self, code):
            codes.append(code)
            raise StopConsumer  # as Channels' own disconnect does

    app = make_app(path("/{where}", Stop))
    async with WebsocketCommunicator(app, "/connect") as client:
        await client.assert_closed(1000)
    async with WebsocketCommunicator(app, "/receive") as client:
        await client.send_to("x")
        await client.assert_closed(1000)
    assert codes == [1000, 1000]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_disconnect_gets_the_clients_close_code(make_app):
    codes = []

    class Listening(Consumer):
        async def disconnect(self, code):
            codes.append(code)

    client = WebsocketCommunicator(make_app(path("/", Listening)), "/")
    await client.connect()
    await client.disconnect(4999)
    assert codes == [4999]


async def test_an_exception_in_receive_closes_a_raw_consumer_with_1011_and_is_logged(make_app, caplog, nothing_left):
    class Broken(Consumer):
        groups = ["all"]

        async def receive(self, text_data=None, bytes_data=None):
            raise KeyError("secret")

    app = make_app(path("/", Broken))
    async with WebsocketCommunicator(app, "/") as client:
        await client.send_to("x")
        await client.assert_closed(1011)
        await client.wait()
        assert nothing_left(app)
        with pytest.raises(SocketClosed):
            await client.receive_from()
    assert "KeyError: 'secret'" in caplog.text


async def test_a_consumer_knows_its_scope_path_headers_and_channel(make_app):
    seen = []

    class Knowing(Consumer):
        async def connect(self):
            seen.append(
                (
                    self.scope["url_route"]["kwargs"],
                    self.path_params["id"],
                    self.websocket.headers["x-colour"],
                    self.websocket.query_params["q"],
                    self.scope["user"] is self.user,
                    self.user.is_authenticated,
                    self.user.id,
                    self.auth,
                    self.connection.channel_name == self.channel_name,
                    self.consumers is self.scope["app"].state.consumers,
                )
            )
            await self.accept()

    app = make_app(path("/item/{id:int}", Knowing))
    async with WebsocketCommunicator(app, "/item/7?q=x", headers={"X-Colour": "red"}):
        pass
    assert seen == [({"id": 7}, 7, "red", "x", True, False, None, None, True, True)]


async def test_channel_names_are_unique(make_app):
    names = []

    class Named(Consumer):
        async def connect(self):
            names.append(self.channel_name)
            await self.accept()

    app = make_app(path("/", Named))
    async with WebsocketCommunicator(app, "/"), WebsocketCommunicator(app, "/"):
        pass
    assert len(set(names)) == 2


async def test_init_may_be_overridden_and_makes_state_of_one_connection(make_app):
    class Counting(Consumer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.count = 0

        async def receive(self, text_data=None, bytes_data=None):
            self.count += 1
            await self.send(str(self.count))

    app = make_app(path("/", Counting))
    async with WebsocketCommunicator(app, "/") as one, WebsocketCommunicator(app, "/") as two:
        await one.send_to("x")
        await one.send_to("x")
        await two.send_to("x")
        assert [await one.receive_from(), await one.receive_from(), await two.receive_from()] == ["1", "2", "1"]


async def test_an_init_that_raises_refuses_with_1011(make_app, caplog):
    class Unmakeable(Consumer):
        def __init__(self, *args, **kwargs):
            raise RuntimeError("no database")

    client = WebsocketCommunicator(make_app(path("/", Unmakeable)), "/")
    assert await client.connect() == (False, 1011)
    await client.wait()
    assert "no database" in caplog.text


async def test_setting_the_user_is_seen_by_permissions_and_the_scope(make_app):
    class Login(Consumer):
        async def receive(self, text_data=None, bytes_data=None):
            self.user = text_data or None
            await self.send(f"{self.user!r} {self.scope['user']!r}")

    async with WebsocketCommunicator(make_app(path("/", Login)), "/") as client:
        await client.send_to("ann")
        assert await client.receive_from() == "'ann' 'ann'"
        await client.send_to("")
        assert await client.receive_from() == "AnonymousUser() AnonymousUser()"


# as_asgi


class Room(Consumer):
    groups = ["room.{name}"]
    greeting = "hello"

    async def connect(self):
        await self.accept()
        await self.send(f"{self.greeting} {self.path_params['name']}")

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send(f"room.{self.path_params['name']}", {"type": "said", "text": text_data})

    @event
    async def said(self, message):
        await self.send(message["text"])


async def test_as_asgi_runs_in_a_bare_starlette_app_by_route_and_by_mount():
    app = Starlette(
        routes=[
            WebSocketRoute("/route/{name}", Room.as_asgi()),
            Mount("/mount/{name}", app=Room.as_asgi(greeting="hi")),
        ]
    )
    async with (
        WebsocketCommunicator(app, "/route/x") as one,
        WebsocketCommunicator(app, "/mount/x/") as two,
    ):
        assert await one.receive_from() == "hello x"
        assert await two.receive_from() == "hi x"
        await one.send_to("anybody?")
        assert await one.receive_from() == await two.receive_from() == "anybody?"


async def test_as_asgi_overrides_options_and_leaves_the_class_alone():
    app = Starlette(routes=[WebSocketRoute("/{name}", Room.as_asgi(permission_classes=[False]))])
    client = WebsocketCommunicator(app, "/x")
    assert await client.connect() == (False, 4403)
    await client.wait()
    assert Room._meta.permissions is None


@pytest.mark.parametrize("name", OPTION_NAMES)
def test_every_option_is_an_attribute_that_as_asgi_overrides(name):
    class Plain(GroupConsumer):
        pass

    assert vars(Plain.as_asgi(**{name: None}).consumer_class)[name] is None  # Back to the default.


def test_every_option_is_in_the_tables_of_the_docs():
    text = (Path(__file__).parents[2] / "docs" / "consumers.md").read_text(encoding="utf-8")
    rows = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("|"))
    assert [name for name in OPTION_NAMES if f"`{name}`" not in rows] == []


def test_as_asgi_names_arguments_that_are_no_option():
    with pytest.raises(ImproperlyConfigured, match="'permision_classes'") as caught:
        Room.as_asgi(permision_classes=[False])
    assert [problem.code for problem in caught.value.problems] == ["unknown-option"]
    with pytest.raises(ImproperlyConfigured, match="max_groups"):
        Room.as_asgi(max_groups=0)
    with pytest.raises(ImproperlyConfigured, match="abstract"):
        GroupConsumer.as_asgi()


async def test_plain_http_to_a_mounted_consumer_is_told_to_upgrade():
    messages = []

    async def send(message):
        messages.append(message)

    app = Starlette(routes=[Mount("/chat", app=Room.as_asgi())])
    scope = {"type": "http", "method": "GET", "path": "/chat/", "headers": [], "query_string": b"", "root_path": ""}
    await app(scope, None, send)
    assert messages[0]["status"] == 426
    assert (b"upgrade", b"websocket") in messages[0]["headers"]


async def test_without_an_app_around_it_the_error_says_what_is_missing():
    client = WebsocketCommunicator(Room.as_asgi(), "/", run_lifespan=False)
    with pytest.raises(ImproperlyConfigured, match="mount the consumer in a FastAPI or Starlette app"):
        await client.connect()


async def test_a_message_larger_than_max_message_size_closes_with_1009(make_app):
    class Small(Echo):
        max_message_size = 4

    app = make_app(path("/", Small))
    async with WebsocketCommunicator(app, "/") as client:
        await client.send_to("éé")
        assert await client.receive_from() == "éé"
        await client.send_to("ééé")
        await client.assert_closed(1009)
    async with WebsocketCommunicator(app, "/") as client:
        await client.send_to(bytes_data=b"12345")
        await client.assert_closed(1009)
