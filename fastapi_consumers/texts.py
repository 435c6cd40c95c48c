"""Texts that are told to people: English now, and still to be had in another language later."""

from collections.abc import Callable, Mapping
from typing import Any


class LazyText(str):
    """A text in English that knows its ``template`` and ``values``, so that it can be said in another language.

    It is the English text wherever text is wanted: in logs, in comparisons, in ``str(error)``.
    """

    __slots__ = ("template", "values")

    template: str
    values: Mapping[str, Any]

    def __new__(cls, template: str, values: Mapping[str, Any]) -> "LazyText":
        self = super().__new__(cls, template.format_map(values) if values else template)
        self.template = template
        self.values = values
        return self

    def __getnewargs__(self) -> tuple[str, Mapping[str, Any]]:  # type: ignore[override]  # of another __new__
        return self.template, self.values


def gettext_lazy(template: str, /, **values: Any) -> LazyText:
    """Mark a text for translation: ``_("There is no room {name}.", name=name)``. Import it as ``_``.

    ``{name}`` in the template stands for the value of that name; without values nothing is replaced, braces stay what
    they are. The text is translated when it is sent to a client, if it is an error's message. A value that is such a
    text itself is translated too.

    Raises ``KeyError`` for a name without a value.
    """
    return LazyText(template, values)


def translate_text(text: str, gettext: Callable[[str], str]) -> str:
    """``text`` as ``gettext`` has it: the template of a :class:`LazyText`, its values put in, or the text itself."""
    if not text:  # A catalog's entry for the empty text is its own header.
        return text
    if not isinstance(text, LazyText):
        return gettext(text)
    template = gettext(text.template)
    if not text.values:
        return template
    values = {
        name: translate_text(value, gettext) if isinstance(value, LazyText) else value
        for name, value in text.values.items()
    }
    return template.format_map(values)
