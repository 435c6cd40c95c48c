"""Permissions combined with ``&``, ``|`` and ``~``, and what counts as a permission.

Expressions know three verdicts, as an operand may have nothing to say about what is asked (Kleene's logic): a yes, a no
and unknown. ``&`` is unknown unless one operand refuses or all allow, ``|`` unless one allows or all refuse, ``~`` of
unknown is unknown. What stays unknown in the end refuses nobody.
"""

import inspect
import types
from abc import ABCMeta
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, ClassVar, NoReturn, final, get_origin

from ..exceptions import ConsumerError, NotAuthenticated
from .conditions import QUESTIONS, UNKNOWN, About, Asked, Condition, Open, Verdict, not_at_once, settled
from .delivery import Delivery


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


class BasePermission(Condition, metaclass=PermissionMeta):
    """One condition. An instance serves all connections and concurrent checks: keep no state of a check in it.

    Define one or more of ``has_permission``, ``has_group_permission``, ``has_object_permission`` and
    ``has_delivery_permission``. A class says nothing of what it does not define.

    ``message`` and ``code`` are what a refusal tells the client; ``None`` leaves the error's own.
    """

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


class _Expression(BasePermission):
    """Permissions combined. Immutable."""

    operands: tuple[BasePermission, ...]

    def _take(self, operands: tuple[BasePermission, ...]) -> None:
        answers: frozenset[str] = frozenset().union(*(operand._answers for operand in operands))
        self.__dict__.update(operands=operands, _answers=answers, _is_general="has_permission" in answers)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"{self!r} cannot be changed: it may be shared. Build another expression.")

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    async def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return await self._allows(consumer, action, None)

    async def has_group_permission(self, consumer: Any, group: str) -> bool:
        return await self._allows(consumer, None, About("has_group_permission", group))

    async def has_object_permission(self, consumer: Any, obj: Any) -> bool:
        return await self._allows(consumer, None, About("has_object_permission", obj))

    def has_delivery_permission(self, consumer: Any, delivery: Delivery) -> bool:
        return not isinstance(
            at_once(self._verdict(consumer, None, False, About("has_delivery_permission", delivery)), self),
            ConsumerError,
        )

    async def _allows(self, consumer: Any, action: Any, about: About | None) -> bool:
        return not isinstance(await settled(self._verdict(consumer, action, False, about)), ConsumerError)

    def _verdict_alone(self, consumer: Any, action: Any, why: bool, about: About) -> Asked:
        return self._verdict(consumer, action, why, about)


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
        self._take(tuple(flat))

    def __repr__(self) -> str:
        return f"({self._sign.join(map(repr, self.operands))})"

    def _verdict(self, consumer: Any, action: Any, why: bool, about: About | None) -> Asked:
        rest = iter(self.operands)
        answer: Verdict = None
        for operand in rest:
            verdict = operand._verdict(consumer, action, why, about)
            if verdict is None or verdict is UNKNOWN or isinstance(verdict, ConsumerError):
                if verdict is not UNKNOWN and (verdict is None) is self._one_is_enough:
                    return verdict
                if verdict is not None or answer is not None:
                    answer = _more_helpful(answer, verdict)
            else:
                return self._later(verdict, answer, rest, consumer, action, why, about)
        return answer

    async def _later(
        self,
        pending: Awaitable[Verdict],
        answer: Verdict,
        rest: Iterator[BasePermission],
        consumer: Any,
        action: Any,
        why: bool,
        about: About | None,
    ) -> Verdict:
        verdict = await pending
        while verdict is UNKNOWN or (verdict is None) is not self._one_is_enough:
            answer = _more_helpful(answer, verdict)
            operand = next(rest, None)
            if operand is None:
                return answer
            verdict = await settled(operand._verdict(consumer, action, why, about))
        return verdict


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

    An exception raised by the operand is no refusal and is not turned into a pass. An operand that has nothing to say
    about what is asked does not refuse, and its negation does not either.
    """

    def __init__(self, operand: Any, *, message: str | None = None, code: str | None = None) -> None:
        self._take((permission_of(operand),))
        self.__dict__.update(message=message, code=code)

    def __invert__(self) -> BasePermission:
        return self.operands[0]

    def __repr__(self) -> str:
        return f"~{self.operands[0]!r}"

    def _verdict(self, consumer: Any, action: Any, why: bool, about: About | None) -> Asked:
        verdict = self.operands[0]._verdict(consumer, action, False, about)
        if verdict is None or verdict is UNKNOWN or isinstance(verdict, ConsumerError):
            return self._opposite(verdict, consumer, action, why)
        return self._later(verdict, consumer, action, why)

    async def _later(self, pending: Awaitable[Verdict], consumer: Any, action: Any, why: bool) -> Verdict:
        return self._opposite(await pending, consumer, action, why)

    def _opposite(self, verdict: Verdict, consumer: Any, action: Any, why: bool) -> Verdict:
        return UNKNOWN if verdict is UNKNOWN else self._judge(verdict is not None, consumer, action, why, "~")


class AllowAny(BasePermission):
    """Everybody may. The same as an empty list, but said aloud."""

    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return True


class DenyAny(BasePermission):
    """Nobody may."""

    def has_permission(self, consumer: Any, action: Any = None) -> bool:
        return False


class _Function(BasePermission):
    """A plain callable as a permission."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._call = _taking_action(function)
        self.function = function
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
    _check_methods(permission)
    return permission


def _check_methods(permission: BasePermission) -> None:
    if not permission._answers:
        raise TypeError(
            f"{permission!r} defines none of the methods {', '.join(QUESTIONS)}, so that it would allow everything. "
            "Define one, or look for a misspelt name."
        )
    for name in sorted(permission._answers):
        method = getattr(permission, name)
        signature = inspect.signature(method)
        if not _binds(signature, None, None):
            what = {"has_permission": "action=None", "has_group_permission": "group", "has_object_permission": "obj"}
            subject = what.get(name, "delivery")
            raise TypeError(
                f"{permission!r}.{name} takes {signature}; expected to call it with a consumer and "
                f"{subject.partition('=')[0]}. Define it as {name}(self, consumer, {subject})."
            )
    if "has_delivery_permission" in permission._answers:
        _check_sync(permission)


def _check_sync(permission: BasePermission, *, is_operand: bool = False) -> None:
    """Nothing that is asked in the middle of a fan-out may wait. Raises ``TypeError``.

    Args:
        is_operand: of ``|`` or ``~``, so that it is asked both questions.
    """
    if isinstance(permission, _Expression):
        for operand in permission.operands:
            if is_operand or not isinstance(permission, And):
                _check_sync(operand, is_operand=True)
            elif "has_delivery_permission" in operand._answers:
                # Operands of `&` alone are as good as entries of the list: has_permission has been asked before.
                _check_sync(operand)
        return
    for name in ("has_permission", "has_delivery_permission") if is_operand else ("has_delivery_permission",):
        function = permission.function if isinstance(permission, _Function) else getattr(permission, name)
        if name in permission._answers and _is_async(function):
            raise TypeError(
                f"{permission!r}.{name}() is async, and would be asked for each event that is delivered: in an "
                "expression with has_delivery_permission the operands of | and ~ are asked both. Write `def`, and "
                "fetch what it needs before the groups are joined, for example in get_groups()."
            )


def _is_async(function: Any) -> bool:
    return any(inspect.iscoroutinefunction(found) for found in (function, vars(type(function)).get("__call__")))


def at_once(asked: Asked, permission: Condition) -> Verdict:
    """The verdict where nothing may wait. Raises ``TypeError`` for one that is to be awaited."""
    if asked is None or isinstance(asked, (ConsumerError, Open)):
        return asked
    raise not_at_once(permission, asked)


def _more_helpful(former: Verdict, latter: Verdict) -> Verdict:
    """What two operands say together of which neither decides."""
    if former is UNKNOWN or latter is UNKNOWN:
        return UNKNOWN
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
