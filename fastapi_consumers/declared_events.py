"""Which events the groups of an application have, and what their data is: for those who broadcast from outside."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from .codecs import EncodedJSON
from .event_models import EventModel
from .exceptions import ImproperlyConfigured, Problem
from .options import ConsumerOptions


class _Declaration(NamedTuple):
    """An event of the groups of one template, and the class that says so."""

    pattern: re.Pattern[str]
    #: How much of the template is fixed text.
    fixed: int
    model: EventModel
    owner: str


class DeclaredEvents:
    """What the classes of one application declare of their groups. False while no class declares anything.

    Where a group's name matches several templates, the one with the most fixed text counts, as for histories.
    """

    def __init__(self) -> None:
        #: By the template's text and the event's name.
        self._declared: dict[tuple[str, str], _Declaration] = {}
        self._of = lru_cache(maxsize=4096)(self._find)

    def __bool__(self) -> bool:
        return bool(self._declared)

    def add(self, options: ConsumerOptions) -> None:
        """Learn what a class declares. Raises ``ImproperlyConfigured`` for a type that pydantic does not know, and if
        another class says otherwise of an event of the same groups.
        """
        problems: list[Problem] = []
        for model in options.event_models.values():
            where = f"{options.name}.events"
            try:
                model.adapter  # noqa: B018 -- made now, so that no broadcast is the first to find out
            except Exception as error:  # Pydantic raises errors of many kinds for a wrong annotation.
                found = f"{model!r}: {(str(error) or type(error).__name__).splitlines()[0]}"
                fix = "use a BaseModel, a dataclass, a TypedDict or a plain type, defined before it is used"
                problems.append(Problem("event-type", where, found, "types that pydantic knows", fix))
                continue
            for template in options.groups:
                key = template.text, model.name
                known = self._declared.get(key)
                if known is not None and known.model.annotation != model.annotation:
                    found = f"{model!r} in the group {template.text!r}, for which {known.owner} says {known.model!r}"
                    expected = "one and the same data in all classes of a group"
                    fix = "give both classes the same model, or the events other names"
                    problems.append(Problem("event-conflict", where, found, expected, fix))
                elif known is None:
                    fixed = sum(len(literal) for literal, _ in template.pieces)
                    self._declared[key] = _Declaration(template.pattern, fixed, model, options.name)
        self._of.cache_clear()
        if problems:
            raise ImproperlyConfigured(options.name, problems)

    def encoded(self, group: str, event: str, data: Any) -> Any:
        """``data`` as JSON, if a class declares this event of the group; else as it is. Raises ``InvalidEvent``."""
        if type(data) is EncodedJSON:
            return data  # The consumer's own class has seen to it.
        declaration = self._of(group).get(event)
        return data if declaration is None else declaration.model.encode(data, declaration.owner)

    def _find(self, group: str) -> Mapping[str, _Declaration]:
        matching = [
            (declaration.fixed, event, declaration)
            for (_, event), declaration in self._declared.items()
            if declaration.pattern.fullmatch(group)
        ]
        return {event: declaration for _, event, declaration in sorted(matching, key=lambda item: item[0])}
