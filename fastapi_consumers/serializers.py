"""Shapes of the envelopes: pydantic models for what comes in and for what goes out.

A consumer names them in ``request_serializer_class`` and ``response_serializer_class``. Without them the native
envelope of the wire protocol is used, which is cheaper.
"""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticUndefined

from .messages import Event, Reply


class RequestSerializer(BaseModel):
    """The shape of a request. A subclass declares ``action`` and, if clients send one, ``request_id``.

    Fields may have aliases. :meth:`get_data` says what of it is the action's payload.
    """

    action: str
    request_id: int | str | None = None

    def get_data(self) -> Any:
        """The payload: a field named ``data`` if there is one, else all fields but ``action`` and ``request_id``."""
        return data_of(self)


def data_of(envelope: BaseModel) -> Any:
    """What :meth:`RequestSerializer.get_data` says, for any model. ``PydanticUndefined`` if no data was sent."""
    fields = type(envelope).model_fields
    if "data" in fields:
        data = getattr(envelope, "data", None)
        return PydanticUndefined if data is None and "data" not in envelope.model_fields_set else data
    names = [name for name in fields if name not in ("action", "request_id")]
    return {**{name: getattr(envelope, name) for name in names}, **(envelope.model_extra or {})}


class ActionRequest(RequestSerializer):
    """The native shape: ``{"action", "request_id", "data"}``."""

    data: Any = None


class FlatRequest(RequestSerializer):
    """The payload's keys stand beside ``action`` and ``request_id``."""

    model_config = ConfigDict(extra="allow")


class ResponseSerializer(BaseModel):
    """The shape of a reply. A subclass declares the fields that it wants to show.

    They are filled by name from ``type`` (``"reply"``), ``action``, ``request_id``, ``status`` (``"ok"``,
    ``"partial"`` or ``"error"``), ``data``, ``error`` (``None`` or its body) and ``errors`` (the same as a list, empty
    when all went well). Without a field ``data`` the keys of the reply's data are fields too. What is not declared is
    not sent. Fields may have aliases. Override :meth:`from_reply` for anything else.
    """

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    #: The fields that the framework fills; data cannot overwrite them.
    reserved: ClassVar[frozenset[str]] = frozenset({"type", "action", "request_id", "status", "error", "errors"})

    @classmethod
    def from_reply(cls, reply: Reply) -> BaseModel | dict[str, Any]:
        """What is sent as the answer. ``reply.data`` is made of dicts, lists and scalars."""
        error = reply.error.body() if reply.error is not None else None
        values: dict[str, Any] = {
            "type": "reply",
            "action": reply.action,
            "request_id": reply.request_id,
            "status": reply.status,
            "error": error,
            "errors": [error] if error is not None else [],
        }
        if "data" in cls.model_fields:
            values["data"] = reply.data
        elif isinstance(reply.data, dict):
            values = {**{key: value for key, value in reply.data.items() if key not in cls.reserved}, **values}
        try:
            return cls.model_validate(values)
        except ValidationError:
            if reply.error is None:
                raise
        # Fields that only a successful reply can fill must not keep an error from the client.
        return {
            field.serialization_alias or field.alias or name: values.get(name)
            for name, field in cls.model_fields.items()
        }

    @classmethod
    def from_event(cls, event: Event, data: Any) -> BaseModel | dict[str, Any] | None:
        """What is sent for an event whose decoded data is ``data``; ``None`` for the native shape."""
        return None


class ActionResponse(ResponseSerializer):
    """The native shape: ``{"type", "action", "request_id", "status", "data", "error"}``."""

    type: str = "reply"
    action: str | None
    request_id: int | str | None
    status: str
    data: Any = None
    error: dict[str, Any] | None = None
