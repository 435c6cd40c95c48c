"""fastapi_consumers, from this checkout: a GroupConsumer with two typed actions.

Variants: @overflow=drop_oldest; @history=memory, redis or sqlite; @backend=redis.

bench-venv: base
bench-dialect: plain
bench-default: yes
"""

import os
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from fastapi_consumers import GroupConsumer, action, add_consumers, path
from fastapi_consumers.history import History

REDIS = os.environ.get("BENCH_REDIS_URL", "")
URL = REDIS if os.environ.get("BENCH_BACKEND") == "redis" else "memory://"
HISTORY = os.environ.get("BENCH_HISTORY")
#: By default none, so that it is what a class without the attribute is.
OPTIONS: dict[str, Any] = {"history": History(size=1000)} if HISTORY else {}
if "BENCH_OVERFLOW" in os.environ:
    OPTIONS["overflow"] = os.environ["BENCH_OVERFLOW"]


def history_url() -> str | None:
    if HISTORY == "sqlite":
        return f"sqlite:///{os.environ['BENCH_FOLDER']}/history.db"
    return REDIS if HISTORY == "redis" else None


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
consumers = add_consumers(app, [route], url=URL, history_url=history_url())


@app.get("/counters")
async def counters() -> dict[str, Any]:
    return {"overflows": consumers.overflows, "connections": len(consumers.connections)}
