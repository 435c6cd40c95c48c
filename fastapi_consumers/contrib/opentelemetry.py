"""Traces for OpenTelemetry: the extra ``opentelemetry``, which brings the API; the application brings an SDK.

::

    add_consumers(app, channel_routes, observers=[Tracing()])

Names and attributes follow the semantic conventions where there are any: https://opentelemetry.io/docs/specs/semconv/
(`messaging`, `network`, `url`, `client`, `error`); what is ours begins with ``fastapi_consumers.``.
"""

import traceback
from collections.abc import Sequence
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..connection import Connection
from ..exceptions import ConsumerError
from ..facts import address_of, facts_of
from ..observing import OK, Call, Observer, Publication
from ..packets import Packet
from ..redaction import without_input

#: What a packet carries, whatever the application uses between its services: the W3C's ``traceparent``.
_PACKETS = TraceContextTextMapPropagator()


class Tracing(Observer):
    """Spans for connections, actions, event methods, and for what is published.

    - A connection has a span from its handshake to its end, in the trace that its handshake names, or that of an
      instrumentation of the server.
    - An action, and an event method, is the root of a trace of its own, since connections last for hours. It links to
      its connection's span, an event method also to the span of whoever sent the message, in whichever process. It is
      the current span while the action runs, so what the action calls is traced below it.
    - What is published has a span in the publisher's trace; its ``traceparent`` travels with the packet, to processes
      that trace and to those that do not. What other processes deliver of it has a span that links to it.

    An exception that nobody expected is recorded as the log has it, with its traceback; of other errors the code is, as
    ``error.type``. Nothing that a client sent is: no query, no payload.

    Args:
        tracer_provider: the global one by default.
        events: whether what is published and delivered has spans. ``False``: nothing is carried through the broker.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None, *, events: bool = True) -> None:
        self._tracer = trace.get_tracer("fastapi_consumers", tracer_provider=tracer_provider)
        self._connections: dict[Connection, Span] = {}
        self._events = events

    # -- connections -----------------------------------------------------------------------------------------------

    def connection_opened(self, connection: Connection) -> None:
        self._connections[connection] = self._start_connection(connection)

    def connection_refused(self, connection: Connection) -> None:
        self._end_connection(connection, self._start_connection(connection))

    def connection_closed(self, connection: Connection) -> None:
        span = self._connections.pop(connection, None)
        if span is not None:
            self._end_connection(connection, span)

    def _start_connection(self, connection: Connection) -> Span:
        parent = contexts.get_current()
        is_inside = trace.get_current_span(parent).get_span_context().is_valid
        if not is_inside:
            headers = connection.scope.get("headers") or ()
            # By lower-case names, as ASGI has it.
            parent = propagate.extract({name.decode("latin-1"): value.decode("latin-1") for name, value in headers})
        attributes = {
            "network.protocol.name": "websocket",
            "url.scheme": connection.scope.get("scheme") or "ws",
            "url.path": facts_of(connection)["path"],
            "fastapi_consumers.consumer": connection.plan.options.name,
            "fastapi_consumers.connection": connection.channel_name,
        }
        if address := address_of(connection.scope):
            attributes["client.address"] = address
        return self._tracer.start_span(
            f"connection {connection.plan.options.name}",
            context=parent,
            kind=SpanKind.INTERNAL if is_inside else SpanKind.SERVER,
            attributes=attributes,
            start_time=_nanoseconds(connection.opened_at),
        )

    def _end_connection(self, connection: Connection, span: Span) -> None:
        facts = facts_of(connection)
        for name in ("close_code", "closed_by", "close_reason"):
            if facts[name] not in (None, ""):
                span.set_attribute(f"fastapi_consumers.{name}", facts[name])
        if connection.close_reason == "internal_error":
            _fail(span, connection.close_reason)
        elif not connection.is_accepted and connection.close_reason:
            span.set_attribute("error.type", facts["close_reason"])
        span.end(_nanoseconds(connection.opened_at + facts["duration"]))

    # -- actions and event methods ---------------------------------------------------------------------------------

    def call_started(self, call: Call) -> None:
        links = []
        if (connection := self._connections.get(call.connection)) is not None:
            links.append(Link(connection.get_span_context()))
        links += _link_to(call.trace)
        name = call.connection.plan.options.name
        span = self._tracer.start_span(
            f"{name}.{call.name}",
            context=Context(),
            kind=SpanKind.SERVER if call.kind == "action" else SpanKind.CONSUMER,
            links=links,
            attributes={
                "fastapi_consumers.consumer": name,
                f"fastapi_consumers.{call.kind}": call.name,
                "fastapi_consumers.connection": call.connection.channel_name,
            },
        )
        # On top of the task's own context, which may hold baggage and more.
        token = contexts.attach(trace.set_span_in_context(span))
        call.state = {**(call.state or {}), self: (span, token)}

    def call_ended(self, call: Call) -> None:
        kept = (call.state or {}).pop(self, None)
        if kept is None:
            return
        span, token = kept
        contexts.detach(token)
        if call.outcome != OK:
            if _is_fault(call.failure):
                _fail(span, call.outcome, call.failure)
            else:
                span.set_attribute("error.type", call.outcome)
        span.end()

    # -- what is published -----------------------------------------------------------------------------------------

    def publishing(self, publication: Publication) -> None:
        if not self._events:
            return
        packet = publication.packet
        span = self._tracer.start_span(
            f"send {_kind(packet)}", kind=SpanKind.PRODUCER, attributes=_attributes("send", publication.topic, packet)
        )
        carrier: dict[str, str] = {}
        _PACKETS.inject(carrier, trace.set_span_in_context(span))
        publication.packet = packet._replace(trace=carrier.get("traceparent"))
        publication.state = {**(publication.state or {}), self: span}

    def published(self, publication: Publication) -> None:
        span = (publication.state or {}).pop(self, None)
        if span is not None:
            if publication.failure is not None:
                failure = publication.failure
                code = failure.code if isinstance(failure, ConsumerError) else type(failure).__qualname__
                _fail(span, code, failure)
            span.end()

    def delivered(self, topic: str, packet: Packet, members: int) -> None:
        sender = _sender(packet.trace)
        here = trace.get_current_span().get_span_context()
        # What this process delivers in place, in the middle of sending it, needs no span of its own.
        if self._events and sender is not None and here.trace_id != sender.trace_id:
            attributes = {**_attributes("receive", topic, packet), "fastapi_consumers.members": members}
            self._tracer.start_span(
                f"receive {_kind(packet)}",
                context=Context(),
                kind=SpanKind.CONSUMER,
                links=[Link(sender)],
                attributes=attributes,
            ).end()


def _kind(packet: Packet) -> str:
    """The event's name, which the application's code chose, or what else it is."""
    return packet.name if packet.kind == "event" else packet.kind


def _attributes(operation: str, topic: str, packet: Packet) -> dict[str, Any]:
    return {
        "messaging.system": "fastapi_consumers",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": topic,
        "messaging.message.body.size": len(packet.data),
    }


def _sender(traceparent: str | None) -> SpanContext | None:
    if traceparent is None:
        return None
    found = trace.get_current_span(_PACKETS.extract({"traceparent": traceparent}, Context())).get_span_context()
    return found if found.is_valid else None


def _link_to(traceparent: str | None) -> Sequence[Link]:
    sender = _sender(traceparent)
    return [Link(sender)] if sender is not None else []


def _is_fault(failure: BaseException | None) -> bool:
    """Whether it is the server's, not the client's."""
    return isinstance(failure, Exception) and not (isinstance(failure, ConsumerError) and failure.http_status < 500)


def _fail(span: Span, code: str, failure: BaseException | None = None) -> None:
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR, code))
    if failure is not None:
        told = without_input(failure)
        # Said in full: older SDKs would take the exception that is being handled, which may be none, or another.
        stack = "".join(traceback.format_exception(told))
        span.record_exception(told, attributes={"exception.stacktrace": stack})


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
