"""Function style: actions and handlers registered from outside, and ``serve`` in an endpoint of one's own."""

import pytest
from fastapi import Depends, FastAPI, WebSocket

from fastapi_consumers import Consumer, GroupConsumer, ImproperlyConfigured, JSONConsumer, action, path
from fastapi_consumers.testing import CallError, WebsocketCommunicator


async def test_functions_become_actions_of_the_class_and_of_existing_subclasses(make_app):
    class Base(GroupConsumer):
        groups = ["room"]

    class Child(Base):
        pass

    @Base.action("ping")
    async def answer(consumer: Base, times: int = 1) -> str:
        return f"{type(consumer).__name__} " + "pong" * times

    @Base.action()
    def named_by_itself(consumer: Base) -> str:
        return "thread"

    app = make_app(path("/base", Base), path("/child", Child))
    async with WebsocketCommunicator(app, "/base") as base, WebsocketCommunicator(app, "/child") as child:
        assert await base.call("ping") == "Base pong"
        assert await child.call("ping", {"times": 2}) == "Child pongpong"
        assert await child.call("named_by_itself") == "thread"


async def test_an_action_registered_after_the_first_connection_is_there_for_the_next(make_app):
    class Room(JSONConsumer):
        pass

    app = make_app(path("/", Room))
    async with WebsocketCommunicator(app, "/") as client:
        with pytest.raises(CallError):
            await client.call("late")

    @Room.action("late")
    async def late(consumer: Room) -> int:
        return 1

    async with WebsocketCommunicator(app, "/") as client:
        assert await client.call("late") == 1


async def test_function_actions_take_dependencies_and_options(make_app):
    class Room(JSONConsumer):
        pass

    @Room.action("add", permission_classes=[lambda consumer: consumer.websocket.query_params.get("may") == "1"])
    async def add(consumer: Room, a: int, one: int = Depends(lambda: 1)) -> int:
        return a + one

    app = make_app(path("/", Room))
    async with WebsocketCommunicator(app, "/?may=1") as client:
        assert await client.call("add", {"a": 1}) == 2
    async with WebsocketCommunicator(app, "/") as client:
        with pytest.raises(CallError) as caught:
            await client.call("add", {"a": 1})
        assert caught.value.code == "permission_denied"


async def test_a_wrong_function_is_refused_and_the_class_stays_as_it_was(make_app):
    class Room(JSONConsumer):
        @action
        async def ping(self) -> str:
            return "pong"

    with pytest.raises(ImproperlyConfigured, match="without an annotation"):

        @Room.action("bad")
        async def bad(consumer, data): ...

    assert list(Room._meta.actions) == ["ping"]
    async with WebsocketCommunicator(make_app(path("/", Room)), "/") as client:
        assert await client.call("ping") == "pong"


async def test_handlers_for_join_and_leave_are_called_with_consumer_and_group(make_app):
    log = []

    class Base(GroupConsumer):
        groups = ["room.{id}"]

        async def on_join(self, group):
            log.append(f"method {group}")

    class Child(Base):
        pass

    @Base.on_event("join")
    async def greet(consumer: Base, group: str) -> None:
        log.append(f"join {type(consumer).__name__} {group}")
        await consumer.send_event("welcome", group)

    def farewell(consumer: Base, group: str) -> None:
        log.append(f"leave {group}")

    Base.add_event_handler("leave", farewell)
    app = make_app(path("/{id}", Child))
    async with WebsocketCommunicator(app, "/7") as client:
        await client.assert_event("welcome", "room.7")
    assert log == ["method room.7", "join Child room.7", "leave room.7"]
    assert greet.__name__ == "greet"


def test_only_join_and_leave_can_be_handled():
    class Room(GroupConsumer):
        pass

    with pytest.raises(ValueError, match=r"on_event takes one of 'join', 'leave'; found 'jion'"):
        Room.on_event("jion")(lambda consumer, group: None)
    with pytest.raises(TypeError, match=r"a function of \(consumer, group\)"):
        Room.add_event_handler("join", "greet")


# serve()


class Served(GroupConsumer):
    @action
    async def say(self, text: str) -> None:
        await self.broadcast("said", text)

    @action
    async def names(self) -> list[str]:
        return list(self.group_names)


@pytest.mark.parametrize("accepted", [False, True])
async def test_serve_runs_a_consumer_in_a_plain_endpoint_accepted_before_or_not(accepted, nothing_left):
    app, after = FastAPI(), []

    @app.websocket("/ws/{room}")
    async def endpoint(websocket: WebSocket, room: str, lang: str = "en"):
        if accepted:
            await websocket.accept()
        await Served.serve(websocket, groups=[f"chat.{room}.{lang}"])
        after.append(room)

    async with (
        WebsocketCommunicator(app, "/ws/a?lang=de") as one,
        WebsocketCommunicator(app, "/ws/a?lang=de") as two,
    ):
        await one.call("say", {"text": "hallo"})
        for client in (one, two):
            await client.assert_event("said", "hallo", "chat.a.de")
    assert after == ["a", "a"]
    assert nothing_left(app)


async def test_serve_joins_the_classes_groups_where_none_are_named():
    class Own(Served):
        groups = ["own.{room}"]

    app = FastAPI()

    @app.websocket("/{room}")
    async def endpoint(websocket: WebSocket):
        await Own.serve(websocket)

    async with WebsocketCommunicator(app, "/x") as client:
        assert await client.call("names") == ["own.x"]


async def test_serve_on_an_accepted_socket_tells_the_refusal_and_closes():
    class Denied(Served):
        permission_classes = [False]

    app = FastAPI()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket):
        await websocket.accept()
        await Denied.serve(websocket)

    async with WebsocketCommunicator(app, "/") as client:
        assert (await client.receive_json_from())["error"]["code"] == "permission_denied"
        await client.assert_closed(4403)


async def test_serve_takes_no_subprotocol_that_the_endpoint_did_not_accept():
    app = FastAPI()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket):
        await websocket.accept()
        await Served.serve(websocket, groups=["g"])

    async with WebsocketCommunicator(app, "/", subprotocols=["fc.v1.msgpack"]) as client:
        assert await client.call("names") == ["g"]


async def test_serve_uses_the_apps_settings_where_it_has_some(make_app):
    app = make_app(permission_classes=[False])

    @app.websocket("/")
    async def endpoint(websocket: WebSocket):
        await Served.serve(websocket, groups=["g"])

    client = WebsocketCommunicator(app, "/")
    assert await client.connect() == (False, 4403)
    await client.wait()


async def test_serve_runs_raw_consumers_too_and_the_endpoint_may_go_on_after_it():
    class Echo(Consumer):
        async def receive(self, text_data=None, bytes_data=None):
            await self.send(text_data)
            await self.close(4001)

    app, states = FastAPI(), []

    @app.websocket("/")
    async def endpoint(websocket: WebSocket):
        await Echo.serve(websocket)
        states.append(websocket.application_state.name)

    async with WebsocketCommunicator(app, "/") as client:
        await client.send_to("x")
        assert await client.receive_from() == "x"
        await client.assert_closed(4001)
    assert states == ["DISCONNECTED"]
