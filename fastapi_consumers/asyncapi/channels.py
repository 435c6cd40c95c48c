"""One consumer on one route, as a Channel Object of AsyncAPI 3.0 and its operations."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from starlette.routing import compile_path

from ..action_pagination import params_of
from ..actions import Action
from ..exceptions import (
    ActionDeprecated,
    ActionDisabled,
    ActionTimeout,
    BrokerUnavailable,
    Cancelled,
    ConsumerError,
    HistoryUnavailable,
    HTTPError,
    InternalError,
    InvalidCursor,
    InvalidData,
    InvalidPage,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    Throttled,
)
from ..plan import ActionPlan, Plan
from ..protocols import JSON_SUBPROTOCOL, MSGPACK_SUBPROTOCOL
from ..routing import RoutedConsumer
from ..throttling import BaseThrottle
from . import envelopes
from .schemas import Mode, Schema, Schemas, Wanted

#: What a Schema Object says of a value from the path, by the name of Starlette's convertor.
_CONVERTORS = {
    "int": "A whole number.",
    "float": "A number.",
    "uuid": "A UUID.",
    "path": "Text that may have slashes.",
}
_HEADINGS = re.compile(r"\n\s*\n")


class Described(NamedTuple):
    """A channel and its operations, by their keys."""

    channel: Schema
    operations: dict[str, Schema]


def text_of(doc: str | None) -> dict[str, Any]:
    """A docstring as ``summary``, its first paragraph on one line, and ``description``, the rest."""
    if not doc:
        return {}
    first, *rest = _HEADINGS.split(inspect.cleandoc(doc), 1)
    # Docstrings mark code as reStructuredText does, descriptions are Markdown.
    texts = {"summary": " ".join(first.split()), "description": "".join(rest)}
    return {name: text.replace("``", "`") for name, text in texts.items() if text}


def key_of(name: str, taken: Mapping[str, Any]) -> str:
    """``name`` as a key that any tool can refer to, and that is not taken yet."""
    plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII) or "channel"
    key, number = plain, 1
    while key in taken:
        number += 1
        key = f"{plain}_{number}"
    return key


class Channel:
    """What a route becomes. First it is asked what it wants, then all channels are described.

    Args:
        key: what it is called in the document.
        security: names of the security schemes under ``components``.
    """

    def __init__(self, key: str, route: RoutedConsumer, plan: Plan, security: Iterable[str]) -> None:
        self._key = key
        self._route = route
        self._plan = plan
        self._security = [{"$ref": f"#/components/securitySchemes/{name}"} for name in security]
        self._has_groups = hasattr(plan.cls, "broadcast")
        request, response = plan.options.request_serializer_class, plan.options.response_serializer_class
        self._request_adapter = TypeAdapter[Any](request) if request is not None else None
        self._response_adapter = TypeAdapter[Any](response) if response is not None else None

    def wanted(self) -> Iterator[Wanted]:
        """All types whose schemas it needs."""
        for plan in self._plan.actions.values():
            yield from _some(plan.action.payload.adapter, "validation")
            yield from _some(plan.action.returns.adapter, "serialization")
        for model in self._plan.options.event_models.values():
            yield from _some(model.adapter, "serialization")
        yield from _some(self._request_adapter, "validation")
        yield from _some(self._response_adapter, "serialization")

    def describe(self, schemas: Schemas) -> Described:
        """The channel and its operations."""
        self._schemas = schemas
        self._messages: dict[str, Schema] = {}
        self._operations: dict[str, Schema] = {}
        self._request_shape = _shape(schemas, self._request_adapter, "validation")
        self._response_shape = _shape(schemas, self._response_adapter, "serialization")
        if getattr(self._plan.cls, "_has_actions", False):
            # The class's own first.
            for name, action_plan in sorted(self._plan.actions.items(), key=lambda item: self._is_built_in(item[0])):
                self._action(name, action_plan)
            self._events()
            self._notices()
        else:
            self._frames()
        return Described(self._channel(), self._operations)

    # -- the channel -----------------------------------------------------------------------------------------------

    def _channel(self) -> Schema:
        cls, options = self._plan.cls, self._plan.options
        _, address, convertors = compile_path(self._route.path)
        channel: Schema = {
            "address": address,
            "title": options.name,
            **text_of(_own_doc(cls)),
            "messages": self._messages,
        }
        if convertors:
            channel["parameters"] = {
                name: {"description": _CONVERTORS.get(_convertor(self._route.path, name), "Text without slashes.")}
                for name in convertors
            }
        if self._route.tags:
            channel["tags"] = [{"name": tag} for tag in dict.fromkeys(self._route.tags)]
        channel["bindings"] = {"ws": self._binding()}
        channel["x-groups"] = [template.text for template in options.groups]
        channel["x-max-message-size"] = self._plan.limits.max_message_size
        if options.history is not None:
            channel["x-history"] = {"size": options.history.size, "ttl": options.history.seconds}
        return channel

    def _binding(self) -> Schema:
        """How the handshake is made: the WebSockets binding of AsyncAPI, version 0.1.0."""
        binding: Schema = {"method": "GET", "bindingVersion": "0.1.0"}
        if self._plan.options.history is not None:
            description = (
                "The epoch and the offset that the client has, as `<epoch>:<offset>`: it is sent what it missed since."
            )
            binding["query"] = {
                "type": "object",
                "properties": {"recover": {"type": "string", "description": description}},
            }
        # What is chosen from an offer of all: the first, and the second if there is no first.
        offers = [JSON_SUBPROTOCOL, MSGPACK_SUBPROTOCOL]
        known = [name for name in offers if self._plan.choose_subprotocol([name]) == name]
        if known:
            offered: Schema = {"type": "string", "enum": known, "description": "The encoding; JSON by default."}
            binding["headers"] = {"type": "object", "properties": {"Sec-WebSocket-Protocol": offered}}
        return binding

    def _operation(self, name: str, action: str, messages: Iterable[str], **more: Any) -> None:
        operation: Schema = {
            "action": action,
            "channel": {"$ref": f"#/channels/{self._key}"},
            **more,
            "messages": self._references(messages),
        }
        if self._security:
            operation["security"] = self._security
        self._operations[key_of(f"{self._key}.{name}", self._operations)] = operation

    def _references(self, messages: Iterable[str]) -> list[Schema]:
        return [{"$ref": f"#/channels/{self._key}/messages/{_escaped(name)}"} for name in messages]

    def _message(self, name: str, title: str, payload: Schema, *, answers: bool = False, **more: Any) -> str:
        """Add a message, and return its key."""
        key = key_of(name, self._messages)
        message: Schema = {"name": name, "title": title, **more, "contentType": "application/json", "payload": payload}
        if answers:
            description = "Answers have the `request_id` of their request."
            message["correlationId"] = {"location": "$message.payload#/request_id", "description": description}
        self._messages[key] = message
        return key

    # -- actions ---------------------------------------------------------------------------------------------------

    def _action(self, name: str, action_plan: ActionPlan) -> None:
        action, options = action_plan.action, self._plan.options
        text = text_of(action.description)
        flags: Schema = {"deprecated": True} if action.deprecated else {}
        payload, returned = self._schemas.payload(action), self._schemas.of(action.returns.adapter, "serialization")
        serializer = options.request_serializer_class
        sent = envelopes.request(
            name, payload, required=action.payload.required, shape=self._request_shape, serializer=serializer
        )
        request = self._message(f"{name}.request", f"{name}: request", sent, answers=True, **text, **flags)
        replies = [self._answer(name, "ok", {"type": "null"} if action.stream else _data(action, returned))]
        if action.stream:
            replies.insert(0, self._answer(name, "partial", returned))
        errors = self._errors(action_plan)
        body = envelopes.error_body(errors)
        replies.append(self._answer(name, "error", body))
        more: Schema = {"title": name, **text}
        if tags := self._tags(action):
            more["tags"] = [{"name": tag} for tag in tags]
        if rates := _rates([*self._plan.throttles, *action_plan.throttles]):
            more["x-rates"] = rates
        more |= {"x-deprecated": True} if action.deprecated else {}
        more |= {"x-disabled": True} if not action.enabled else {}
        more |= {"x-streams": True} if action.stream else {}
        more |= {"x-concurrent": True} if action.concurrent else {}
        more |= {"x-timeout": action.timeout} if action.timeout is not None else {}
        more |= {"x-built-in": True} if self._is_built_in(name) else {}
        reply = {"channel": {"$ref": f"#/channels/{self._key}"}, "messages": self._references(replies)}
        self._operation(name, "receive", [request], **more, **{"x-action": name, "reply": reply})

    def _answer(self, name: str, status: str, data: Schema) -> str:
        kinds = {"ok": "reply", "partial": "part of a reply", "error": "error"}
        payload = envelopes.reply(
            name,
            status,
            data,
            shape=self._response_shape,
            serializer=self._plan.options.response_serializer_class,
        )
        return self._message(f"{name}.{status}", f"{name}: {kinds[status]}", payload, answers=True)

    def _is_built_in(self, name: str) -> bool:
        return name not in self._plan.options.actions

    def _tags(self, action: Action) -> list[str]:
        return [*dict.fromkeys(self._route.tags), *(["deprecated"] if action.deprecated else [])]

    def _errors(self, action_plan: ActionPlan) -> list[type[ConsumerError]]:
        action, plan = action_plan.action, self._plan
        switched_off = ActionDeprecated if action.deprecated else ActionDisabled
        paging = getattr(params_of(action), "model_fields", {})
        built_in = action.name if self._is_built_in(action.name) else None
        possible: dict[type[ConsumerError], Any] = {
            InvalidData: action.payload.kind != "none",
            InvalidCursor: "cursor" in paging,
            InvalidPage: "page" in paging,
            NotAuthenticated: action_plan.permissions or plan.waits_for_message,
            PermissionDenied: action_plan.permissions,
            Throttled: plan.throttles or action_plan.throttles,
            NotFound: built_in in ("cancel", "history"),
            switched_off: not action.enabled,
            ActionTimeout: action.timeout is not None,
            Cancelled: plan.has_cancel and built_in is None,
            HTTPError: action.dependencies is not None,
            BrokerUnavailable: self._has_groups and built_in not in ("authenticate", "cancel"),
            HistoryUnavailable: plan.options.history is not None and built_in in (None, "history"),
            InternalError: True,
        }
        # What the action says itself goes before what the framework has of the same code.
        said = {error.default_code: error for error in action.errors}
        return [
            *said.values(),
            *(error for error, may_be in possible.items() if may_be and error.default_code not in said),
        ]

    # -- what the server sends by itself ---------------------------------------------------------------------------

    def _events(self) -> None:
        options = self._plan.options
        tags = {"tags": [{"name": tag} for tag in dict.fromkeys(self._route.tags)]} if self._route.tags else {}
        for model in options.event_models.values():
            data = self._schemas.of(model.adapter, "serialization")
            text = text_of(model.description)
            payload = self._event(model.name, data)
            message = self._message(f"{model.name}.event", f"{model.name}: event", payload, **text)
            title: Schema = {"title": model.name, **text, **tags, "x-event": model.name}
            self._operation(f"{model.name}.event", "send", [message], **title)
        if not options.event_models:
            text = {"summary": "An event; the class does not say which there are."}
            message = self._message("event", "event", self._event(None, {}), **text)
            self._operation("event", "send", [message], title="event", **text, **tags)

    def _event(self, name: str | None, data: Schema) -> Schema:
        serializer = self._plan.options.response_serializer_class
        if serializer is not None and any("from_event" in vars(cls) for cls in serializer.__mro__[:-1] if _is_own(cls)):
            return {"description": "As the class's own envelope has it."}
        return envelopes.event(name, data, history=self._plan.options.history is not None)

    def _notices(self) -> None:
        plan = self._plan
        notices = {"error": ("An error that answers no request.", envelopes.error_notice())}
        notices["closing"] = ("The socket closes in a moment: send nothing new.", envelopes.closing())
        if self._has_groups:
            text = "The client was put out of a group, as its new credential does not allow it."
            notices["left"] = (text, envelopes.left())
            notices["gap"] = ("Events of the group may have been missed: load the state anew.", envelopes.gap())
        if plan.options.history is not None:
            notices["joined"] = ("Where the client stands in the group's history.", envelopes.joined())
        if plan.presence is not None:
            text = "Who came and went since the last one."
            notices["presence"] = (text, envelopes.presence(count_only=plan.presence.count_only))
        keys = [
            self._message(f"{name}.notice", f"{name}: notice", payload, summary=summary)
            for name, (summary, payload) in notices.items()
        ]
        self._operation("notices", "send", keys, title="notices", summary="What the framework itself tells clients.")

    def _frames(self) -> None:
        """A consumer whose frames have no envelope."""
        key = key_of("frame", self._messages)
        self._messages[key] = {
            "name": "frame",
            "title": "frame",
            "summary": "Text or bytes, as the application has it.",
            "contentType": "application/octet-stream",
            "payload": {},
        }
        self._operation("receive", "receive", [key], title="receive", summary="What clients send.")
        self._operation("send", "send", [key], title="send", summary="What clients are sent.")


def _some(adapter: TypeAdapter[Any] | None, mode: Mode) -> Iterator[Wanted]:
    if adapter is not None:
        yield Wanted(adapter, mode)


def _shape(schemas: Schemas, adapter: TypeAdapter[Any] | None, mode: Mode) -> Schema | None:
    return None if adapter is None else schemas.of(adapter, mode)


def _data(action: Action, returned: Schema) -> Schema:
    """What a reply holds; an action that is said to return nothing may be trusted."""
    annotation = inspect.signature(action.function).return_annotation
    return {"type": "null"} if annotation in (None, type(None), "None") else returned


def _own_doc(cls: type[Any]) -> str | None:
    """The docstring of the nearest class that is the user's."""
    own = (klass for klass in cls.__mro__[:-1] if not vars(klass).get("_is_framework_class", False))
    return next((doc for klass in own if isinstance(doc := vars(klass).get("__doc__"), str) and doc), None)


def _is_own(cls: type[Any]) -> bool:
    return not cls.__module__.startswith(f"{__name__.partition('.')[0]}.")


def _convertor(path: str, name: str) -> str:
    found = re.search(rf"{{{name}:(\w+)}}", path)
    return found[1] if found else "str"


def _rates(throttles: Iterable[BaseThrottle]) -> list[str]:
    return [throttle.rate for throttle in throttles if throttle.rate is not None]


def _escaped(name: str) -> str:
    """A key as it stands in a JSON pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1")
