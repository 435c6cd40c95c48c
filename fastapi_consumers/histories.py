"""Which groups have a history, and how much: by the templates of the classes, and by what members came with."""

import re
from collections.abc import Mapping
from functools import lru_cache

from .exceptions import ImproperlyConfigured, Problem
from .history import History
from .options import ConsumerOptions


class Histories:
    """The settings of one application's groups. Whoever publishes asks here, member or not."""

    def __init__(self) -> None:
        #: By the template's text: what its groups' names match, the settings, and the class that says so.
        self._templates: dict[str, tuple[re.Pattern[str], History, str]] = {}
        #: Groups that no template names, learnt from a member's class while it is in them.
        self._learnt: dict[str, History] = {}
        self._match = lru_cache(maxsize=4096)(self._find)

    @property
    def templates(self) -> Mapping[str, History]:
        """Template to settings, as stores keep them."""
        return {text: history for text, (_, history, _) in self._templates.items()}

    def add(self, options: ConsumerOptions) -> None:
        """Learn the templates of a class. Raises ``ImproperlyConfigured`` if another class says otherwise of one."""
        if options.history is None:
            return
        problems: list[Problem] = []
        for template in options.groups:
            known = self._templates.get(template.text)
            if known is not None and not _same(known[1], options.history):
                problems.append(
                    Problem(
                        "history-conflict",
                        f"{options.name}.history",
                        f"{options.history!r} for the group {template.text!r}, for which {known[2]} says {known[1]!r}",
                        "one and the same history in all classes of a group",
                        "give both classes the same, or other groups",
                    )
                )
            else:
                self._templates[template.text] = template.pattern, options.history, options.name
        self._match.cache_clear()
        if problems:
            raise ImproperlyConfigured(options.name, problems)

    def of(self, group: str) -> History | None:
        """The group's settings; ``None`` if it has no history."""
        return self._match(group) if self._templates or self._learnt else None

    def learn(self, group: str, history: History) -> None:
        """A member of a group came with this history."""
        if self._match(group) is None:
            self._learnt[group] = history
            self._match.cache_clear()

    def forget(self, group: str) -> None:
        """Nobody here is in this group any more."""
        if self._learnt.pop(group, None) is not None:
            self._match.cache_clear()

    def _find(self, group: str) -> History | None:
        for pattern, history, _ in self._templates.values():
            if pattern.fullmatch(group):
                return history
        return self._learnt.get(group)


def _same(one: History, other: History) -> bool:
    return (one.size, one.seconds) == (other.size, other.seconds)
