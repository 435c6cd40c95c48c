"""``Consumer``: what every consumer has. Raw text and bytes; the contract that users subclass."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, TypeVar

from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from ..addressing import GROUP
from ..backlog import Overflow
from ..connection import Connection
from ..exceptions import ImproperlyConfigured, InvalidGroup, Problem
from ..identity import ANONYMOUS
from ..layer import ChannelLayer
from ..messages import Position, bytes_frame, text_frame
from ..metaclass import ConsumerMeta, register_handler
from ..options import ConsumerOptions
from ..permitting import check_group_of, check_object, join_if_permitted
from ..runtime import Consumers
from ..streams import Recovery
from ..types import CloseCode, check_close_code
from .announcing import announce
from .running import run, serve

F = TypeVar("F", bound=Callable[..., Any])


class ConsumerApp:
    """A consumer class as an ASGI application: one instance of the class per socket."""

    def __init__(
        self,
        consumer_class: "type[Consumer]",
        dependencies: Any = None,
        *,
        tags: Sequence[str] = (),
        include_in_schema: bool = True,
    ) -> None:
        self.consumer_class = consumer_class
        self.dependencies = dependencies
        #: For the documentation.
        self.tags = tuple(tags)
        self.include_in_schema = include_in_schema

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            # Only under a Mount, which takes HTTP too.
            headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
            return PlainTextResponse("This is a WebSocket.\n", 426, headers)(scope, receive, send)
        return run(self.consumer_class, scope, receive, send, dependencies=self.dependencies)

    def __repr__(self) -> str:
        return f"<ConsumerApp of {self.consumer_class.__qualname__}>"


class Consumer(metaclass=ConsumerMeta, abstract=True):
    """One conversation over one socket: text and bytes as they come.

    The names and meanings are those of Django Channels. A class declares its policies as attributes; an instance is
    made for each socket. :meth:`connect` runs before the socket is accepted, then :meth:`receive` once per message, one
    after another, and :meth:`disconnect` at the end, whatever happened.
    """

    _is_framework_class: ClassVar[bool] = True
    #: An action may ask for its consumer by this class, or one below it, as it may ask for a ``WebSocket``.
    __consumer_parameter__: ClassVar[str] = ""
    #: Whether frames are requests for actions.
    _has_actions: ClassVar[bool] = False
    _meta: ClassVar[ConsumerOptions]
    #: How many variants of the class ``as_asgi`` made, and which one of them it is itself.
    _variants: ClassVar[int] = 0
    _variant: ClassVar[int] = 0

    #: Groups, or templates of them with path parameters, that the consumer joins before it is accepted.
    groups: ClassVar[Sequence[str]] = ()
    #: Who the client is: classes derived from ``BaseAuthentication``, or instances, asked in order.
    authentication_classes: ClassVar[Sequence[Any]]
    #: What the client may do, asked before the socket is accepted and before each action: classes derived from
    #: ``BasePermission``, instances, expressions of ``&``, ``|`` and ``~``, functions, ``True`` and ``False``.
    permission_classes: ClassVar[Sequence[Any]]
    #: How often it may call actions: rates such as ``"20/second; 600/minute"``, or classes derived from
    #: ``BaseThrottle``.
    throttle_classes: ClassVar[Sequence[Any]]
    #: How often it may connect, in the same way.
    connection_throttle_classes: ClassVar[Sequence[Any]]
    #: ``Depends(…)``, solved when the client connects, and closed when everything of the connection has ended.
    dependencies: ClassVar[Sequence[Any]]
    #: Exception class to ``async def handler(consumer, exc) -> ConsumerError | None``.
    exception_handlers: ClassVar[Mapping[type[Exception], Callable[..., Any]]]
    #: Origins whose pages may connect, such as ``https://*.example.com``; by default those of the same host.
    allowed_origins: ClassVar[Sequence[str]]
    #: Accept refused sockets, tell them why, and close, so that a browser can show the reason.
    accept_refused: ClassVar[bool]
    # The fields of `Limits`, where each is described.
    max_message_size: ClassVar[int]
    max_inbox: ClassVar[int]
    inbox_timeout: ClassVar[float]
    overflow: ClassVar[Overflow]
    max_outbox: ClassVar[int]
    max_outbox_bytes: ClassVar[int]
    max_recovery: ClassVar[int]
    max_recovery_bytes: ClassVar[int]
    write_timeout: ClassVar[float]
    authentication_timeout: ClassVar[float]
    authentication_grace: ClassVar[float]
    max_bad_frames: ClassVar[int]
    max_throttled_requests: ClassVar[int]
    idle_timeout: ClassVar[float | None]
    max_concurrent_actions: ClassVar[int]
    max_groups: ClassVar[int]
    max_connections: ClassVar[int | None]
    max_connections_per_user: ClassVar[int | None]
    max_connections_per_address: ClassVar[int | None]
    lease_timeout: ClassVar[float]

    _connection: Connection
    #: The groups that were joined, in order, and whether their ``on_join`` has been called.
    _groups: dict[str, bool]
    #: The group that is being left, while ``on_leave`` runs for it.
    _left: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Called without arguments. The connection is not there yet: set things up in :meth:`connect`."""
        super().__init__()

    # -- what it knows ---------------------------------------------------------------------------------------------

    @property
    def connection(self) -> Connection:
        """The socket that this consumer talks over."""
        return self._connection

    @property
    def scope(self) -> Any:
        """The ASGI scope of the handshake, with the ``url_route`` that Channels has in it."""
        scope = self._connection.scope
        if "url_route" not in scope:
            scope["url_route"] = {"args": (), "kwargs": self._connection.path_params}
        return scope

    @property
    def websocket(self) -> WebSocket:
        """A Starlette ``WebSocket`` for reading headers, cookies, the query and the state."""
        return self._connection.websocket

    @property
    def path_params(self) -> Mapping[str, Any]:
        """The values that the route found in the path."""
        return self._connection.path_params

    @property
    def user(self) -> Any:
        """Who is at the other end; never ``None``.

        It may be set, for example by an action that logs in: permissions, throttles and ``scope["user"]`` follow. What
        reaches a connection by its user, such as ``consumers.send(user=…)``, goes by who it was at the handshake.
        """
        return self._connection.user

    @user.setter
    def user(self, user: Any) -> None:
        self._connection.user = self._connection.scope["user"] = ANONYMOUS if user is None else user

    @property
    def auth(self) -> Any:
        """What the user was authenticated by, as the authentication class returned it."""
        return self._connection.auth

    @property
    def channel_name(self) -> str:
        """The connection's address, unique over all processes."""
        return self._connection.channel_name

    @property
    def consumers(self) -> Consumers:
        """The application's ``Consumers``."""
        return self._connection.consumers  # type: ignore[no-any-return]  # Any on the connection, which is below it

    @property
    def channel_layer(self) -> ChannelLayer:
        """``group_add``, ``group_discard``, ``group_send`` and ``send`` in Channels' manner."""
        return self.consumers.layer

    @property
    def group_names(self) -> tuple[str, ...]:
        """The groups that the consumer has joined, in order."""
        return tuple(self._groups)

    # -- hooks -----------------------------------------------------------------------------------------------------

    # With Any in it, so that an override may be a coroutine function, and this one can be called without `await`.
    def get_groups(self) -> Sequence[str] | Any:
        """The groups to join before the socket is accepted: ``groups`` filled in from the path.

        An override may be ``async``; this is not, so that it says ``[*super().get_groups(), …]`` either way.

        Raises ``InvalidGroup`` for a value that is too long, ``ImproperlyConfigured`` for one that the path lacks.
        """
        params, templates = self.path_params, type(self)._meta.groups
        try:
            return [template.format(params) for template in templates]
        except InvalidGroup:
            for template in templates:
                if missing := template.parameters - params.keys():
                    problem = Problem(
                        "group-parameter-missing",
                        f"{type(self).__qualname__}.groups",
                        f"the group template {template.text!r}, on a route without {', '.join(sorted(missing))}",
                        f"parameters of the route's path ({', '.join(params) or 'it has none'})",
                        "mend the template or the path, or override get_groups()",
                    )
                    raise ImproperlyConfigured(type(self).__qualname__, [problem]) from None
            raise

    def get_language(self) -> str | None:
        """The language that the client is told of errors in, such as ``"de"`` or ``"zh-Hans"``.

        With ``None``, or one that there is not, the handshake and the user decide: see ``connection.language``. Called
        before the first error is told, which may be one of the handshake, and again for another user.
        """
        return None

    async def connect(self) -> None:
        """The handshake passed authentication and permissions. An override accepts or closes by itself."""
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """A message came: text or bytes."""

    async def disconnect(self, code: int) -> None:
        """The socket is gone, with this close code. Always called if ``connect`` was."""

    async def on_join(self, group: str) -> None:
        """The consumer has joined a group, and its socket is accepted."""

    async def on_leave(self, group: str) -> None:
        """The consumer has left a group. Called for every group that it joined, however the connection ends."""

    def on_overflow(self, policy: str) -> Any:
        """The client does not keep up: events were dropped by this policy, or its socket is closed (``disconnect``).

        Called once for all that is dropped until everything that waited has been written. It may be ``async``, but may
        not wait for anything; start a task for that.
        """

    #: An async context manager around the membership: ``@asynccontextmanager async def lifespan(self): …``.
    lifespan: Callable[..., AbstractAsyncContextManager[Any]] | None = None

    # -- verbs -----------------------------------------------------------------------------------------------------

    async def accept(self, subprotocol: str | None = None, headers: Any = None) -> None:
        """Accept the socket. ``headers`` are (name, value) pairs or a mapping."""
        await self._connection.accept(subprotocol, headers)
        self._connection.let_in()

    async def send(
        self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool | int = False
    ) -> None:
        """Send one message, and wait while the client takes its time.

        Args:
            close: close the socket afterwards; a number is the close code.
        """
        if text_data is None and bytes_data is None:
            raise ValueError("send() takes text_data or bytes_data; found neither")
        await self._connection.send_frame(
            text_frame(text_data) if text_data is not None else bytes_frame(bytes_data or b"")
        )
        if close:
            await self.close(None if close is True else close)

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Close the socket, 1000 by default; before it is accepted, refuse it (HTTP 403)."""
        if code is None or code is True:
            code = CloseCode.NORMAL if self._connection.is_accepted else CloseCode.FORBIDDEN
        await self._connection.close(check_close_code(code), reason or "")

    # -- permissions -----------------------------------------------------------------------------------------------

    async def check_object_permissions(self, obj: Any) -> None:
        """Raise unless the client may do this with ``obj``. To be called from an action, once it has the object.

        Asks ``has_object_permission`` of the consumer's permissions, then of the running action's. Raises
        ``PermissionDenied``, or what the permission that refuses answers with.
        """
        await check_object(self, obj)

    async def check_group_permissions(self, group: str) -> None:
        """Raise unless the client may join ``group``. Every join asks this by itself.

        Asks ``has_group_permission`` of the consumer's permissions, then of the running action's. Raises as
        :meth:`check_object_permissions` does, and ``InvalidGroup``.
        """
        await check_group_of(self, group)

    # -- groups ----------------------------------------------------------------------------------------------------

    async def _add(self, group: str) -> bool:
        """Become a member and nothing else, within the limits; ``False`` if it was one already."""
        connection = self._connection
        membership, limits = self.consumers.membership, connection.plan.limits
        return await join_if_permitted(self, group, lambda: membership.join(group, connection.member, limits))

    async def _join(self, group: str, recover: Position | None = None, *, recovers: bool = False) -> bool:
        """Become a member; ``False`` if it was one already. ``recovers``: it asks for recovery, ``recover`` or not.

        The permissions have been asked.
        """
        connection, limits = self._connection, self._connection.plan.limits
        consumers, history, recovery = connection.consumers, connection.plan.options.history, None
        if history is not None:
            # What whoever publishes goes by.
            history = consumers.histories.of(group) or history
        if history is not None and (recovers or recover is not None):
            recovery = Recovery(recover, limits.max_recovery, limits.max_recovery_bytes)
        if not await consumers.membership.join(group, connection.member, limits, history, recovery):
            return False
        if GROUP + group not in connection.member.topics:
            return False  # It left while it joined.
        if history is not None:
            consumers.histories.learn(group, history)
        self._groups[group] = False
        return True

    async def _leave(self, group: str) -> bool:
        return await self.consumers.membership.leave(group, self._connection.member)

    async def _discard(self, group: str) -> bool:
        """Be no member any more, and tell the hooks if they were told of the join; ``False`` if it was none."""
        if not await self._leave(group):
            return False
        if self._groups.pop(group, False):
            await announce(self, "leave", group)
        return True

    # -- outside of a routing table --------------------------------------------------------------------------------

    @classmethod
    def as_asgi(cls, **overrides: Any) -> ConsumerApp:
        """The class as an ASGI application. Keyword arguments override class attributes.

        Raises ``ImproperlyConfigured`` for an abstract class, a name that is no attribute of it, or a wrong value.
        """
        problems = [
            Problem(
                "unknown-option",
                f"{cls.__qualname__}.as_asgi()",
                f"the argument {name!r}",
                "an option or another attribute of the class",
                "look for a misspelling, or declare it in the class",
            )
            for name in overrides
            if not any(name in {**vars(klass), **vars(klass).get("__annotations__", {})} for klass in cls.__mro__)
        ]
        if cls._meta.abstract:
            problems.append(
                Problem(
                    "abstract-consumer",
                    f"{cls.__qualname__}.as_asgi()",
                    "a class declared with abstract=True",
                    "a class that is meant to be used",
                    "derive a class from it",
                )
            )
        if problems:
            raise ImproperlyConfigured(f"{cls.__qualname__}.as_asgi()", problems)
        if not overrides:
            return ConsumerApp(cls)
        # Numbered, so that its throttles count for themselves, and by the same name in every process.
        cls._variants = vars(cls).get("_variants", 0) + 1
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "_variant": cls._variants}
        make: Any = type(cls)
        return ConsumerApp(make(cls.__name__, (cls,), {**names, **overrides}))

    @classmethod
    async def serve(cls, websocket: WebSocket, groups: Sequence[str] | None = None) -> None:
        """Serve one socket inside a WebSocket endpoint, until it ends.

        Args:
            websocket: as the endpoint got it, accepted or not.
            groups: joined instead of those that the class names.
        """
        await serve(cls, websocket, groups)

    @classmethod
    def on_event(cls, name: str) -> Callable[[F], F]:
        """Register a function for ``"join"`` or ``"leave"``; it is called with the consumer and the group's name."""

        def decorate(function: F) -> F:
            cls.add_event_handler(name, function)
            return function

        return decorate

    @classmethod
    def add_event_handler(cls, name: str, function: Callable[..., Any]) -> None:
        """The same as :meth:`on_event` without a decorator. It reaches existing subclasses too."""
        register_handler(cls, name, function)
