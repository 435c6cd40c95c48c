"""fastapi_consumers, from this checkout: a GroupConsumer with two typed actions.

bench-venv: base
bench-dialect: plain
bench-redis: no
bench-default: yes
"""

from fastapi import FastAPI
from pydantic import BaseModel

from fastapi_consumers import GroupConsumer, action, add_consumers, path


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
add_consumers(app, [path("/ws/{group}", Bench)], url="memory://")
