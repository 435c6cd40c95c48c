"""FastAPI's dependency injection outside of a route. The only module that knows FastAPI's private names.

FastAPI has no public way to solve dependencies without a route, so this leans on ``get_dependant`` and
``solve_dependencies`` of ``fastapi.dependencies.utils``, which kept these arguments from 0.115 on. A test holds them
on the oldest and the newest version that the project supports.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from fastapi import params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, solve_dependencies
from fastapi.exceptions import HTTPException, RequestValidationError, WebSocketRequestValidationError
from fastapi.security.base import SecurityBase
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.websockets import WebSocket

from .exceptions import ConsumerError, InvalidData
from .http_errors import http_error

MAX_DETAILS = 20


def is_dependency(annotation: Any, default: Any) -> bool:
    """Whether a parameter is FastAPI's to fill: ``Depends``, ``Path``, ``Query``, ``Header`` or ``Cookie``."""
    marks = [default, *getattr(annotation, "__metadata__", ())]
    return any(isinstance(mark, params.Depends | params.Param) for mark in marks)


def is_body(annotation: Any, default: Any) -> bool:
    """Whether a parameter asks for an HTTP body, which a socket does not have."""
    return any(isinstance(mark, params.Body) for mark in [default, *getattr(annotation, "__metadata__", ())])


class Dependencies:
    """Some parameters, or some ``Depends(...)`` for their effect alone, compiled once and solved per call."""

    __slots__ = ("_dependant", "_makes_request")

    def __init__(self, dependant: Dependant, *, makes_request: bool = False) -> None:
        self._dependant = dependant
        #: Whether the handshake is shown as the HTTP request that it is.
        self._makes_request = makes_request

    @classmethod
    def of_parameters(cls, parameters: Iterable[inspect.Parameter]) -> "Dependencies":
        """For parameters whose annotations are resolved. Raises what FastAPI raises for a wrong one.

        Raises ``TypeError`` for a dependency that wants what only HTTP has: it would fail on every call.
        """

        dependant = _dependant(parameters)
        _refuse_http(dependant)
        return cls(dependant)

    @classmethod
    def of_list(cls, dependencies: Sequence[Any]) -> "Dependencies":
        """For ``dependencies=[Depends(audit)]``. Raises ``TypeError`` for an entry that is no ``Depends``."""
        parameters: list[inspect.Parameter] = []
        for index, depends in enumerate(dependencies):
            if not isinstance(depends, params.Depends):
                raise TypeError(f"{depends!r} is not a dependency; write Depends({depends!r})")
            parameters.append(inspect.Parameter(f"dependency_{index}", inspect.Parameter.KEYWORD_ONLY, default=depends))
        return cls.of_parameters(parameters)

    @classmethod
    def of_guards(cls, dependencies: Sequence[Any]) -> "Dependencies":
        """For ``dependencies=[…]`` that guard HTTP endpoints and a socket alike: all of them see a ``Request``.

        Raises ``TypeError`` for an entry that is no ``Depends``, and for one that wants a body or a ``WebSocket``.
        """
        for depends in dependencies:
            if not isinstance(depends, params.Depends) or depends.dependency is None:
                raise TypeError(f"{depends!r} is not a dependency; write Depends(require_admin)")
        dependant = _dependant(
            inspect.Parameter(f"dependency_{index}", inspect.Parameter.KEYWORD_ONLY, default=depends)
            for index, depends in enumerate(dependencies)
        )
        _refuse_body(dependant)
        for name, kind in _takers(dependant):
            if kind == "WebSocket":
                raise TypeError(
                    f"{name} takes a WebSocket, which HTTP endpoints have not; let it take a "
                    "starlette.requests.HTTPConnection"
                )
        return cls(dependant, makes_request=True)

    @classmethod
    def of_handshake(cls, call: Callable[..., Any]) -> "Dependencies":
        """For one dependency, solved as ``result`` before the socket is accepted; it may take a ``Request``.

        Raises ``TypeError`` for one that wants a body, or both a ``Request`` and a ``WebSocket``, and what FastAPI
        raises.
        """
        result = inspect.Parameter("result", inspect.Parameter.KEYWORD_ONLY, default=params.Depends(call))
        dependant = _dependant([result])
        _refuse_body(dependant)
        takers = list(_takers(dependant))
        kinds = {kind for _, kind in takers}
        if len(kinds) > 1:
            names = ", ".join(f"{name} ({kind})" for name, kind in takers)
            raise TypeError(
                f"the dependency takes both a Request and a WebSocket: {names}; let one take a "
                "starlette.requests.HTTPConnection"
            )
        return cls(dependant, makes_request="Request" in kinds)

    def security_schemes(self) -> dict[str, dict[str, Any]]:
        """FastAPI's security schemes among them: name to a Security Scheme Object of OpenAPI 3.1."""
        return {
            scheme.scheme_name: scheme.model.model_dump(mode="json", by_alias=True, exclude_none=True)
            for scheme in _security_schemes(self._dependant)
        }

    async def solve(self, websocket: WebSocket, stack: AsyncExitStack, overrides: Any = None) -> dict[str, Any]:
        """Values by parameter name. What they opened is closed by ``stack``.

        ``overrides`` is the application, whose ``dependency_overrides`` apply. Raises ``InvalidData`` where a header,
        query, cookie or path value is missing or malformed, and whatever the dependencies raise.
        """
        inner = await stack.enter_async_context(AsyncExitStack())
        function = await stack.enter_async_context(AsyncExitStack())
        # A copy, because two actions of one connection may be solving at the same time.
        scope = {
            **websocket.scope,
            "fastapi_inner_astack": inner,
            "fastapi_function_astack": function,
        }
        scope.pop("fastapi_async_cleanup_scopes", None)
        solved = await solve_dependencies(
            request=_as_request(scope) if self._makes_request else _with_scope(websocket, scope),
            dependant=self._dependant,
            async_exit_stack=inner,
            embed_body_fields=False,
            dependency_overrides_provider=overrides if hasattr(overrides, "dependency_overrides") else None,
        )
        if solved.errors:
            raise InvalidData(details=error_details(solved.errors))
        return solved.values


def is_security_scheme(call: Any) -> bool:
    """Whether it is one of FastAPI's security schemes, which find a credential and do not verify it."""
    return isinstance(call, SecurityBase)


def _dependant(parameters: Iterable[inspect.Parameter]) -> Dependant:
    def call() -> None: ...

    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    call.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]  # what inspect reads in place of the real one
    return get_dependant(path="/", call=call)


def _security_schemes(dependant: Dependant) -> Iterator[SecurityBase]:
    call: Any = dependant.call
    if is_security_scheme(call):
        yield call
    for inner in dependant.dependencies:
        yield from _security_schemes(inner)


def _takers(dependant: Dependant) -> Iterator[tuple[str, str]]:
    """Who of a tree takes a ``Request`` or a ``WebSocket``, and which."""
    if dependant.request_param_name is not None:
        yield _name(dependant), "Request"
    if dependant.websocket_param_name is not None:
        yield _name(dependant), "WebSocket"
    for inner in dependant.dependencies:
        yield from _takers(inner)


def _refuse_http(dependant: Dependant) -> None:
    for name, kind in _takers(dependant):
        if kind == "Request":
            raise TypeError(
                f"{name} takes a Request, which a WebSocket has not; let it take a starlette.requests.HTTPConnection"
            )
    _refuse_body(dependant)


def _refuse_body(dependant: Dependant) -> None:
    if dependant.body_params:
        raise TypeError(f"{_name(dependant)} takes a body ({dependant.body_params[0].name}), which a WebSocket has not")
    for inner in dependant.dependencies:
        _refuse_body(inner)


def _name(dependant: Dependant) -> str:
    return getattr(dependant.call, "__qualname__", None) or type(dependant.call).__qualname__


def _as_request(scope: dict[str, Any]) -> Request:
    """The handshake as HTTP sees it: a GET without a body (RFC 6455, section 4.1)."""
    return Request({**scope, "type": "http", "method": "GET"})


def _with_scope(websocket: WebSocket, scope: dict[str, Any]) -> WebSocket:
    twin: WebSocket = object.__new__(type(websocket))
    twin.__dict__.update(websocket.__dict__)
    twin.scope = scope
    return twin


def error_details(errors: Iterable[Any]) -> list[dict[str, Any]]:
    """Pydantic's errors as the client sees them: place, type and message, never what it sent or where the docs are."""
    details: list[dict[str, Any]] = []
    for error in errors:
        if len(details) == MAX_DETAILS:
            break
        if isinstance(error, Mapping):
            loc = [part if isinstance(part, int) else _printable(part)[:100] for part in error.get("loc", ())]
            message = _printable(error.get("msg", ""))
            if error.get("type") == "union_tag_invalid":
                message = _TAG.sub("Input tag found using", message)
            details.append({"loc": loc, "type": error.get("type"), "message": message[:500]})
    return details


#: The only message of pydantic that repeats what the client sent.
_TAG = re.compile(r"^Input tag '.*?' found using(?= .* does not match any of the expected tags)", re.DOTALL)


def _printable(value: Any) -> str:
    # Half of a surrogate pair cannot be sent; a decoder of the user's own may have let one in.
    return str(value).encode("utf-8", "replace").decode()


def error_from_dependency(error: Exception) -> ConsumerError | None:
    """The ``ConsumerError`` that says what FastAPI's own exceptions say, or ``None`` for any other exception."""
    if isinstance(error, HTTPException | StarletteHTTPException):
        return http_error(error.status_code, error.detail, error.headers)
    if isinstance(error, RequestValidationError | WebSocketRequestValidationError):
        return InvalidData(details=error_details(error.errors()))
    return None
