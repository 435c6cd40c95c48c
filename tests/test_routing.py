"""The routing table: ``path``, ``add_routes`` on routers, and what is wrong with a route."""

from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, Path, Request

from fastapi_consumers import (
    Consumer,
    GroupConsumer,
    ImproperlyConfigured,
    JSONConsumer,
    action,
    add_consumers,
    add_routes,
    path,
)
from fastapi_consumers.testing import WebsocketCommunicator, lifespan


class Room(GroupConsumer):
    groups = ["{tenant}.{room}"]

    @action
    async def where(self, room: Annotated[str, Path()]) -> dict[str, object]:
        return {"params": dict(self.path_params), "groups": self.group_names, "room": room}


class Echo(Consumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data)


class Base(JSONConsumer, abstract=True):
    pass


def codes(error):
    return [problem.code for problem in error.value.problems]


# path


def test_a_route_is_named_after_its_class_unless_told():
    assert path("/", Echo).name == "Echo"
    assert path("/", Echo, name="echo").name == "echo"
    assert path("/", Echo).consumer_class is Echo
    assert path("/", Echo.as_asgi()).consumer_class is Echo


@pytest.mark.parametrize("consumer", [Echo(), "Echo", None, lambda: None, dict])
def test_path_takes_a_consumer_class_or_its_asgi_app_and_nothing_else(consumer):
    with pytest.raises(ImproperlyConfigured, match="a class derived from Consumer, or what its as_asgi") as caught:
        path("/", consumer)
    assert codes(caught) == ["route-consumer"]


def test_all_mistakes_of_a_route_are_reported_together():
    with pytest.raises(ImproperlyConfigured) as caught:
        path("chat/{room", Base, dependencies=[Echo])
    assert codes(caught) == ["route-abstract-consumer", "route-path", "route-dependencies"]


@pytest.mark.parametrize("wrong", ["chat", "/{a}/{a}", "/{a:nope}"])
def test_a_path_that_starlette_cannot_compile_is_refused(wrong):
    with pytest.raises(ImproperlyConfigured) as caught:
        path(wrong, Echo)
    assert codes(caught) == ["route-path"]


def test_a_class_whose_annotations_do_not_resolve_is_refused_at_the_route():
    class Later(JSONConsumer):
        @action
        async def wait(self, data: "NeverDefined") -> None: ...  # noqa: F821 -- never defined, or later

    with pytest.raises(ImproperlyConfigured, match="NeverDefined"):
        path("/", Later)


# Reverse


def test_url_path_for_by_name_with_parameters():
    app = FastAPI()
    add_consumers(app, [path("/{tenant}/{room}", Room, name="chat"), path("/echo", Echo)])
    assert app.url_path_for("chat", tenant="acme", room="lobby") == "/acme/lobby"
    assert app.url_path_for("Echo") == "/echo"
    router = APIRouter(prefix="/r")
    add_routes(router, [path("/{room}", Room, name="nested")])
    app.include_router(router, prefix="/t/{tenant}")
    assert app.url_path_for("nested", tenant="acme", room="lobby") == "/t/acme/r/lobby"


# add_routes


async def test_routes_of_a_router_have_its_prefix_and_those_of_including_routers():
    inner, outer, app = APIRouter(prefix="/rooms"), APIRouter(prefix="/tenants"), FastAPI()
    add_routes(inner, [path("/{room}", Room)])
    outer.include_router(inner, prefix="/{tenant}")
    add_consumers(app)
    app.include_router(outer, prefix="/api")
    async with WebsocketCommunicator(app, "/api/tenants/acme/rooms/lobby") as client:
        assert await client.call("where") == {
            "params": {"tenant": "acme", "room": "lobby"},
            "groups": ["acme.lobby"],
            "room": "lobby",
        }
    client = WebsocketCommunicator(app, "/rooms/lobby")
    assert (await client.connect())[0] is False
    await client.wait()


async def test_an_empty_path_is_the_prefix_itself_on_a_router_and_a_mistake_on_an_app():
    router, app = APIRouter(prefix="/echo"), FastAPI()
    add_routes(router, [path("", Echo)])
    app.include_router(router)
    add_consumers(app)
    async with WebsocketCommunicator(app, "/echo") as client:
        await client.send_to("x")
        assert await client.receive_from() == "x"
    with pytest.raises(ImproperlyConfigured) as caught:
        add_consumers(FastAPI(), [path("", Echo)])
    assert codes(caught) == ["route-path"]


async def test_a_router_may_be_included_before_or_after_add_consumers_and_in_two_apps():
    router = APIRouter()
    add_routes(router, [path("/echo", Echo)])
    before, after = FastAPI(), FastAPI()
    before.include_router(router)
    add_consumers(before)
    add_consumers(after)
    after.include_router(router)
    for app in (before, after):
        async with WebsocketCommunicator(app, "/echo") as client:
            await client.send_to("x")
            assert await client.receive_from() == "x"


async def test_consumers_on_a_router_run_in_memory_where_nobody_called_add_consumers():
    app, router = FastAPI(), APIRouter()
    add_routes(router, [path("/{tenant}/{room}", Room)])
    app.include_router(router)
    async with WebsocketCommunicator(app, "/a/b") as client:
        await app.state.consumers.broadcast("a.b", "news")
        await client.assert_event("news")


async def test_dependencies_of_the_router_refuse_before_the_consumer_is_made():
    made = []

    class Noting(Echo):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    def refuse(request: Request = None):
        from fastapi import WebSocketException

        raise WebSocketException(4777, "no")

    app, router = FastAPI(), APIRouter(dependencies=[Depends(refuse)])
    add_routes(router, [path("/echo", Noting)])
    add_consumers(app)
    app.include_router(router)
    client = WebsocketCommunicator(app, "/echo")
    assert await client.connect() == (False, 4777)
    await client.wait()
    assert made == []


def test_wrong_routes_are_refused_all_at_once_also_on_a_router():
    with pytest.raises(ImproperlyConfigured) as caught:
        add_routes(APIRouter(), [path("/a", Echo), Echo, path("/a", Room)])
    assert codes(caught) == ["route-type", "route-path-taken"]
    for routes in ("routes", None, path("/a", Echo), (path("/a", Echo) for _ in range(1)), {path("/a", Echo): 1}):
        for add, target in ((add_routes, APIRouter()), (add_consumers, FastAPI())):
            with pytest.raises(ImproperlyConfigured) as caught:
                add(target, routes)
            assert codes(caught) == ["routes-type"]


# Group templates


def test_a_group_template_with_an_unknown_parameter_is_refused_by_add_consumers():
    with pytest.raises(ImproperlyConfigured) as caught:
        add_consumers(FastAPI(), [path("/{room}", Room)])
    assert codes(caught) == ["route-group-parameter"]
    assert str(caught.value) == "\n".join(
        [
            "add_consumers() has 1 mistake:",
            "",
            "1. [route-group-parameter] path('/{room}', Room)",
            "   found:    the group template '{tenant}.{room}' with the parameter tenant",
            "   expected: parameters of the path '/{room}' (room)",
            "   fix:      mend the template or the path",
        ]
    )


async def test_on_a_router_it_is_found_when_the_app_starts():
    app, router = FastAPI(), APIRouter(prefix="/r")
    add_routes(router, [path("/{room}", Room)])
    app.include_router(router)
    add_consumers(app)
    with pytest.raises(ImproperlyConfigured, match=r"parameters of the path '/r/\{room\}' \(room\)"):
        async with lifespan(app):
            pass


async def test_a_consumer_with_get_groups_of_its_own_may_leave_parameters_open():
    class Own(Room):
        def get_groups(self):
            return ["own"]

    app = FastAPI()
    add_consumers(app, [path("/{room}", Own)])
    async with WebsocketCommunicator(app, "/x") as client:
        assert (await client.call("where"))["groups"] == ["own"]


async def test_without_lifespan_an_unknown_parameter_refuses_the_handshake(caplog):
    app, router = FastAPI(), APIRouter()
    add_routes(router, [path("/{room}", Room)])
    app.include_router(router)
    client = WebsocketCommunicator(app, "/x")
    assert await client.connect() == (False, 1011)
    await client.wait()
    assert "the group template '{tenant}.{room}', on a route without tenant" in caplog.text
