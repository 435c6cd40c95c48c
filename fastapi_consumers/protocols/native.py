"""The native wire protocol, version 1, in JSON (``fc.v1.json``, the default) and MessagePack (``fc.v1.msgpack``).

Its description for people is ``docs/protocol.md``.
"""

import difflib
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, NotRequired, Required, Union

from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from ..actions import ANYTHING, MISSING, Action, Returns, typed_dict
from ..codecs import (
    decode_json,
    decode_msgpack,
    encode_json,
    encode_msgpack,
    find_not_finite,
    has_bytes,
    unpack_msgpack,
)
from ..dependencies import error_details
from ..exceptions import ActionNotFound, ConsumerError, InternalError, InvalidData, InvalidFrame
from ..messages import Event, Frame, Notice, Reply, Request, bytes_frame, ready_frame
from ..redaction import without_input
from ..serializers import RequestSerializer, ResponseSerializer, data_of
from ..texts import gettext_lazy as _
from ..types import RequestId, new_tuple
from .base import Framer, Reader
from .wording import MISSING_ACTION, bad_request_id, kind_of, no_object, no_text, unknown_action

logger = logging.getLogger(__name__)

JSON_SUBPROTOCOL = "fc.v1.json"
MSGPACK_SUBPROTOCOL = "fc.v1.msgpack"

#: Longest ``request_id`` in characters; integers have 64 bits.
MAX_REQUEST_ID = 255
#: Longest action name that is compared with the known ones, and with how many of them.
MAX_COMPARED, MAX_CANDIDATES = 32, 32
#: Errors of one payload beyond which they are not told one by one.
MAX_ERRORS = 200

_RequestId = (
    Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
    | Annotated[str, StringConstraints(strict=True, max_length=MAX_REQUEST_ID)]
    | None
)


def _takes_request_id(action: Action) -> bool:
    return action.payload.kind == "fields" and "request_id" in action.payload.annotation.__annotations__


class NativeReader(Reader):
    """Reads ``{"action", "request_id"?, "data"?}``.

    In the common case one compiled validator takes the frame from text to validated data in a single pass. Whatever
    it refuses is read again, step by step, to say precisely what is wrong.
    """

    def __init__(
        self,
        actions: Mapping[str, Action],
        *,
        msgpack: bool = False,
        request_serializer_class: type[BaseModel] | None = None,
    ) -> None:
        self.takes_text = not msgpack
        self._actions = actions
        self._msgpack = msgpack
        self._serializer = request_serializer_class
        self._validate: Callable[[Any], dict[str, Any]] | None = None
        #: Whether a payload may hold a float, which pydantic reads from 1e999 and even from "inf" as infinity.
        self._may_be_infinite = False
        if request_serializer_class is None and actions:
            adapter = _envelope(actions)
            self._validate = adapter.validator.validate_python if msgpack else adapter.validator.validate_json
            self._may_be_infinite = _may_hold_numbers(adapter.core_schema)
        self._one_pass = self._validate is not None and not msgpack

    def read(self, frame: str | bytes) -> Request:
        # pydantic's parser takes NaN and Infinity, which are no JSON.
        if self._one_pass and "NaN" not in frame and "Infinity" not in frame:
            request = self._read_at_once(frame)
            if request is not None:
                return request
        try:
            content = decode_msgpack(frame) if self._msgpack else decode_json(frame)  # type: ignore[arg-type]  # one of them
        except InvalidFrame as error:
            return Request(None, self._find_request_id(frame), error=error)
        return self.read_content(content)

    def _find_request_id(self, frame: str | bytes) -> RequestId | None:
        """The id in a frame that holds a number that is not finite, so that even this request gets its answer."""
        try:
            content = from_json(frame) if isinstance(frame, str) else unpack_msgpack(frame)
        except (ValueError, InvalidFrame):
            return None
        return _request_id(content.get("request_id"))[0] if isinstance(content, dict) else None

    def _read_at_once(self, frame: Any) -> Request | None:
        """The request, if all is well with it."""
        try:
            envelope = self._validate(frame)  # type: ignore[misc]  # only called where there is one
        except Exception:  # Validators of the user's own may raise anything; it is looked at below.
            return None
        if self._may_be_infinite and find_not_finite(envelope) is not None:
            return None
        # As Request(…), in half the time.
        return new_tuple(Request, (envelope["action"], envelope.get("request_id"), envelope.get("data", MISSING), None))

    def read_content(self, content: Any) -> Request:
        if self._serializer is not None:
            return self._read_custom(content, self._serializer)
        if self._msgpack and self._validate is not None:
            request = self._read_at_once(content)
            if request is not None:
                return request
        if not isinstance(content, dict):
            return Request(None, error=no_object(content))
        request_id, error = _request_id(content.get("request_id"))
        if error is not None:
            return Request(None, error=error)
        return self._request(content.get("action", MISSING), request_id, content.get("data", MISSING))

    def _read_custom(self, content: Any, serializer: type[BaseModel]) -> Request:
        raw = content if isinstance(content, dict) else {}
        request_id, id_error = _request_id(raw.get("request_id"))
        if id_error is not None:
            return Request(None, error=id_error)
        try:
            envelope = (
                serializer.model_validate_json(to_json(content))
                if not has_bytes(content)
                else (serializer.model_validate(content))
            )
        except (ValueError, TypeError) as error:
            name = raw.get("action")
            known = name if isinstance(name, str) and name in self._actions else None
            if known is None:
                return Request(None, request_id, error=_unreadable(error))
            return Request(known, request_id, error=InvalidData(details=_details(error)))
        except Exception as error:
            return Request(None, request_id, error=_broken(error, f"a validator of {serializer.__name__}"))
        request_id, id_error = _request_id(getattr(envelope, "request_id", request_id))
        if id_error is not None:
            return Request(None, error=id_error)
        try:
            data = envelope.get_data() if isinstance(envelope, RequestSerializer) else data_of(envelope)
        except Exception as error:
            name = getattr(envelope, "action", None)
            return Request(name, request_id, error=_broken(error, f"{serializer.__name__}.get_data()"))
        action = self._actions.get(getattr(envelope, "action", ""))
        if action is not None and "data" not in type(envelope).model_fields and _takes_request_id(action):
            # Flat: the envelope's own field is the one that the action asks for, as the built-in cancel does.
            data = {"request_id": request_id, **data} if isinstance(data, dict) else data
        return self._request(getattr(envelope, "action", MISSING), request_id, data)

    def _request(self, name: Any, request_id: RequestId | None, data: Any) -> Request:
        if not isinstance(name, str):
            found = MISSING_ACTION if name is MISSING else kind_of(name)
            return Request(None, request_id, error=no_text(found))
        action = self._actions.get(name)
        if action is None:
            name = name.encode("utf-8", "replace").decode()
            return Request(name[:MAX_REQUEST_ID], request_id, error=self._unknown(name))
        try:
            valid = action.payload.validate(data, as_json=self._one_pass or not has_bytes(data))
        except (ValueError, TypeError) as error:
            return Request(name, request_id, error=InvalidData(details=_details(error)))
        except Exception as error:
            return Request(name, request_id, error=_broken(error, f"a validator of the action {name!r}"))
        return Request(name, request_id, valid)

    def _unknown(self, name: str) -> ActionNotFound:
        near: list[str] = []
        if len(name) <= MAX_COMPARED:
            # Comparing is dear, and anybody may ask: only with names of about this length, and not with too many.
            enabled = [
                known for known, action in self._actions.items() if action.enabled and abs(len(known) - len(name)) <= 3
            ][:MAX_CANDIDATES]
            near = difflib.get_close_matches(name, enabled, n=1)
        return unknown_action(name, near)


def _envelope(actions: Mapping[str, Action]) -> TypeAdapter[Any]:
    """One validator for all requests of a class: a union of typed dicts, told apart by ``action``."""
    envelopes: list[Any] = []
    for name, action in actions.items():
        fields: dict[str, Any] = {
            "action": Required[Literal[name]],
            "request_id": NotRequired[_RequestId],
        }
        if action.payload.kind != "none":
            annotation = action.payload.annotation
            # Fields that are all optional may be left out altogether; what that means is the slower way's to say.
            fields["data"] = Required[annotation]
        envelopes.append(typed_dict("Envelope", fields))
    if len(envelopes) == 1:
        return TypeAdapter(envelopes[0])
    union: Any = Union[tuple(envelopes)]  # noqa: UP007 -- made of a list, which `|` cannot
    return TypeAdapter(Annotated[union, Field(discriminator="action")])


#: Core schemas whose values cannot be a number that is not finite, whatever the client sends.
_HARMLESS = frozenset(
    {
        "bool", "bytes", "date", "datetime", "enum", "int", "literal", "none", "str", "time", "timedelta", "url",
        "multi-host-url", "uuid", "typed-dict", "typed-dict-field", "model", "model-fields", "model-field", "dataclass",
        "dataclass-args", "dataclass-field", "list", "dict", "set", "frozenset", "tuple", "tagged-union", "union",
        "nullable", "default", "definitions", "definition-ref", "json-or-python", "lax-or-strict", "chain",
        "is-instance", "is-subclass",
    }
)  # fmt: skip


def _may_hold_numbers(schema: Any) -> bool:
    """Whether a value of this schema may be, or hold, a float: then a frame is looked over for NaN and infinities."""
    stack, seen = [schema], set()
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if id(item) in seen:
                continue
            seen.add(id(item))
            kind = item.get("type")
            if isinstance(kind, str) and "schema_type" not in item and kind not in _HARMLESS:
                return True
            stack.extend(
                value for key, value in item.items() if key not in ("serialization", "metadata", "config", "cls")
            )
        elif isinstance(item, list | tuple):
            stack.extend(item)
    return False


def _is_unicode(text: str) -> bool:
    """Whether it can be sent back: a decoder of one's own may let half of a surrogate pair through."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _request_id(value: Any) -> tuple[RequestId | None, InvalidFrame | None]:
    if value is None or (isinstance(value, str) and len(value) <= MAX_REQUEST_ID and _is_unicode(value)):
        return value, None
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return value, None
    return None, bad_request_id(value, MAX_REQUEST_ID)


def _details(error: Exception) -> list[dict[str, Any]]:
    if isinstance(error, ValidationError):
        if error.error_count() > MAX_ERRORS:
            message = _("The data has {count} errors.", count=error.error_count())
            return [{"loc": [], "type": "too_many_errors", "message": message}]
        return error_details(error.errors(include_url=False, include_context=False, include_input=False))
    return [{"loc": [], "type": "value_error", "message": _("The data could not be read.")}]


def _broken(error: Exception, where: str) -> ConsumerError:
    """For an exception that says nothing of the client's data, but that the code which looked at it is broken."""
    logger.error("%s failed", where, exc_info=without_input(error))
    return InternalError()


def _unreadable(error: Exception) -> ConsumerError:
    return InvalidFrame(_("The frame is not a request."), details=_details(error))


@lru_cache(maxsize=4096)
def _name(name: str) -> bytes:
    """The name of an event or a group, as JSON. They come again and again."""
    return encode_json(name)


class JSONFramer(Framer):
    """Replies and events as JSON text. The data is serialised straight to bytes and spliced into its envelope."""

    def __init__(self) -> None:
        #: How the reply of an action begins; one entry per action name that exists.
        self._heads: dict[str, bytes] = {}

    def ok(self, action: str, request_id: RequestId | None, data: Any, returns: Returns) -> Frame:
        head = self._heads.get(action)
        if head is None:
            head = self._heads[action] = b'{"type":"reply","action":%b,"request_id":' % encode_json(action)
        encoded = returns.to_json(data) if data is not None else b"null"
        if type(request_id) is int:
            return ready_frame(b'%b%d,"status":"ok","data":%b}' % (head, request_id, encoded))
        return ready_frame(b'%b%b,"status":"ok","data":%b}' % (head, encode_json(request_id), encoded))

    def reply(self, reply: Reply, returns: Returns = ANYTHING) -> Frame:
        if reply.error is not None:
            rest = b'"error","error":%b' % encode_json(reply.error.body())
        else:
            data = returns.to_json(reply.data) if reply.data is not None else b"null"
            rest = b'"%b","data":%b' % (reply.status.encode(), data)
        ids = encode_json(reply.action), encode_json(reply.request_id)
        return Frame(b'{"type":"reply","action":%b,"request_id":%b,"status":%b}' % (*ids, rest), True)

    def event(self, event: Event) -> Frame:
        group = b',"group":%b' % _name(event.group) if event.group is not None else b""
        offset = b',"offset":%d' % event.offset if event.offset is not None else b""
        name = _name(event.event)
        if not event.data.isascii():
            event.data.decode()  # What another program published may be anything; a text frame is UTF-8.
        return ready_frame(b'{"type":"event","event":%b%b,"data":%b%b}' % (name, group, event.data, offset))

    def notice(self, notice: Notice) -> Frame:
        return Frame(encode_json({"type": notice.type, **notice.fields}), True)


class MessagePackFramer(Framer):
    """Replies and events as binary frames of MessagePack."""

    def reply(self, reply: Reply, returns: Returns = ANYTHING) -> Frame:
        return bytes_frame(encode_msgpack(reply_content(reply, returns)))

    def event(self, event: Event) -> Frame:
        return bytes_frame(encode_msgpack(event_content(event)))

    def notice(self, notice: Notice) -> Frame:
        return bytes_frame(encode_msgpack({"type": notice.type, **notice.fields}))


class ContentFramer(Framer):
    """For consumers with envelopes or an encoding of their own: content is made first, then encoded.

    Args:
        encode: from content to a frame.
        response_serializer_class: the shape of replies.
        jsonable: give ``encode`` only what JSON has; otherwise bytes, dates and the like stay what they are.
    """

    def __init__(
        self,
        encode: Callable[[Any], Frame],
        response_serializer_class: type[ResponseSerializer] | None = None,
        *,
        jsonable: bool = True,
    ) -> None:
        self._encode = encode
        self._serializer = response_serializer_class
        self._jsonable = jsonable

    def _data(self, reply: Reply, returns: Returns) -> Any:
        if reply.data is None:
            return None
        return from_json(returns.to_json(reply.data)) if self._jsonable else returns.to_python(reply.data)

    def _dump(self, content: BaseModel | dict[str, Any]) -> Any:
        if isinstance(content, BaseModel):
            return content.model_dump(mode="json" if self._jsonable else "python", by_alias=True)
        return content

    def reply(self, reply: Reply, returns: Returns = ANYTHING) -> Frame:
        plain = reply._replace(data=self._data(reply, returns))
        if self._serializer is None:
            return self._encode(reply_content(plain))
        return self._encode(self._dump(self._serializer.from_reply(plain)))

    def event(self, event: Event) -> Frame:
        content: Any = None
        if self._serializer is not None:
            content = self._serializer.from_event(event, from_json(event.data))
        return self._encode(event_content(event) if content is None else self._dump(content))

    def notice(self, notice: Notice) -> Frame:
        return self._encode({"type": notice.type, **notice.fields})


def reply_content(reply: Reply, returns: Returns = ANYTHING) -> dict[str, Any]:
    """The native envelope of a reply, not yet encoded."""
    content = {
        "type": "reply",
        "action": reply.action,
        "request_id": reply.request_id,
        "status": reply.status,
    }
    if reply.error is not None:
        return {**content, "error": reply.error.body()}
    return {**content, "data": returns.to_python(reply.data) if reply.data is not None else None}


def event_content(event: Event) -> dict[str, Any]:
    """The native envelope of an event, not yet encoded."""
    content: dict[str, Any] = {"type": "event", "event": event.event}
    if event.group is not None:
        content["group"] = event.group
    content["data"] = from_json(event.data)
    if event.offset is not None:
        content["offset"] = event.offset
    return content


JSON_FRAMER = JSONFramer()
MSGPACK_FRAMER = MessagePackFramer()
