"""fastapi_consumers, from this checkout: a GroupConsumer with two typed actions.

Variants: @overflow=drop_oldest; @history=memory, redis or sqlite; @presence and @policies, each memory or redis;
@observers=metrics or statistics, or what is to cost nothing: admin, schedule, silent, again; @backend=redis;
@direct=no: no frame is written straight to the transport.

bench-title: fastapi_consumers
bench-venv: base
bench-dialect: plain
bench-default: yes
"""

import os
from typing import Any

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from fastapi_consumers import GroupConsumer, action, add_consumers, every, path
from fastapi_consumers.history import History
from fastapi_consumers.permissions import BasePermission
from fastapi_consumers.presence import Presence

REDIS = os.environ.get("BENCH_REDIS_URL", "")
URL = REDIS if os.environ.get("BENCH_BACKEND") == "redis" else "memory://"
HISTORY = os.environ.get("BENCH_HISTORY")
PRESENCE = os.environ.get("BENCH_PRESENCE")
POLICIES = os.environ.get("BENCH_POLICIES")
OBSERVERS = os.environ.get("BENCH_OBSERVERS")


class IsAllowed(BasePermission):
    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return True


#: By default none, so that it is what a class without the attributes is.
OPTIONS: dict[str, Any] = {}
if HISTORY:
    OPTIONS["history"] = History(size=1000)
if PRESENCE:
    OPTIONS["presence"] = Presence(key=lambda consumer: consumer.websocket.query_params.get("key"))
if POLICIES:
    OPTIONS |= {"permission_classes": [IsAllowed], "throttle_classes": ["1000000/second"]}
if "BENCH_OVERFLOW" in os.environ:
    OPTIONS["overflow"] = os.environ["BENCH_OVERFLOW"]


def store_url(where: str | None) -> str | None:
    return REDIS if where == "redis" else None


def history_url() -> str | None:
    if HISTORY == "sqlite":
        return f"sqlite:///{os.environ['BENCH_FOLDER']}/history.db"
    return store_url(HISTORY)


def observed() -> dict[str, Any]:
    if OBSERVERS == "metrics":
        from fastapi_consumers.contrib.prometheus import Metrics

        return {"observers": [Metrics()]}
    return {"statistics": {"statistics": True}, "silent": {"access_log": False}}.get(OBSERVERS or "", {})


class Text(BaseModel):
    text: str


class Publication(BaseModel):
    group: str
    text: str


class Bench(GroupConsumer):
    groups = ["bench.{group}"]

    @action
    async def echo(self, data: Text) -> Text:
        return data

    @action
    async def publish(self, data: Publication) -> None:
        await self.broadcast("message", {"text": data.text}, group=f"bench.{data.group}")


app = FastAPI()
route = path("/ws/{group}", Bench.as_asgi(**OPTIONS) if OPTIONS else Bench)
consumers = add_consumers(
    app,
    [route],
    url=URL,
    history_url=history_url(),
    presence_url=store_url(PRESENCE),
    limiter_url=store_url(POLICIES),
    direct_writes=os.environ.get("BENCH_DIRECT") != "no",
    **observed(),
)

if OBSERVERS == "admin":
    from fastapi_consumers.admin import admin_router

    app.include_router(admin_router(dependencies=[Depends(lambda: None)]))
if OBSERVERS == "schedule":

    @consumers.schedule(every("365d"))
    async def clean_up() -> None: ...


@app.get("/counters")
async def counters() -> dict[str, Any]:
    return {"overflows": consumers.overflows, "connections": len(consumers.connections)}
