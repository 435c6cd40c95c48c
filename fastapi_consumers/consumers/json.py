"""``JSONConsumer``: frames are requests for actions."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, TypeVar, overload

from pydantic import BaseModel

from .. import codecs
from ..exceptions import ConsumerError, InvalidFrame
from ..marks import make_mark
from ..messages import Event
from ..metaclass import register_action
from ..pagination import (
    BasePagination,
    CountedPage,
    CursorParams,
    LimitOffsetParams,
    Page,
    PageNumberParams,
    PageParams,
    pagination_for,
)
from ..permitting import visible
from ..protocols import MSGPACK_SUBPROTOCOL
from ..serializers import ResponseSerializer
from ..texts import gettext_lazy as _
from ..types import CloseCode
from .base import Consumer

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


class JSONConsumer(Consumer, abstract=True):
    """Speaks the native protocol: requests in, replies and events out.

    Methods marked with ``@action`` are what clients may call. Whoever wants plain JSON instead overrides
    :meth:`receive_json` and uses :meth:`send_json`, as in Django Channels.
    """

    _is_framework_class = True
    _has_actions = True

    #: The shape of what comes in; by default the native envelope.
    request_serializer_class: ClassVar[type[BaseModel] | None]
    #: The shape of what goes out; by default the native envelopes.
    response_serializer_class: ClassVar[type[ResponseSerializer] | None]
    #: The events that it sends: classes marked with ``@event_model``, or a dict of event name to type. They are checked
    #: when they are sent, and documented.
    events: ClassVar[Sequence[type[Any]] | Mapping[str, Any]]
    #: How :meth:`paginate` pages: a class, or an instance with other settings.
    pagination_class: ClassVar[type[BasePagination] | BasePagination | None]

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        dispatcher, packed = self._connection.dispatcher, self._connection.subprotocol == MSGPACK_SUBPROTOCOL
        if (text_data is None) is not packed:
            await self._connection.close(CloseCode.UNSUPPORTED_DATA, "unsupported_data")
            return
        try:
            if text_data is None:
                content: Any = codecs.decode_msgpack(bytes_data or b"")
            else:
                content = self.decode_json(text_data)
            if inspect.isawaitable(content):
                content = await content
        except InvalidFrame as error:
            await dispatcher.reject(error)
            return
        except (ValueError, RecursionError) as error:
            # Its text is the decoder's own business; who wants to say something raises InvalidFrame.
            kind = type(error).__qualname__
            logger.debug("decode_json() of %s refused a frame: %s", type(self).__qualname__, kind)
            await dispatcher.reject(InvalidFrame(_("The frame could not be decoded.")))
            return
        await self.receive_json(content)

    async def receive_json(self, content: Any) -> None:
        """A decoded message came. The default runs the action that it names."""
        await self._connection.dispatcher.handle_content(content)

    async def send_json(self, content: Any, close: bool | int = False) -> None:
        """Send any JSON, outside of the protocol's envelopes."""
        encoded: Any = self.encode_json(content)
        if inspect.isawaitable(encoded):
            encoded = await encoded
        if isinstance(encoded, bytes):
            await self.send(bytes_data=encoded, close=close)
        else:
            await self.send(text_data=encoded, close=close)

    @classmethod
    async def decode_json(cls, text_data: str) -> Any:
        """Text to content. Raise ``ValueError`` for what cannot be read. May be overridden without ``async``."""
        return codecs.decode_json(text_data)

    @classmethod
    async def encode_json(cls, content: Any) -> str | bytes:
        """Content to text, or bytes for a binary frame.

        Applied to all that the consumer sends, replies and events too. May be ``async`` but may not wait: events
        are encoded in the middle of a fan-out.
        """
        return codecs.encode_json(content).decode()

    async def send_event(self, event: str, data: Any = None) -> None:
        """Send an event to this connection alone.

        Raises ``InvalidEvent`` for data that does not fit what the class declares in ``events``.
        """
        framer = self._connection.member.framer
        assert framer is not None
        model = self._meta.event_models.get(event)
        encoded = codecs.encode_json(data) if model is None else model.encode(data, self._meta.name)
        await self._connection.send_frame(framer.event(Event(event, encoded)))

    @overload
    async def paginate(self, source: Any, params: CursorParams, *, session: Any = None) -> Page[Any]: ...
    @overload
    async def paginate(
        self, source: Any, params: LimitOffsetParams | PageNumberParams, *, session: Any = None
    ) -> CountedPage[Any]: ...
    @overload
    async def paginate(self, source: Any, params: PageParams, *, session: Any = None) -> Page[Any]: ...
    async def paginate(self, source: Any, params: PageParams, *, session: Any = None) -> Any:
        """One page of ``source``.

        The ``pagination_class`` of the action decides how, else the consumer's, else the application's; one that pages
        by other parameters than these is passed over for the one that they belong to.

        Args:
            source: a sequence, an async iterable, a ``select()`` of SQLAlchemy, or a stream, of which those events are
                left out that ``has_delivery_permission`` keeps from this client: see
                :meth:`BasePagination.paginate() <fastapi_consumers.pagination.BasePagination.paginate>`, also for
                what is raised.
            params: what the client sent: an instance of the pagination class's ``Params``.
            session: for a ``select()``.
        """
        source = self._visible(source)
        return await pagination_for(params, self._connection.plan.pagination).paginate(source, params, session=session)

    def _visible(self, source: Any) -> Any:
        return visible(self, source)

    @classmethod
    def action(
        cls,
        name: str | None = None,
        /,
        *,
        permission_classes: Sequence[Any] = (),
        throttle_classes: Sequence[Any] = (),
        pagination_class: Any = None,
        concurrent: bool = False,
        timeout: float | timedelta | None = None,
        deprecated: bool = False,
        enabled: bool = True,
        errors: Sequence[type[ConsumerError]] = (),
    ) -> Callable[[F], F]:
        """Register a function of (consumer, …) as an action, here and in all subclasses, existing ones too.

        The options are those of :func:`~fastapi_consumers.action`. Raises ``ImproperlyConfigured`` for what is wrong.
        """
        if callable(name):
            raise TypeError(f"write @{cls.__name__}.action() with parentheses; found a function as its name: {name!r}")
        mark = make_mark(
            name,
            permission_classes,
            throttle_classes,
            pagination_class,
            concurrent,
            timeout,
            deprecated,
            enabled,
            errors,
        )

        def decorate(function: F) -> F:
            register_action(cls, function, mark)
            return function

        return decorate
