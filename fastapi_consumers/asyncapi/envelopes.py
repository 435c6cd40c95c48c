"""The messages of the wire protocol, as schemas: what clients send, and what they are sent."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from ..exceptions import ConsumerError, HTTPError, Throttled
from .schemas import Schema

#: What all messages share, by its name under ``components``; the prefix keeps it apart from the application's models.
SHARED: dict[str, Schema] = {
    "fc.RequestId": {
        "description": "Chosen by the client. It comes back in each answer.",
        "oneOf": [
            {"type": "string", "maxLength": 255},
            {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        ],
    }
}
REQUEST_ID: Schema = {"$ref": "#/components/schemas/fc.RequestId"}
GROUP: Schema = {"type": "string", "description": "The group that it was sent to."}
OFFSET: Schema = {"type": "integer", "minimum": 1, "description": "Its place in the group's history."}
METAS: Schema = {
    "type": "object",
    "description": "Key to its connections.",
    "additionalProperties": {
        "type": "object",
        "properties": {
            "metas": {"type": "array", "items": {"type": "object", "properties": {"ref": {"type": "string"}}}}
        },
    },
}


def constant(value: str) -> Schema:
    return {"type": "string", "const": value}


def record(properties: Mapping[str, Schema], required: Iterable[str], **more: Any) -> Schema:
    """An object with these properties."""
    return {"type": "object", "properties": dict(properties), "required": list(required), **more}


def request(
    name: str, data: Schema | None, *, required: bool, shape: Schema | None, serializer: type[BaseModel] | None
) -> Schema:
    """What a client sends to call an action.

    Args:
        data: the payload; ``None`` if there is none.
        required: whether it has to be sent.
        shape: the schema of ``serializer``, where the class has an envelope of its own.
    """
    if serializer is None or shape is None:
        properties = {"action": constant(name), "request_id": REQUEST_ID}
        if data is not None:
            properties["data"] = data
        # The server ignores other keys. Without them a request can be told from an answer, as AsyncAPI asks.
        return record(properties, ["action", *(["data"] if required else [])], additionalProperties=False)
    names = {field: _alias(serializer, field, "validation_alias") for field in serializer.model_fields}
    known: dict[str, Schema] = {names["action"]: constant(name)}
    parts: list[Schema] = [shape]
    if "data" in names and data is not None:
        known[names["data"]] = data
    elif data is not None:
        parts.append(data)  # Its keys stand beside those of the envelope.
    return {"type": "object", "allOf": [*parts, record(known, [names["action"]])]}


def reply(name: str, status: str, data: Schema, *, shape: Schema | None, serializer: type[BaseModel] | None) -> Schema:
    """What a client is answered: ``data`` is the reply's, or the error where ``status`` is ``error``."""
    holds = "error" if status == "error" else "data"
    found = {"type": constant("reply"), "action": constant(name), "status": constant(status), holds: data}
    if serializer is None or shape is None:
        found["request_id"] = REQUEST_ID if status == "partial" else {"oneOf": [REQUEST_ID, {"type": "null"}]}
        return record(found, ["type", "action", "request_id", "status", holds])
    known: dict[str, Schema] = {}
    for field, info in serializer.model_fields.items():
        # It is filled by its name or its alias, and sent under another one perhaps.
        source = next((name for name in (field, info.validation_alias, info.alias) if name in found), None)
        if isinstance(source, str):
            known[_alias(serializer, field, "serialization_alias")] = found[source]
    return {"type": "object", "allOf": [shape, record(known, [])]}


def _alias(serializer: type[BaseModel], field: str, kind: str) -> str:
    info = serializer.model_fields[field]
    alias = getattr(info, kind) or info.alias
    return alias if isinstance(alias, str) else field


def error_body(errors: Sequence[type[ConsumerError]]) -> Schema:
    """An error: the codes of these classes with what they mean, and any other, which is the application's own."""
    codes = [_code(error) for error in errors]
    properties: dict[str, Schema] = {
        "code": {
            "type": "string",
            "description": "What programs go by.",
            "anyOf": [*codes, {"type": "string", "description": "A code of the application's own."}],
        },
        "message": {"type": "string", "description": "For people, in the client's language."},
        "details": {"description": "What is wrong with which part of the data, or what else the error has to say."},
        "retryable": {"const": True, "description": "There if the same request may succeed later."},
    }
    if any(issubclass(error, Throttled) for error in errors):
        properties["retry_after"] = {"type": "number", "description": "Seconds until the next request is allowed."}
    if any(issubclass(error, HTTPError) for error in errors):
        properties["status"] = {"type": "integer", "description": "The HTTP status of an `http_error`."}
    return record(properties, ["code", "message"])


def _code(error: type[ConsumerError]) -> Schema:
    found: Schema = {
        "const": error.default_code,
        "description": str(error.default_message),
        "x-close-code": int(error.default_close_code),
    }
    return {**found, "x-retryable": True} if error.retryable else found


def event(name: str | None, data: Schema, *, history: bool) -> Schema:
    """An event that the server sends; ``None`` for one of any name."""
    told = constant(name) if name is not None else {"type": "string", "description": "The event's name."}
    properties = {"type": constant("event"), "event": told, "group": GROUP, "data": data}
    if history:
        properties["offset"] = OFFSET
    return record(properties, ["type", "event", "data"])


def error_notice() -> Schema:
    return record({"type": constant("error"), "error": error_body(())}, ["type", "error"])


def gap() -> Schema:
    return record({"type": constant("gap"), "group": GROUP}, ["type", "group"])


def left() -> Schema:
    return record({"type": constant("left"), "group": GROUP, "error": error_body(())}, ["type", "group", "error"])


def closing() -> Schema:
    properties: dict[str, Schema] = {
        "type": constant("closing"),
        "code": {"type": "integer", "description": "What the socket will close with."},
        "reconnect": {"type": "boolean", "description": "Whether to come back."},
        "after": {"type": "number", "minimum": 0, "description": "Seconds to wait before that."},
    }
    return record(properties, ["type", "code", "reconnect", "after"])


def joined() -> Schema:
    properties: dict[str, Schema] = {
        "type": constant("joined"),
        "group": GROUP,
        "epoch": {"type": "string", "description": "Names this life of the group's history."},
        "offset": {"type": "integer", "minimum": 0, "description": "Just before the first event that follows."},
        "recovered": {"type": "boolean", "description": "There if it was asked for: whether nothing is missing."},
        "missed": {"type": "integer", "minimum": 0, "description": "There if it was recovered: how many follow."},
        "top": {"type": "integer", "minimum": 0, "description": "There if it was recovered: up to where these go."},
    }
    return record(properties, ["type", "group", "epoch", "offset"])


def presence(*, count_only: bool) -> Schema:
    count: Schema = {"type": "integer", "minimum": 0, "description": "How many are there."}
    changes = {"count": count} if count_only else {"joins": METAS, "leaves": METAS}
    return record({"type": constant("presence"), "group": GROUP, **changes}, ["type", "group", *changes])
