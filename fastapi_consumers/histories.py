"""Which groups have a history, and how much: by the templates of the classes, and by what members came with."""

import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from .exceptions import ImproperlyConfigured, NotFound, Problem
from .groups import GroupTemplate
from .history import History
from .options import ConsumerOptions
from .texts import gettext_lazy as _

logger = logging.getLogger(__name__)

#: Groups that no template names and that are remembered, the newest: some 20 MB.
MAX_LEARNT = 100_000


class _Setting(NamedTuple):
    template: GroupTemplate
    #: What the names of its groups match.
    pattern: re.Pattern[str]
    history: History
    #: The class that says so.
    owner: str


class Histories:
    """The settings of one application's groups. Whoever publishes asks here, member or not.

    Where a group's name matches several templates, the one with the most fixed text counts, so that all programs agree
    in whatever order they came to know of them.
    """

    def __init__(self) -> None:
        #: By the template's text.
        self._templates: dict[str, _Setting] = {}
        #: Groups that no template names, learnt from their members' classes. Not forgotten when the last one leaves:
        #: it may come back, and ask for what was said meanwhile.
        self._learnt: dict[str, History] = {}
        self._match = lru_cache(maxsize=4096)(self._find)

    @property
    def templates(self) -> Mapping[str, History]:
        """Template to settings, as stores keep them."""
        return {text: setting.history for text, setting in self._templates.items()}

    def add(self, options: ConsumerOptions) -> None:
        """Learn the templates of a class. Raises ``ImproperlyConfigured`` if another class says otherwise of one."""
        if options.history is None:
            return
        problems: list[Problem] = []
        for template in options.groups:
            known = self._templates.get(template.text)
            if known is not None and not _same(known.history, options.history):
                problems.append(
                    Problem(
                        "history-conflict",
                        f"{options.name}.history",
                        f"{options.history!r} for the group {template.text!r}, for which {known.owner} says "
                        f"{known.history!r}",
                        "one and the same history in all classes of a group",
                        "give both classes the same, or other groups",
                    )
                )
            else:
                self._templates[template.text] = _Setting(template, template.pattern, options.history, options.name)
        self._sort()
        if problems:
            raise ImproperlyConfigured(options.name, problems)

    def load(self, templates: Mapping[str, History]) -> None:
        """Know what a store keeps and nothing else: for programs that have no classes, only an application's store."""
        found: dict[str, _Setting] = {}
        for text, history in templates.items():
            try:
                template = GroupTemplate.parse(text)
            except ValueError as error:
                logger.warning("skipped the history of %r, which is no template: %s", text, error)
            else:
                found[text] = _Setting(template, template.pattern, history, "the store")
        self._templates = found
        self._sort()

    def of(self, group: str) -> History | None:
        """The group's settings; ``None`` if it has no history."""
        return self._match(group) if self._templates or self._learnt else None

    def required(self, group: str) -> History:
        """The group's settings. Raises ``NotFound`` if it has no history."""
        history = self.of(group)
        if history is None:
            raise NotFound(_("This group has no history."))
        return history

    def learn(self, group: str, history: History) -> None:
        """A member of a group came with this history."""
        if self._match(group) is None:
            if len(self._learnt) >= MAX_LEARNT:
                del self._learnt[next(iter(self._learnt))]
            self._learnt[group] = history
            self._match.cache_clear()

    def _find(self, group: str) -> History | None:
        for setting in self._templates.values():
            if setting.pattern.fullmatch(group):
                return setting.history
        return self._learnt.get(group)

    def _sort(self) -> None:
        self._templates = dict(sorted(self._templates.items(), key=_precedence))
        self._match.cache_clear()


def _precedence(item: tuple[str, _Setting]) -> tuple[int, int, str]:
    pieces = item[1].template.pieces
    return -sum(len(literal) for literal, _ in pieces), sum(field is not None for _, field in pieces), item[0]


def _same(one: History, other: History) -> bool:
    return (one.size, one.seconds) == (other.size, other.seconds)
