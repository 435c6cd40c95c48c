"""The scheduled methods of a class: those that ``@every`` and ``@cron`` mark, found in its MRO's own dictionaries.

They are class methods: when one runs there is no connection, and so no consumer.
"""

from typing import Any

from .exceptions import Problem
from .marked_methods import Declared, declares, inner_of, where_of
from .marks import ACTION_MARK, EVENT_MARK, MAX_SCHEDULE_NAME, SCHEDULE_MARK, ScheduleMark
from .scheduled import Scheduled, compile_scheduled


def scheduled_methods(declared: Declared, problems: list[Problem]) -> dict[str, Scheduled]:
    """By the name of the schedule, bases first. As with any attribute, the nearest class that has a name decides."""
    framework = [klass for klass in declared.mro if klass not in declared.own]
    prefix = declared.cls.__qualname__
    if variant := vars(declared.cls).get("_variant"):
        prefix += f"~{variant}"
    found: dict[str, Scheduled] = {}
    for klass in reversed(declared.own):
        for name, value in vars(klass).items():
            nearest = next(other for other in declared.mro if name in vars(other))
            mark = schedule_mark_of(value)
            if klass is not nearest:
                if mark is not None and nearest in declared.own and vars(nearest)[name] is not None:
                    _check_override(declared, klass, nearest, name, problems)
                continue
            if mark is None:
                continue
            where = where_of(klass, name, inner_of(value) or value)
            if (problem := _misplaced(value, name, where, mark, framework)) is not None:
                problems.append(problem)
                continue
            schedule = mark.name or f"{prefix}.{name}"[-MAX_SCHEDULE_NAME:]
            bound = value.__get__(None, declared.cls)
            scheduled = compile_scheduled(schedule, mark, bound, where, problems, declared.cls)
            if schedule in found:
                fix = "give one of them another name"
                taken = f"the name {schedule!r}, which another one has too"
                problems.append(Problem("schedule-name-taken", where, taken, "one schedule of each name", fix))
            elif scheduled is not None:
                found[schedule] = scheduled
    return found


def schedule_mark_of(value: Any) -> ScheduleMark | None:
    """The mark on a function, or on the one in a ``classmethod``; ``None`` for anything else."""
    inner = inner_of(value) or value
    if not callable(inner) or isinstance(inner, type):
        return None
    mark = getattr(inner, SCHEDULE_MARK, None)
    return mark if isinstance(mark, ScheduleMark) else None


def _misplaced(value: Any, name: str, where: str, mark: ScheduleMark, framework: list[type]) -> Problem | None:
    if any(declares(base, name) for base in framework):
        found = f"a schedule whose method is named {name!r}, which means something else on a consumer"
        fix = f"call it, for example, {name}_now"
        return Problem("schedule-shadows-attribute", where, found, "a method name of its own", fix)
    inner = inner_of(value) or value
    if hasattr(inner, ACTION_MARK) or hasattr(inner, EVENT_MARK):
        found, fix = f"{mark.decorator} together with @action or @event", "write two methods"
        return Problem("schedule-and-action", where, found, "a method that only its schedule runs", fix)
    if not isinstance(value, classmethod):
        found = "a method of an instance" if inner is value else f"a {type(value).__name__}"
        expected = "a class method: when it runs there is no connection, and so no consumer"
        fix = f"write @classmethod between {mark.decorator} and the method: `async def {name}(cls, consumers)`"
        return Problem("schedule-not-classmethod", where, found, expected, fix)
    return None


def _check_override(declared: Declared, base: type, nearest: type, name: str, problems: list[Problem]) -> None:
    value = vars(nearest)[name]
    inner = inner_of(value) or value
    if schedule_mark_of(value) is None and not (hasattr(inner, ACTION_MARK) or hasattr(inner, EVENT_MARK)):
        problems.append(
            Problem(
                "override-without-mark",
                where_of(nearest, name, inner),
                f"something that overrides the method that {base.__qualname__} put on a schedule, without a mark",
                "@every or @cron on the override, so that what runs by itself is always written down",
                f"put one on it, or set `{name} = None` and use another name",
            )
        )
