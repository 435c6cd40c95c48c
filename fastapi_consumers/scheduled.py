"""What a schedule runs: a function, what it asks for, and what it is told of the run."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from .exceptions import Problem
from .marks import ScheduleMark
from .signatures import innermost, line_of
from .timings import Timing

#: What runs: a class method, once for each group that has members of the class; one, once for the class; a function of
#: the application; or nothing, as an event is broadcast to a group.
Kind = Literal["group", "class", "function", "event"]

#: What a scheduled function may ask for, by the name of a parameter.
PARAMETERS = ("group", "consumers", "run")


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """One run, as its function sees it."""

    #: The schedule's name.
    name: str
    #: The moment that it was due at, in UTC; not when it began.
    at: datetime
    #: The group that it is for, if there is one.
    group: str | None
    #: 1; more if a process that ran it for the same moment died, or was stopped.
    attempt: int
    #: How many moments before this one had no run. Nothing for schedules that run for each group.
    missed: int
    #: Whether somebody asked for it with ``run_now``. Then ``at`` is when.
    is_manual: bool


@dataclass(frozen=True, eq=False)
class Scheduled:
    """Something that runs by itself, as the code says it."""

    name: str
    kind: Kind
    timing: Timing
    #: Called with those of :data:`PARAMETERS` that it names.
    function: Callable[..., Any]
    parameters: frozenset[str]
    timeout: float | None = None
    #: Whether a run that its process did not finish is run again.
    take_over: bool = True
    #: The class that it is a method of.
    cls: type[Any] | None = None
    line: int = 0

    def __repr__(self) -> str:
        each = " for each group" if self.kind == "group" else ""
        line = f", line {self.line}" if self.line else ""
        extra = [f"timeout {self.timeout:g} s"] if self.timeout is not None else []
        extra += [] if self.take_over else ["not taken over"]
        return f"{self.timing!r}{each}{line}" + (f" [{', '.join(extra)}]" if extra else "")

    async def call(self, consumers: Any, run: ScheduledRun) -> None:
        """One run. Raises what the function raises."""
        found = {"group": run.group, "consumers": consumers, "run": run}
        await self.function(**{name: found[name] for name in self.parameters})


def compile_scheduled(
    name: str, mark: ScheduleMark, function: Any, where: str, problems: list[Problem], cls: type[Any] | None = None
) -> Scheduled | None:
    """What is wrong goes into ``problems``; ``None`` if there is something.

    Args:
        function: with ``cls``, the method as it is called on the class: without its first parameter.
    """
    mistakes = [problem._replace(where=where) for problem in mark.problems]
    inner = innermost(function)
    if not inspect.iscoroutinefunction(inner):
        found = "an async generator" if inspect.isasyncgenfunction(inner) else "a function that is not async"
        fix = "write `async def`; what blocks goes to a thread: `await anyio.to_thread.run_sync(…)`"
        mistakes.append(Problem("schedule-not-async", where, found, "a coroutine function", fix))
    known = PARAMETERS if cls is not None else PARAMETERS[1:]
    parameters = _parameters(function, known, where, mistakes)
    problems += mistakes
    if mistakes or mark.timing is None:
        return None
    kind: Kind = "function" if cls is None else "group" if "group" in parameters else "class"
    return Scheduled(
        name, kind, mark.timing, function, parameters, mark.timeout, mark.take_over, cls, line_of(function)
    )


def _parameters(function: Any, known: tuple[str, ...], where: str, mistakes: list[Problem]) -> frozenset[str]:
    found: set[str] = set()
    for parameter in inspect.signature(function).parameters.values():
        by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if by_name and parameter.name in known:
            found.add(parameter.name)
        elif parameter.default is parameter.empty:
            expected = f"nothing but {', '.join(known)}: there is no connection, no client and no request"
            fix = "remove it, or give it a default"
            problem = Problem("schedule-parameter", where, f"the parameter {parameter}", expected, fix)
            mistakes.append(problem)
    return frozenset(found)
