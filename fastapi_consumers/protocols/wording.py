"""What clients are told of a frame that is no request, or not one of theirs."""

from typing import Any

from ..exceptions import ActionNotFound, InvalidFrame
from ..texts import LazyText
from ..texts import gettext_lazy as _

#: Longest action name that is quoted in an error.
MAX_QUOTED = 64

_KINDS = {
    dict: _("an object"),
    list: _("a list"),
    str: _("text"),
    bool: _("a boolean"),
    int: _("a number"),
    float: _("a number"),
}


def kind_of(value: Any) -> str:
    """In the words of JSON."""
    if value is None:
        return "null"
    return _KINDS.get(type(value)) or _("a value of type {type}", type=type(value).__name__)


def no_object(content: Any) -> InvalidFrame:
    """For content that has no keys."""
    return InvalidFrame(_("Expected an object with an action; found {found}.", found=kind_of(content)))


def no_text(found: str) -> InvalidFrame:
    """For an action that is not text."""
    return InvalidFrame(_('Expected "action" to be text; found {found}.', found=found))


#: In place of an action that is missing.
MISSING_ACTION: LazyText = _("none")


def bad_request_id(value: Any, maximum: int) -> InvalidFrame:
    """For a ``request_id`` of a wrong type, or out of range; ``maximum`` is its longest, in characters."""
    in_kind = isinstance(value, int | str) and not isinstance(value, bool)
    return InvalidFrame(
        _(
            'Expected "request_id" to be a 64-bit integer or text of at most {maximum} characters; found {found}.',
            maximum=maximum,
            found=_("one out of range") if in_kind else kind_of(value),
        )
    )


def unknown_action(name: str, near: list[str]) -> ActionNotFound:
    """For an action that is not there; ``near`` has the one that may have been meant, if there is one."""
    quoted = repr(name if len(name) <= MAX_QUOTED else name[:MAX_QUOTED] + "…")
    if not near:
        return ActionNotFound(_("There is no action {name}.", name=quoted))
    return ActionNotFound(_("There is no action {name}. Did you mean {nearest}?", name=quoted, nearest=repr(near[0])))
