"""An action: from a marked function to what validates a payload, is called, and serialises what it returns."""

import collections.abc
import dataclasses
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, get_args, get_origin

import anyio.to_thread
from pydantic.errors import PydanticUndefinedAnnotation
from starlette.concurrency import iterate_in_threadpool

from .dependencies import Dependencies
from .exceptions import ConsumerError, Problem
from .marks import ActionMark
from .payloads import ANYTHING, MISSING, Payload, Returns, payload_of, returns_of, typed_dict
from .signatures import INJECTED, Unresolved, innermost, line_of, sort_parameters

_STREAMS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
)
_SYNC_STREAMS = (collections.abc.Iterator, collections.abc.Iterable, collections.abc.Generator)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Action:
    """One thing that clients may call. Made once per class that has it; shared by all its instances and subclasses."""

    name: str
    method: str
    owner: str
    line: int
    function: Callable[..., Any]
    mark: ActionMark
    payload: Payload
    returns: Returns
    stream: bool
    threaded: bool
    dependencies: Dependencies | None
    injected: tuple[tuple[str, str | None], ...]
    #: Calls the function with the consumer and the validated data, if it needs nothing else.
    call: Callable[[Any, Any], Awaitable[Any]]

    @property
    def concurrent(self) -> bool:
        """Whether it runs beside the connection's other actions."""
        return self.mark.concurrent

    @property
    def timeout(self) -> float | None:
        """Seconds, or ``None`` for no limit."""
        return self.mark.timeout

    @property
    def deprecated(self) -> bool:
        """Whether its documentation says so, and each use is logged."""
        return self.mark.deprecated

    @property
    def enabled(self) -> bool:
        """Whether it may be called at all."""
        return self.mark.enabled

    @property
    def errors(self) -> tuple[type[ConsumerError], ...]:
        """The errors that it is said to answer with of its own accord."""
        return self.mark.errors

    @property
    def plain(self) -> bool:
        """Whether ``call`` is all there is to it: one coroutine, nothing to inject, no limit of time."""
        return not (self.stream or self.dependencies or self.injected or self.mark.timeout)

    @property
    def description(self) -> str:
        """The function's docstring."""
        return inspect.getdoc(self.function) or ""

    def __repr__(self) -> str:
        return f"<Action {self.name!r} of {self.owner}.{self.method}>"

    def arguments(self, data: Any) -> dict[str, Any]:
        """The payload as keyword arguments."""
        if self.payload.kind == "none" or data is MISSING:
            return {}
        if self.payload.kind == "whole":
            return {self.payload.name: data}
        return self.payload.complete(data) if self.payload.factories else dict(data)

    def start(self, consumer: Any, arguments: dict[str, Any]) -> Any:
        """Call the function with keyword arguments; what comes back is awaited, or iterated if it streams."""
        if self.stream:
            result = self.function(consumer, **arguments)
            return iterate_in_threadpool(result) if self.threaded else result
        if self.threaded:
            return _in_thread(functools.partial(self.function, consumer, **arguments))
        return self.function(consumer, **arguments)


async def _in_thread(function: Callable[[], Any]) -> Any:
    # Abandoned, not awaited, when the socket goes: a thread cannot be stopped, and its result is dropped.
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True)


def compile_action(
    function: Callable[..., Any],
    mark: ActionMark,
    *,
    method: str,
    owner: str,
    where: str,
    localns: dict[str, Any],
    problems: list[Problem],
) -> Action | None:
    """The ``Action`` of a marked function. What is wrong goes into ``problems`` and the answer is ``None``.

    Raises ``Unresolved`` if an annotation names something that does not exist yet.
    """
    before = len(problems)
    for mistake in mark.mistakes:
        problems.append(
            Problem("action-option", where, mistake, "valid options of @action", "see the docstring of action()")
        )
    found = sort_parameters(function, localns, where, problems)
    if found is None:
        return None
    payload = payload_of(found.payload, where, problems)
    dependencies = _dependencies(found.dependencies, where, problems)
    stream, threaded, item = _kind(function, found.returns)
    returns = returns_of(item, where, problems)
    if payload is None or returns is None or len(problems) > before:
        return None
    return Action(
        name=mark.name or method,
        method=method,
        owner=owner,
        line=line_of(function),
        function=function,
        mark=mark,
        payload=payload,
        returns=returns,
        stream=stream,
        threaded=threaded,
        dependencies=dependencies,
        injected=tuple(found.injected),
        call=_direct_call(function, payload, threaded),
    )


def _dependencies(parameters: list[inspect.Parameter], where: str, problems: list[Problem]) -> Dependencies | None:
    if not parameters:
        return None
    try:
        return Dependencies.of_parameters(parameters)
    except PydanticUndefinedAnnotation as error:
        raise Unresolved(str(error)) from None
    except Exception as error:  # FastAPI raises AssertionError, FastAPIError and more for a wrong parameter.
        problems.append(
            Problem(
                "action-dependency",
                where,
                f"a dependency that cannot be used: {(str(error) or type(error).__name__).splitlines()[0]}",
                "Depends, Path, Query, Header or Cookie as in a FastAPI endpoint for a WebSocket",
                "mend the parameter or the dependency",
            )
        )
        return None


def _kind(function: Callable[..., Any], annotation: Any) -> tuple[bool, bool, Any]:
    """Whether it streams, whether it runs in a thread, and the type of what it returns or yields."""
    inner = innermost(function)
    item = get_args(annotation)[0] if get_args(annotation) else Any
    if inspect.isasyncgenfunction(inner):
        return True, False, item if get_origin(annotation) in _STREAMS else Any
    if inspect.isgeneratorfunction(inner):
        return True, True, item if get_origin(annotation) in _SYNC_STREAMS else Any
    return False, not inspect.iscoroutinefunction(inner), annotation


def _is_second(name: str, function: Callable[..., Any]) -> bool:
    """Whether the parameter can be passed right behind the consumer."""
    return [*inspect.signature(function).parameters][1:2] == [name] and (
        inspect.signature(function).parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    )


def _direct_call(
    function: Callable[..., Any], payload: Payload, threaded: bool
) -> Callable[[Any, Any], Awaitable[Any]]:
    """The cheapest way from (consumer, data) to the coroutine, chosen here so that no message has to choose."""
    target = function
    if threaded:

        def target(*args: Any, **kwargs: Any) -> Any:
            return _in_thread(functools.partial(function, *args, **kwargs))

    if payload.kind == "none":
        return lambda consumer, data: target(consumer)
    if payload.kind == "whole":
        name = payload.name
        if payload.required and not threaded and _is_second(name, function):
            return function
        if payload.required:
            return lambda consumer, data: target(consumer, **{name: data})
        return lambda consumer, data: target(consumer) if data is MISSING else target(consumer, **{name: data})
    if payload.factories:
        return lambda consumer, data: target(consumer, **payload.complete(data))
    return lambda consumer, data: target(consumer, **data)


__all__ = [
    "ANYTHING",
    "INJECTED",
    "MISSING",
    "Action",
    "Payload",
    "Returns",
    "Unresolved",
    "compile_action",
    "typed_dict",
]
