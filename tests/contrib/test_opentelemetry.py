"""Traces, as an SDK exports them; across processes, over a real Valkey."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import TypeAdapter

from fastapi_consumers import GroupConsumer, Publisher, SyncPublisher, action, add_consumers, event, path
from fastapi_consumers.contrib.opentelemetry import Tracing
from fastapi_consumers.exceptions import BrokerUnavailable, NotAuthenticated
from fastapi_consumers.testing import FaultyTransport, HandshakeRefused, WebsocketCommunicator, lifespan
from fastapi_consumers.transports import MemoryTransport
from tests.transports.conftest import Broker, broker, make_broker, own_broker

__all__ = ["broker", "make_broker", "own_broker"]


class Room(GroupConsumer):
    groups = ["room"]

    @action
    async def say(self, text: str) -> None:
        with trace.get_tracer("application", tracer_provider=Room.provider).start_as_current_span("inside"):
            await self.broadcast("said", text)

    @action(concurrent=True)
    async def call(self, text: str) -> None:
        await self.channel_layer.group_send("room", {"type": "heard", "text": text})

    @action
    async def fall(self) -> None:
        raise LookupError("a bug")

    @action
    async def misread(self, text: str) -> None:
        TypeAdapter(int).validate_python(text)

    @action
    async def refuse(self) -> None:
        raise NotAuthenticated

    @event("heard")
    async def heard(self, message: dict[str, Any]) -> None:
        await self.send_event("heard", message)

    provider: TracerProvider


class Closed(Room):
    def get_groups(self) -> list[str]:
        raise NotAuthenticated


class Spans:
    """What one process exports."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = Room.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider)

    def __getitem__(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    @property
    def names(self) -> list[str]:
        return [span.name for span in self._exporter.get_finished_spans()]

    async def until(self, name: str, count: int = 1) -> list[ReadableSpan]:
        async with asyncio.timeout(30):
            while len(self[name]) < count:  # noqa: ASYNC110 - exported by a library that tells nobody
                await asyncio.sleep(0.005)
        return self[name]


@pytest.fixture
def spans() -> Spans:
    return Spans()


def room_app(spans: Spans, **options: Any) -> FastAPI:
    app = FastAPI()
    add_consumers(app, [path("/room", Room)], observers=[spans.tracing], **options)
    return app


def linked(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


async def test_an_action_is_a_trace_of_its_own_that_links_to_its_connection(spans: Spans) -> None:
    async with WebsocketCommunicator(room_app(spans), "/room?token=secret") as client:
        await client.send_json_to({"action": "say", "request_id": 1, "data": {"text": "private"}})
        await client.receive_json_from()
        await client.receive_json_from()
    (connection,) = await spans.until("connection Room")
    (said,), (inside,), (sent,) = spans["Room.say"], spans["inside"], spans["send said"]
    assert said.parent is None
    assert linked(said) == {id_of(connection)}
    assert (said.kind, said.status.status_code) == (SpanKind.SERVER, StatusCode.UNSET)
    # What the action does is below it.
    assert inside.parent is not None
    assert inside.parent.span_id == id_of(said)
    assert sent.parent is not None
    assert sent.parent.span_id == id_of(inside)
    assert sent.kind is SpanKind.PRODUCER
    assert sent.attributes is not None
    assert sent.attributes["messaging.destination.name"] == "group:room"
    # Within one process nothing is delivered twice.
    assert spans["receive said"] == []
    assert connection.attributes is not None
    assert connection.attributes["fastapi_consumers.close_code"] == 1000
    assert connection.attributes["fastapi_consumers.closed_by"] == "client"
    assert connection.attributes["url.path"] == "/room"
    assert connection.kind is SpanKind.SERVER
    everything = "".join(span.to_json() for span in (connection, said, inside, sent))
    assert "secret" not in everything
    assert "private" not in everything


async def test_what_is_recorded_of_a_validation_error_is_not_what_it_is_about(
    spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    async with WebsocketCommunicator(room_app(spans), "/room") as client:
        await client.send_json_to({"action": "misread", "request_id": 1, "data": {"text": "private"}})
        assert (await client.receive_json_from())["status"] == "error"
    (span,) = spans["Room.misread"]
    (recorded,) = span.events
    assert recorded.attributes is not None
    assert "ValidationError" in str(recorded.attributes["exception.type"])
    assert "int_parsing" in str(recorded.attributes["exception.stacktrace"])
    assert "private" not in span.to_json()
    assert "private" not in caplog.text


async def test_a_connection_goes_on_with_the_trace_that_its_handshake_names(spans: Spans) -> None:
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with WebsocketCommunicator(room_app(spans), "/room", headers={"traceparent": header}):
        pass
    (connection,) = await spans.until("connection Room")
    assert connection.parent is not None
    assert f"{connection.parent.span_id:x}" == "b7ad6b7169203331"


async def test_errors_are_recorded_and_told_from_what_clients_did_wrong(
    spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    async with WebsocketCommunicator(room_app(spans), "/room") as client:
        for name in ("fall", "refuse", "nothing\n"):
            await client.send_json_to({"action": name, "request_id": 1})
            assert (await client.receive_json_from())["status"] == "error"
    (fell,), (refused,), (unknown,) = spans["Room.fall"], spans["Room.refuse"], spans["Room.unknown"]
    assert (fell.status.status_code, fell.attributes and fell.attributes["error.type"]) == (
        StatusCode.ERROR,
        "internal_error",
    )
    assert [each.attributes and each.attributes["exception.type"] for each in fell.events] == ["LookupError"]
    for span, code in ((refused, "not_authenticated"), (unknown, "action_not_found")):
        assert (span.status.status_code, span.attributes and span.attributes["error.type"]) == (StatusCode.UNSET, code)
        assert list(span.events) == []


async def test_a_refused_handshake_has_a_span(spans: Spans) -> None:
    app = FastAPI()
    add_consumers(app, [path("/room", Closed)], observers=[spans.tracing])
    with pytest.raises(HandshakeRefused):
        async with WebsocketCommunicator(app, "/room"):
            pass
    (span,) = spans["connection Closed"]
    assert span.attributes is not None
    assert span.attributes["error.type"] == "not_authenticated"


async def test_what_another_process_publishes_is_linked_to_its_senders_span(broker: Broker) -> None:
    here, there = Spans(), Spans()
    one, other = (room_app(each, url=broker.url) for each in (here, there))
    async with lifespan(one), lifespan(other):
        async with WebsocketCommunicator(one, "/room") as speaker, WebsocketCommunicator(other, "/room") as listener:
            await speaker.send_json_to({"action": "say", "data": {"text": "hi"}})
            assert (await listener.receive_json_from())["event"] == "said"
            await speaker.send_json_to({"action": "call", "data": {"text": "hi"}})
            assert (await listener.receive_json_from())["data"] == {"type": "heard", "text": "hi"}
            (said,), (called,) = await here.until("send said"), await here.until("send message")
            (received,), (heard,) = await there.until("receive said"), await there.until("Room.heard")
        (connection,) = await there.until("connection Room")
    assert linked(received) == {id_of(said)}
    assert linked(heard) == {id_of(called), id_of(connection)}
    assert heard.kind is SpanKind.CONSUMER
    # The sender's span is below its action's.
    (action_span,) = here["Room.call"]
    assert called.parent is not None
    assert called.parent.span_id == id_of(action_span)


async def test_processes_that_trace_and_that_do_not_understand_each_other(broker: Broker, spans: Spans) -> None:
    plain = FastAPI()
    add_consumers(plain, [path("/room", Room)], url=broker.url)
    traced = room_app(spans, url=broker.url)
    async with lifespan(plain), lifespan(traced):
        async with WebsocketCommunicator(plain, "/room") as one, WebsocketCommunicator(traced, "/room") as other:
            for speaker in (one, other):
                await speaker.send_json_to({"action": "call", "data": {"text": "hi"}})
                for listener in (one, other):
                    assert (await listener.receive_json_from())["data"] == {"type": "heard", "text": "hi"}
            assert plain.state.consumers.health()["bad_packets"] == 0
            assert traced.state.consumers.health()["bad_packets"] == 0
            await spans.until("Room.heard", 2)


@pytest.mark.parametrize("kind", [Publisher, SyncPublisher])
async def test_a_publisher_outside_is_traced_too(broker: Broker, spans: Spans, kind: Any) -> None:
    outside = Spans()
    app = room_app(spans, url=broker.url)
    async with lifespan(app), WebsocketCommunicator(app, "/room") as client:
        publisher = kind(broker.url, observers=[outside.tracing])
        with trace.get_tracer("job", tracer_provider=outside.provider).start_as_current_span("job"):
            publish: Callable[..., Any] = publisher.broadcast
            if kind is Publisher:
                await publish("room", "said", "hi")
            else:
                await asyncio.to_thread(publish, "room", "said", "hi")
        assert (await client.receive_json_from())["event"] == "said"
        (received,) = await spans.until("receive said")
        closed = publisher.close()
        if closed is not None:
            await closed
    (sent,), (job,) = outside["send said"], outside["job"]
    assert linked(received) == {id_of(sent)}
    assert sent.parent is not None
    assert sent.parent.span_id == id_of(job)


async def test_what_cannot_be_published_is_recorded(spans: Spans) -> None:
    transport = FaultyTransport(MemoryTransport())
    app = room_app(spans, transport=transport)
    async with lifespan(app):
        transport.die()
        with pytest.raises(BrokerUnavailable):
            await app.state.consumers.broadcast("room", "said", 1)
    (sent,) = spans["send said"]
    assert sent.status.status_code is StatusCode.ERROR
    assert sent.attributes is not None
    assert sent.attributes["error.type"] == "broker_unavailable"


async def test_events_can_be_left_out(spans: Spans) -> None:
    spans.tracing = Tracing(spans.provider, events=False)
    async with WebsocketCommunicator(room_app(spans), "/room") as client:
        await client.send_json_to({"action": "call", "data": {"text": "hi"}})
        await client.receive_json_from()
    await spans.until("connection Room")
    assert sorted(set(spans.names)) == ["Room.call", "Room.heard", "connection Room"]


async def test_contexts_are_left_as_they_were_found(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    """OpenTelemetry logs an error for each context that is left in another than it was entered in."""
    with caplog.at_level(logging.WARNING):
        async with WebsocketCommunicator(room_app(spans), "/room") as client:
            for number in range(3):
                await client.send_json_to({"action": "call", "request_id": number, "data": {"text": "hi"}})
            await spans.until("Room.heard", 3)
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []
