"""``pagination_class`` on actions and consumers: which paginator it is, and whether it fits the actions' parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

from .actions import Action
from .exceptions import ImproperlyConfigured, Problem
from .pagination import BasePagination, PageParams, pagination_of
from .payloads import then


def checked_pagination(entry: Any, where: str, problems: list[Problem]) -> BasePagination | None:
    """The paginator of a ``pagination_class``; ``None`` if there is none, or it is wrong."""
    if entry is None:
        return None
    try:
        return pagination_of(entry)
    except ImproperlyConfigured as error:
        problems.extend(error.problems)
    except Exception as error:  # The __init__ of a class of one's own may raise anything.
        expected = "a class or an instance of BasePagination, such as CursorPagination(page_size=50)"
        fix = str(error) or type(error).__name__
        problems.append(Problem("bad-pagination-class", where, f"pagination_class = {entry!r}", expected, fix))
    return None


def with_pagination(action: Action, where: str, problems: list[Problem]) -> Action:
    """An action whose parameters know its own paginator, if it has one."""
    paginator = checked_pagination(action.mark.pagination_class, where, problems)
    if paginator is None:
        return action
    if not action.payload.required or not _pages_by(action, paginator):
        params = f"{type(paginator).__qualname__}.Params"
        problems.append(
            Problem(
                "action-pagination",
                where,
                "a pagination_class on an action that does not take its parameters",
                f"{params}, or a model derived from it, as the whole payload, without a default",
                f"write `data: {params}`",
            )
        )
        return action
    return dataclasses.replace(action, payload=then(action.payload, paginator.bind))


def check_pagination(
    actions: Mapping[str, Action], paginator: BasePagination | None, problems: list[Problem]
) -> BasePagination | None:
    """The consumer's pagination, which has to fit the actions that take page parameters and have none of their own."""
    for action in actions.values():
        kind = params_of(action)
        if paginator is None or kind is None or action.mark.pagination_class is not None:
            continue
        if not _pages_by(action, paginator):
            problems.append(
                Problem(
                    "action-pagination",
                    f"{action.owner}.{action.method}, line {action.line}",
                    f"the parameters {kind.__qualname__} in a consumer that pages by {type(paginator).__qualname__}",
                    f"{type(paginator).__qualname__}.Params, or a pagination_class of the action's own",
                    "change the annotation, or write @action(pagination_class=…)",
                )
            )
    return paginator


def _pages_by(action: Action, paginator: BasePagination) -> bool:
    kind: Any = params_of(action)
    return kind is not None and issubclass(kind, paginator.Params)


def params_of(action: Action) -> type[PageParams] | None:
    """The model of page parameters that an action takes as its payload."""
    annotation = action.payload.annotation if action.payload.kind == "whole" else None
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation if isinstance(annotation, type) and issubclass(annotation, PageParams) else None
