"""May this client do this? Permissions, sync or async, and their expressions of ``&``, ``|`` and ``~``.

::

    class IsOwner(BasePermission):
        message = "Only the owner may do this."

        async def has_permission(self, consumer, action=None):
            return await owns(consumer.user, consumer.path_params["room"])

    permission_classes = [IsAuthenticated & (IsOwner | IsModerator) & ~IsBanned]

Whatever is not clearly a yes is a no: ``None`` refuses, and a result that can only be a slip of the pen (a method
that was not called, an exception that was not raised) is a ``TypeError`` rather than true.
"""

import inspect
import types
from abc import ABCMeta, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, NoReturn, final, get_origin

from .exceptions import ConsumerError, NotAuthenticated, PermissionDenied
from .identity import is_authenticated

#: Why a check failed, or ``None`` when it passed; later, if something in it is async.
_Reason = ConsumerError | None
_Refusal = _Reason | Awaitable[_Reason]

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


class PermissionMeta(ABCMeta):
    """Lets the classes themselves be written with ``&``, ``|`` and ``~``, as their instances can.

    ``Permission | None`` and ``Permission | OtherClass`` stay the types that annotations mean by them.
    """

    def __and__(cls, other: Any) -> "And":
        return And(cls, other) if _is_operand(other) else NotImplemented

    def __rand__(cls, other: Any) -> "And":
        return And(other, cls) if _is_operand(other) else NotImplemented

    def __or__(cls, other: Any) -> Any:
        return Or(cls, other) if _is_operand(other) else type.__or__(cls, other)

    def __ror__(cls, other: Any) -> Any:
        return Or(other, cls) if _is_operand(other) else type.__ror__(cls, other)

    def __invert__(cls) -> "BasePermission":
        return Not(cls)


class BasePermission(metaclass=PermissionMeta):
    """One condition. An instance serves all connections and concurrent checks: keep no state of a check in it.

    ``message`` and ``code`` are what a refusal tells the client; ``None`` leaves the error's own.
    """

    message: str | None = None
    code: str | None = None

    @abstractmethod
    def has_permission(self, consumer: Any, action: Any = None) -> bool | Awaitable[bool]:
        """Whether ``consumer``'s client may do this. Sync or async; anything true allows, ``None`` refuses.

        ``action`` is ``None`` at connect. A ``ConsumerError`` raised here is the answer that the client gets, also
        from inside ``|`` and ``~``; any other exception is a failure of the server, and refuses as well.
        """

    def denied(self, consumer: Any, action: Any = None) -> ConsumerError:
        """The error that a refusal is answered with.

        Asked without consequence too, for an operand of ``|`` whose refusal does not refuse the whole: build the
        error and do nothing else.
        """
        return PermissionDenied(self.message, code=self.code)

    def __and__(self, other: Any) -> "And":
        return And(self, other) if _is_operand(other) else NotImplemented

    def __rand__(self, other: Any) -> "And":
        return And(other, self) if _is_operand(other) else NotImplemented

    def __or__(self, other: Any) -> "Or":
        return Or(self, other) if _is_operand(other) else NotImplemented

    def __ror__(self, other: Any) -> "Or":
        return Or(other, self) if _is_operand(other) else NotImplemented

    def __invert__(self) -> "BasePermission":
        return Not(self)

    def __repr__(self) -> str:
        return type(self).__qualname__

    # The reason travels as a return value, so that concurrent checks of one expression do not share it, and is
    # awaitable only if has_permission is, so that a sync check makes no coroutine. `why`: is the reason wanted?
    def _refusal(self, consumer: Any, action: Any, why: bool) -> _Refusal:
        result = self.has_permission(consumer, action)
        if result is True:
            return None
        if result is not False and inspect.isawaitable(result):
            return self._refusal_later(result, consumer, action, why)
        return self._judge(result, consumer, action, why)

    async def _refusal_later(self, result: Any, consumer: Any, action: Any, why: bool) -> _Reason:
        # An async has_permission that forgot an await returns another awaitable, which would count as true.
        while result is not True and inspect.isawaitable(result):
            result = await result
        return None if result is True else self._judge(result, consumer, action, why)

    def _judge(self, result: Any, consumer: Any, action: Any, why: bool) -> _Reason:
        if isinstance(result, _NO_ANSWERS):
            raise TypeError(
                f"{self!r}.has_permission() returned {result!r}; expected True or False. "
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


class _Expression(BasePermission):
    """Permissions combined. Immutable."""

    operands: tuple[BasePermission, ...]

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{self!r} cannot be changed: it may be shared. Build another expression.")

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    async def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return await _settled(self._refusal(consumer, action, False)) is None


class _Chain(_Expression):
    """Flattened, so that ``a & b & c`` is one expression of three operands."""

    _sign: ClassVar[str]
    _one_is_enough: ClassVar[bool]

    def __init__(self, *operands: Any) -> None:
        if not operands:
            raise TypeError(f"{type(self).__name__}() has no operands; expected at least one permission.")
        flat: list[BasePermission] = []
        for operand in map(permission_of, operands):
            if isinstance(operand, _Chain) and type(operand) is type(self):
                flat += operand.operands
            else:
                flat.append(operand)
        self.__dict__["operands"] = tuple(flat)

    def __repr__(self) -> str:
        return f"({self._sign.join(map(repr, self.operands))})"

    def _refusal(self, consumer: Any, action: Any, why: bool) -> _Refusal:
        rest = iter(self.operands)
        answer: _Reason = None
        for operand in rest:
            reason = operand._refusal(consumer, action, why)
            if reason is not None and not isinstance(reason, ConsumerError):
                return self._later(reason, answer, rest, consumer, action, why)
            if (reason is None) is self._one_is_enough:
                return reason
            answer = _more_helpful(answer, reason)
        return answer

    async def _later(
        self,
        pending: Awaitable[_Reason],
        answer: _Reason,
        rest: Iterator[BasePermission],
        consumer: Any,
        action: Any,
        why: bool,
    ) -> _Reason:
        reason = await pending
        while (reason is None) is not self._one_is_enough:
            answer = _more_helpful(answer, reason)
            operand = next(rest, None)
            if operand is None:
                return answer
            reason = await _settled(operand._refusal(consumer, action, why))
        return reason


@final
class And(_Chain):
    """Passes if all pass. Asks left to right until one refuses, and answers with what that one answers."""

    _sign = " & "
    _one_is_enough = False


@final
class Or(_Chain):
    """Passes if one passes. Asks left to right until one does.

    If none does, it answers as the first operand that answered ``NotAuthenticated``, because the client can do
    something about that; if there is none, as the last operand.
    """

    _sign = " | "
    _one_is_enough = True


@final
class Not(_Expression):
    """Passes if its operand refuses. Answers ``PermissionDenied`` with its own ``message`` and ``code``, if set.

    An exception raised by the operand is no refusal and is not turned into a pass.
    """

    def __init__(self, operand: Any, *, message: str | None = None, code: str | None = None) -> None:
        self.__dict__.update(operands=(permission_of(operand),), message=message, code=code)

    def __invert__(self) -> BasePermission:
        return self.operands[0]

    def __repr__(self) -> str:
        return f"~{self.operands[0]!r}"

    def _refusal(self, consumer: Any, action: Any, why: bool) -> _Refusal:
        reason = self.operands[0]._refusal(consumer, action, False)
        if reason is None or isinstance(reason, ConsumerError):
            return self._judge(reason is not None, consumer, action, why)
        return self._later(reason, consumer, action, why)

    async def _later(self, pending: Awaitable[_Reason], consumer: Any, action: Any, why: bool) -> _Reason:
        return self._judge(await pending is not None, consumer, action, why)


class AllowAny(BasePermission):
    """Everybody may. The same as an empty list, but said aloud."""

    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return True


class DenyAny(BasePermission):
    """Nobody may."""

    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return False


class IsAuthenticated(BasePermission):
    """Whoever is known may; the others are answered ``not_authenticated`` (4401)."""

    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return is_authenticated(consumer.user)

    def denied(self, consumer: Any, action: Any = None) -> ConsumerError:
        return NotAuthenticated(self.message, code=self.code)


class _Function(BasePermission):
    """A plain callable as a permission."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._call = _taking_action(function)
        self._name = getattr(function, "__qualname__", None) or repr(function)

    def has_permission(self, consumer: Any, action: Any = None) -> Any:
        return self._call(consumer, action)

    def __repr__(self) -> str:
        return self._name


def permission_of(entry: Any) -> BasePermission:
    """The permission that an entry of ``permission_classes`` stands for.

    A class that derives from ``BasePermission``, an instance, an expression, ``True``, ``False``, or a callable of
    ``(consumer)`` or ``(consumer, action=None)``, sync or async.

    Raises:
        TypeError: it is none of these, or cannot be called as it will be.
    """
    if isinstance(entry, BasePermission):
        permission = entry
    elif entry is True or entry is False:
        return AllowAny() if entry else DenyAny()
    elif isinstance(entry, PermissionMeta):
        permission = entry()
    elif _is_operand(entry):
        return _Function(entry)
    else:
        fix = "Check the list for a slip."
        if isinstance(entry, type | types.UnionType):
            fix = "Derive every class in it from fastapi_consumers.permissions.BasePermission."
        raise TypeError(
            f"{entry!r} is no permission; expected a class that derives from BasePermission, an instance or an "
            f"expression of them, True, False, or a callable of (consumer, action=None). {fix}"
        )
    signature = inspect.signature(permission.has_permission)
    if not _binds(signature, None, None):
        raise TypeError(
            f"{permission!r}.has_permission takes {signature}; expected to call it with a consumer and an action. "
            "Define it as has_permission(self, consumer, action=None)."
        )
    return permission


def compile_permissions(entries: object) -> tuple[BasePermission, ...]:
    """The permissions of a whole list, in its order, without those that allow everybody.

    An empty tuple means that there is nothing to check.

    Raises:
        TypeError: an entry is no permission, or ``entries`` is no list.
    """
    if isinstance(entries, (str, bytes, type, BasePermission)) or not isinstance(entries, Iterable):
        raise TypeError(
            f"found {entries!r}; expected a list of permissions. Put it into a list: "
            f"[{entries.__qualname__ if isinstance(entries, type) else repr(entries)}]."
        )
    return tuple([permission for permission in map(permission_of, entries) if type(permission) is not AllowAny])


async def check_permissions(permissions: Sequence[BasePermission], consumer: Any, action: Any = None) -> None:
    """Ask every permission in order, each once, until one refuses. Awaits only what is async.

    Raises:
        ConsumerError: the refusal of the first that refused.
    """
    for permission in permissions:
        reason = permission._refusal(consumer, action, True)
        if reason is not None:
            if not isinstance(reason, ConsumerError):
                reason = await reason
            if reason is not None:
                raise reason


async def _settled(refusal: _Refusal) -> _Reason:
    return refusal if refusal is None or isinstance(refusal, ConsumerError) else await refusal


def _more_helpful(former: _Reason, latter: _Reason) -> _Reason:
    return former if isinstance(former, NotAuthenticated) else latter


def _is_operand(entry: Any) -> bool:
    """Whether ``&`` and ``|`` may take it. Classes of other kinds and ``list[int]`` can be called, but are types."""
    # No union of types here: writing one with BasePermission would ask this very function.
    if isinstance(entry, (BasePermission, PermissionMeta, bool)):
        return True
    return callable(entry) and not isinstance(entry, type) and get_origin(entry) is None


def _taking_action(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """``function`` as a callable of ``(consumer, action)``, whether or not it takes the action.

    A second parameter that has a default and another name than ``action`` is the function's own business.
    """
    expected = "expected a callable of (consumer) or (consumer, action=None)"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise TypeError(f"{function!r} does not tell its parameters; {expected}. Wrap it in a lambda.") from None
    if _binds(signature, None, action=None):
        return lambda consumer, action: function(consumer, action=action)
    if _binds(signature, None):
        return lambda consumer, action: function(consumer)
    if _binds(signature, None, None):
        return function
    raise TypeError(f"{function!r} takes {signature}; {expected}. Give the rest defaults, or wrap it in a lambda.")


def _binds(signature: inspect.Signature, *args: Any, **kwargs: Any) -> bool:
    try:
        return signature.bind(*args, **kwargs) is not None
    except TypeError:
        return False
