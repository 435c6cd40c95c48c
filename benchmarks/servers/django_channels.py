"""django channels 4.3 AsyncJsonWebsocketConsumer; InMemoryChannelLayer / RedisPubSubChannelLayer.

As in the Channels tutorial: URLRouter in a ProtocolTypeRouter, group_add in connect, one
handler method per event type. DATABASES is startproject's sqlite default.

bench-title: Django Channels
bench-venv: channels
bench-dialect: plain
bench-most: 1000
"""

import os

from django.conf import settings

if os.environ.get("BENCH_BACKEND") == "redis":
    LAYER = {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [os.environ["BENCH_REDIS_URL"]]},
    }
else:
    LAYER = {"BACKEND": "channels.layers.InMemoryChannelLayer"}

settings.configure(
    DEBUG=False,
    SECRET_KEY="x",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["channels"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    CHANNEL_LAYERS={"default": LAYER},
)

from django.core.asgi import get_asgi_application  # noqa: E402 -- Django is set up first

django_app = get_asgi_application()

from channels.generic.websocket import AsyncJsonWebsocketConsumer  # noqa: E402 -- Django is set up first
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402 -- Django is set up first
from django.urls import re_path  # noqa: E402 -- Django is set up first


class ChatConsumer(AsyncJsonWebsocketConsumer):
    async def connect(self):
        self.group = self.scope["url_route"]["kwargs"]["group"]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive_json(self, content, **kwargs):
        if content["action"] == "echo":
            await self.send_json({"action": "echo", "request_id": content["request_id"], "data": content["data"]})
        else:
            data = content["data"]
            await self.channel_layer.group_send(data["group"], {"type": "chat.message", "text": data["text"]})

    async def chat_message(self, event):
        await self.send_json({"action": "message", "data": {"text": event["text"]}})


app = ProtocolTypeRouter(
    {
        "http": django_app,
        "websocket": URLRouter([re_path(r"^ws/(?P<group>\w+)$", ChatConsumer.as_asgi())]),
    }
)
