"""fast-channels + chanx: AsyncJsonWebsocketConsumer with @ws_handler on FastAPI (chanx README).

Message logging is left at chanx's default, but structlog only emits warnings (same as uvicorn here).

bench-title: chanx (fast-channels)
bench-venv: chanx
bench-dialect: chanx
bench-most: 1000
"""

import logging
import os
from typing import Literal

import structlog
from chanx.core.decorators import channel, ws_handler
from chanx.fast_channels.websocket import AsyncJsonWebsocketConsumer
from chanx.messages.base import BaseMessage
from fast_channels.layers import InMemoryChannelLayer, register_channel_layer
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.routing import WebSocketRoute

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


class EchoPayload(BaseModel):
    request_id: int
    text: str


class EchoMessage(BaseMessage):
    action: Literal["echo"] = "echo"
    payload: EchoPayload


class EchoReply(BaseMessage):
    action: Literal["echo_reply"] = "echo_reply"
    payload: EchoPayload


class PublishPayload(BaseModel):
    group: str
    text: str


class PublishMessage(BaseMessage):
    action: Literal["publish"] = "publish"
    payload: PublishPayload


class TextPayload(BaseModel):
    text: str


class GroupMessage(BaseMessage):
    action: Literal["message"] = "message"
    payload: TextPayload


@channel(name="chat", description="Room chat")
class ChatConsumer(AsyncJsonWebsocketConsumer):
    channel_layer_alias = "default"

    async def post_authentication(self) -> None:
        await self.join_group(self.scope["path_params"]["group"])

    @ws_handler(output_type=EchoReply)
    async def handle_echo(self, message: EchoMessage) -> EchoReply:
        return EchoReply(payload=message.payload)

    @ws_handler(output_type=GroupMessage)
    async def handle_publish(self, message: PublishMessage) -> None:
        await self.broadcast_message(
            GroupMessage(payload=TextPayload(text=message.payload.text)), groups=[message.payload.group]
        )


if os.environ.get("BENCH_BACKEND") == "redis":
    from fast_channels.layers.redis import RedisPubSubChannelLayer

    register_channel_layer("default", RedisPubSubChannelLayer(hosts=[os.environ["BENCH_REDIS_URL"]]))
else:
    register_channel_layer("default", InMemoryChannelLayer())

app = FastAPI()
# chanx's README says app.add_websocket_route(...), which FastAPI 0.165 / Starlette 1.x no longer has.
app.router.routes.append(WebSocketRoute("/ws/{group}", ChatConsumer.as_asgi()))
