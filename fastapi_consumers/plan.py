"""A consumer class in one application: every policy, limit and encoding decided, so that no message has to ask."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .actions import Action
from .authentication import BEARER_SUBPROTOCOL, BaseAuthentication, TokenKeys
from .builtin_actions import TOKEN_BUILTINS, history_action
from .codecs import encode_json, encode_msgpack, msgpack_available
from .inbox import InboxBounds
from .localization import Localization
from .messages import Frame, bytes_frame, text_frame
from .metaclass import resolve
from .options import ConsumerOptions, ExceptionHandler, Limits
from .outbox import OutboxBounds
from .pagination import BasePagination, CursorPagination, pagination_for_streams
from .permissions import BasePermission, asked_about, asked_at_all, depends_on_action
from .protocols import (
    JSON_FRAMER,
    JSON_SUBPROTOCOL,
    MSGPACK_FRAMER,
    MSGPACK_SUBPROTOCOL,
    ContentFramer,
    Framer,
    NativeReader,
    Reader,
)
from .proxies import TrustedProxies
from .stepping import Waits, run_now
from .throttling import BaseThrottle


@dataclass(frozen=True)
class Defaults:
    """What ``add_consumers`` was given for classes that do not say otherwise."""

    authentications: tuple[BaseAuthentication, ...] = ()
    permissions: tuple[BasePermission, ...] = ()
    throttles: tuple[BaseThrottle, ...] = ()
    connection_throttles: tuple[BaseThrottle, ...] = ()
    pagination: BasePagination | None = None
    exception_handlers: Mapping[type[Exception], ExceptionHandler] = dataclasses.field(default_factory=dict)
    #: ``None``: the same host as the request's.
    allowed_origins: tuple[str, ...] | None = None
    accept_refused: bool = False
    token_keys: TokenKeys = dataclasses.field(default_factory=TokenKeys)
    #: Whose ``X-Forwarded-For`` says where a client is; ``None``: nobody's.
    trusted_proxies: TrustedProxies | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)
    localization: Localization = dataclasses.field(default_factory=Localization)


@dataclass(frozen=True, slots=True, eq=False)
class ActionPlan:
    """An action with the policies in force for it.

    ``counted``: the throttles that count a request for it, the consumer's before its own.

    ``direct``: nothing but policies stands between the frame and the call; ``guarded``: policies do. ``objects`` and
    ``groups``: what is asked about these while it runs; ``acts``: it matters which action that is.
    """

    action: Action
    permissions: tuple[BasePermission, ...]
    throttles: tuple[BaseThrottle, ...]
    counted: tuple[BaseThrottle, ...]
    direct: bool
    guarded: bool
    objects: tuple[BasePermission, ...] = ()
    groups: tuple[BasePermission, ...] = ()
    acts: bool = False


class Plan:
    """Made once per class and application; remade if something is registered on the class later."""

    def __init__(self, cls: type[Any], defaults: Defaults, builtins: Mapping[str, Action]) -> None:
        options: ConsumerOptions = resolve(cls)
        self.cls = cls
        self.options = options
        self.limits = limits = dataclasses.replace(defaults.limits, **options.limits)
        #: Whether connections are counted by their user, or by their address.
        self.is_counted = (limits.max_connections_per_user, limits.max_connections_per_address) != (None, None)
        self.inbox_bounds = InboxBounds(limits.max_message_size, limits.max_inbox, limits.inbox_timeout)
        self.outbox_bounds = OutboxBounds(
            limits.overflow, limits.max_outbox, limits.max_outbox_bytes, limits.write_timeout
        )
        self.authentications = _choose(options.authentications, defaults.authentications)
        self._permissions = _choose(options.permissions, defaults.permissions)
        #: What is asked at connect and before each action, about groups, about objects, and about each event.
        self.permissions = asked_at_all(self._permissions)
        self.groups = asked_about(self._permissions, "has_group_permission")
        self.asks_about_groups = bool(self.groups) or "check_group_permissions" in options.overridden
        self.objects = asked_about(self._permissions, "has_object_permission")
        self.deliveries = asked_about(self._permissions, "has_delivery_permission")
        self.throttles = _choose(options.throttles, defaults.throttles)
        has_actions: bool = getattr(cls, "_has_actions", False)
        #: Whether throttles count frames, since who overrides these may never ask for an action.
        self.counts_frames = not has_actions or bool({"receive", "receive_json"} & options.overridden)
        #: Those that count requests.
        self.counted = () if self.counts_frames else self.throttles
        self.connection_throttles = _choose(options.connection_throttles, defaults.connection_throttles)
        #: Of these, by whose rates wrong credentials are counted.
        rated = tuple(each for each in self.connection_throttles if each.rates and each.cost)
        self.guess_throttles = rated if self.authentications else ()
        self.pagination = options.pagination if options.pagination is not None else defaults.pagination
        self.exception_handlers = (options.exception_handlers, defaults.exception_handlers)
        self.allowed_origins = (
            options.allowed_origins if options.allowed_origins is not None else defaults.allowed_origins
        )
        self.presence = options.presence
        self.token_keys = defaults.token_keys
        #: Whether a client that nobody knows may still say who it is in its first message.
        self.waits_for_message = any(way.waits_for_message for way in self.authentications)
        if builtins and any(way.takes_tokens for way in self.authentications):
            builtins = {**builtins, **TOKEN_BUILTINS}
        self.accept_refused = options.accept_refused if options.accept_refused is not None else defaults.accept_refused
        if builtins and options.history is not None:
            params = pagination_for_streams(self.pagination, CursorPagination).Params
            builtins = {**builtins, "history": history_action(params)}
        self.actions = {
            name: self._plan_action(name, action) for name, action in {**builtins, **options.actions}.items()
        }
        #: The actions that may be called straight away, and those of them whose policies are asked before.
        self.direct: dict[str | None, Action] = {
            name: plan.action for name, plan in self.actions.items() if plan.direct
        }
        self.guarded = {name: plan for name, plan in self.actions.items() if plan.direct and plan.guarded}
        #: Whether ``cancel`` is the framework's and not an action of the class's own.
        self.has_cancel = "cancel" in builtins and "cancel" not in options.actions
        self._token_readers: dict[bool, Reader] = {}
        #: Whether its clients are sent events in frames of the protocol.
        self.frames_events = hasattr(cls, "encode_json")
        #: Whether frames go to receive() and not straight to the actions.
        self.reads_raw = not has_actions or bool({"receive", "receive_json", "decode_json"} & options.overridden)
        self._table = {name: plan.action for name, plan in self.actions.items()}

    #: Frames that cannot fail, for errors that the class's own encoding fails on.
    fallback: Framer = JSON_FRAMER

    def _plan_action(self, name: str, action: Action) -> ActionPlan:
        own = self.options.action_permissions.get(name, ())
        permissions = (*self.permissions, *asked_at_all(own))
        objects = (*self.objects, *asked_about(own, "has_object_permission"))
        groups = (*self.groups, *asked_about(own, "has_group_permission"))
        acts = objects != self.objects or groups != self.groups or depends_on_action((*objects, *groups))
        throttles = self.options.action_throttles.get(name, ())
        direct = action.plain and action.enabled and not (action.deprecated or action.concurrent or acts)
        counted = self.counted + throttles
        guarded = bool(permissions or counted)
        return ActionPlan(action, permissions, throttles, counted, direct, guarded, objects, groups, acts)

    @property
    def own_codec(self) -> bool:
        """Whether the class encodes or decodes JSON in its own way."""
        return bool({"encode_json", "decode_json"} & self.options.overridden)

    def choose_subprotocol(self, offered: list[str]) -> str | None:
        """The first of the client's subprotocols that is one of ours, or ``None``. Never one that holds a token."""
        for subprotocol in offered if getattr(self.cls, "_has_actions", False) else ():
            if subprotocol == JSON_SUBPROTOCOL:
                return subprotocol
            if subprotocol == MSGPACK_SUBPROTOCOL and not self.own_codec and msgpack_available():
                return subprotocol
        return BEARER_SUBPROTOCOL if BEARER_SUBPROTOCOL in offered else None

    def reader(self, subprotocol: str | None) -> Reader:
        return self._msgpack_reader if subprotocol == MSGPACK_SUBPROTOCOL else self._json_reader

    def token_reader(self, subprotocol: str | None) -> Reader:
        """Reads the one request that a client may send before it is known; no validator of an action's sees it."""
        msgpack = subprotocol == MSGPACK_SUBPROTOCOL
        if msgpack not in self._token_readers:
            self._token_readers[msgpack] = NativeReader(
                TOKEN_BUILTINS,
                msgpack=msgpack,
                request_serializer_class=self.options.request_serializer_class,
            )
        return self._token_readers[msgpack]

    def framer(self, subprotocol: str | None) -> Framer:
        return self._msgpack_framer if subprotocol == MSGPACK_SUBPROTOCOL else self._json_framer

    @cached_property
    def _json_reader(self) -> Reader:
        return NativeReader(self._table, request_serializer_class=self.options.request_serializer_class)

    @cached_property
    def _msgpack_reader(self) -> Reader:
        return NativeReader(self._table, msgpack=True, request_serializer_class=self.options.request_serializer_class)

    @cached_property
    def _json_framer(self) -> Framer:
        if "encode_json" in self.options.overridden:
            return ContentFramer(self._encode_own, self.options.response_serializer_class)
        if self.options.response_serializer_class is not None:
            return ContentFramer(
                lambda content: Frame(encode_json(content), True), self.options.response_serializer_class
            )
        return JSON_FRAMER

    @cached_property
    def _msgpack_framer(self) -> Framer:
        if self.options.response_serializer_class is not None:
            return ContentFramer(
                lambda content: bytes_frame(encode_msgpack(content)),
                self.options.response_serializer_class,
                jsonable=False,
            )
        return MSGPACK_FRAMER

    def _encode_own(self, content: Any) -> Frame:
        try:
            encoded = run_now(self.cls.encode_json(content))
        except Waits:
            raise Waits(
                f"{self.options.name}.encode_json() waited for something. It may be async, but has to finish at once: "
                "it runs while a message is fanned out, and all other members would wait. Fetch what it needs before."
            ) from None
        return bytes_frame(encoded) if isinstance(encoded, bytes) else text_frame(encoded)


def _choose(own: tuple[Any, ...] | None, default: tuple[Any, ...]) -> tuple[Any, ...]:
    """A class's own list replaces the default, even if it is empty."""
    return default if own is None else own
