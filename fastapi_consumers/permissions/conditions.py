"""One condition: what it is asked, and what its answer means."""

import inspect
import types
from collections.abc import Awaitable
from enum import Enum
from typing import Any, ClassVar, Final, NamedTuple

from ..exceptions import ConsumerError, PermissionDenied
from .delivery import Delivery


class Open(Enum):
    """The verdict of who has nothing to say about what is asked. Neither a yes nor a no, nor is its negation."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Open.UNKNOWN

#: Why a check failed, ``None`` when it passed, or unknown; later, if something in it is async.
Verdict = ConsumerError | Open | None
Asked = Verdict | Awaitable[Verdict]

#: Stands for a refusal whose reason nobody will read: building an error costs more than the rest of a check.
_UNSAID = PermissionDenied()

#: True in Python, and never meant as a yes.
_NO_ANSWERS = (
    BaseException,
    type,
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.GeneratorType,
    types.AsyncGeneratorType,
    types.NotImplementedType,
)

#: What a permission may be asked, by the name of the method that answers.
QUESTIONS = ("has_permission", "has_group_permission", "has_object_permission", "has_delivery_permission")


class About(NamedTuple):
    """A question about something: the method that answers it, and what it is about."""

    method: str
    subject: Any


class Condition:
    """What a permission is, but for the operators.

    A class answers the questions whose methods it defines. About the others it says nothing, which is not the same as a
    yes: ``~`` of it says nothing either.
    """

    message: str | None = None
    code: str | None = None

    #: The questions that the class answers itself.
    _answers: ClassVar[frozenset[str]] = frozenset()
    _is_general: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._answers = frozenset(name for name in QUESTIONS if getattr(cls, name) is not getattr(Condition, name))
        cls._is_general = "has_permission" in cls._answers

    def has_permission(self, consumer: Any, action: Any = None) -> bool | Awaitable[bool]:
        """Whether ``consumer``'s client may do this. Sync or async; anything true allows, ``None`` refuses.

        ``action`` is ``None`` at connect. A ``ConsumerError`` raised here is the answer that the client gets, also
        from inside ``|`` and ``~``; any other exception is a failure of the server, and refuses as well.
        """
        return True

    def has_group_permission(self, consumer: Any, group: str) -> bool | Awaitable[bool]:
        """Whether ``consumer``'s client may become a member of ``group``. Sync or async.

        Asked before each join, and about all its groups when the client refreshes its credential.
        """
        return True

    def has_object_permission(self, consumer: Any, obj: Any) -> bool | Awaitable[bool]:
        """Whether ``consumer``'s client may do this with ``obj``. Sync or async.

        Asked by ``await consumer.check_object_permissions(obj)``.
        """
        return True

    def has_delivery_permission(self, consumer: Any, delivery: Delivery) -> bool:
        """Whether ``consumer``'s client gets this event of a group; if not, it hears nothing of it.

        Not async: it is asked in the middle of a fan-out, and all members after this one would wait. An exception, of
        whatever kind, withholds the event from this member.
        """
        return True

    def denied(self, consumer: Any, action: Any = None) -> ConsumerError:
        """The error that a refusal is answered with.

        Asked without consequence too, for an operand of ``|`` whose refusal does not refuse the whole: build the
        error and do nothing else.
        """
        return PermissionDenied(self.message, code=self.code)

    def __repr__(self) -> str:
        return type(self).__qualname__

    # The verdict travels as a return value, so that concurrent checks of one expression do not share it, and is
    # awaitable only if the method is, so that a sync check makes no coroutine. `why`: is the reason wanted?
    def _verdict(self, consumer: Any, action: Any, why: bool, about: About | None) -> Asked:
        """What this says of a request, or together with that of something else.

        Who may do nothing here may not do this in particular: about a group or an object both methods are asked. That
        is what makes ``IsAdmin | OwnsObject`` true for an admin, and ``~IsBanned`` false for whoever is banned.
        """
        if about is None:
            if not self._is_general:
                return UNKNOWN
            result = self.has_permission(consumer, action)
            if result is True:
                return None
            if result is not False and inspect.isawaitable(result):
                return self._judged_later(result, consumer, action, why, "has_permission")
            return self._judge(result, consumer, action, why, "has_permission")
        if not self._is_general:
            return self._verdict_alone(consumer, action, why, about)
        general = self._verdict(consumer, action, why, None)
        if about.method not in self._answers or isinstance(general, ConsumerError):
            return general
        if general is None:
            return self._verdict_alone(consumer, action, why, about)
        assert not isinstance(general, Open)
        return self._both(general, consumer, action, why, about)

    async def _both(self, general: Awaitable[Verdict], consumer: Any, action: Any, why: bool, about: About) -> Verdict:
        if (verdict := await general) is not None:
            return verdict
        return await settled(self._verdict_alone(consumer, action, why, about))

    def _verdict_alone(self, consumer: Any, action: Any, why: bool, about: About) -> Asked:
        """What it says of this one thing, where the general question has been asked before."""
        if about.method not in self._answers:
            return UNKNOWN
        method = about.method
        result = getattr(self, method)(consumer, about.subject)
        if result is True:
            return None
        if result is not False and inspect.isawaitable(result):
            if method == "has_delivery_permission":
                raise not_at_once(self, result)
            return self._judged_later(result, consumer, action, why, method)
        return self._judge(result, consumer, action, why, method)

    async def _judged_later(self, result: Any, consumer: Any, action: Any, why: bool, method: str) -> Verdict:
        # An async method that forgot an await returns another awaitable, which would count as true.
        while result is not True and inspect.isawaitable(result):
            result = await result
        return None if result is True else self._judge(result, consumer, action, why, method)

    def _judge(self, result: Any, consumer: Any, action: Any, why: bool, method: str) -> ConsumerError | None:
        if isinstance(result, _NO_ANSWERS):
            raise TypeError(
                f"{self!r}.{method}() returned {result!r}; expected True or False. "
                "Call the method, raise the exception, or wrap it in bool()."
            )
        if result:
            return None
        if not why:
            return _UNSAID
        reason = self.denied(consumer, action)
        if not isinstance(reason, ConsumerError):
            raise TypeError(
                f"{self!r}.denied() returned {reason!r}; expected a ConsumerError. "
                "Return one, for example PermissionDenied(self.message)."
            )
        return reason


def not_at_once(condition: Condition, answer: Any) -> TypeError:
    """The error of who wants to be awaited while an event is delivered."""
    if inspect.iscoroutine(answer):
        answer.close()
    return TypeError(f"{condition!r} returned something to await, where an event is being delivered. Write `def`.")


async def settled(asked: Asked) -> Verdict:
    return asked if asked is None or isinstance(asked, (ConsumerError, Open)) else await asked
