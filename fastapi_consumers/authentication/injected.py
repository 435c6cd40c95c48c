"""Users found by a FastAPI dependency, the same that HTTP endpoints have."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from ..dependencies import Dependencies, is_security_scheme
from .base import BaseAuthentication, known_pair


class DependsAuthentication(BaseAuthentication):
    """Asks a FastAPI dependency for the user: ``DependsAuthentication(get_current_user)``.

    It may have dependencies of its own, such as ``OAuth2PasswordBearer``, ``APIKeyHeader`` and ``HTTPBearer``. What
    takes a ``Request`` is given the handshake, which is an HTTP request of the method GET without a body. The app's
    ``dependency_overrides`` apply. What it opened with ``yield`` is closed before the socket is accepted.

    ``None`` passes on to the next authentication; an ``HTTPException`` refuses, as schemes without ``auto_error=False``
    do if there is nothing for them. A tuple of two is ``(user, auth)``.

    Raises ``TypeError`` for a dependency that takes a body, for one that mixes ``Request`` and ``WebSocket``, and for a
    bare security scheme, which finds a credential and verifies nothing.
    """

    def __init__(self, dependency: Callable[..., Any]) -> None:
        dependency = getattr(dependency, "dependency", dependency)
        if not callable(dependency):
            raise TypeError(f"{dependency!r} is no dependency; expected a function or another callable")
        if is_security_scheme(dependency):
            raise TypeError(
                f"{type(dependency).__name__} finds a credential and does not verify it: everybody would be let in. "
                "Expected a dependency that returns the user. Write a function that depends on it and looks the user up"
            )
        self._name = getattr(dependency, "__qualname__", type(dependency).__qualname__)
        self._dependencies = Dependencies.of_handshake(dependency)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name})"

    def get_security_schemes(self, token_keys: Any) -> Mapping[str, Mapping[str, Any]]:
        """Those of FastAPI's security schemes that the dependency depends on."""
        return {name: _from_openapi(scheme) for name, scheme in self._dependencies.security_schemes().items()}

    async def authenticate(self, connection: Any) -> tuple[Any, Any] | None:
        async with AsyncExitStack() as stack:
            values = await self._dependencies.solve(connection.websocket, stack, connection.scope.get("app"))
        result = values["result"]
        if result is None:
            return None
        is_pair = type(result) is tuple and len(result) == 2
        return known_pair(self, result if is_pair else (result, None))


def _from_openapi(scheme: Mapping[str, Any]) -> dict[str, Any]:
    """A Security Scheme Object of OpenAPI 3.1 as AsyncAPI 3.0 writes it."""
    found = dict(scheme)
    if found.get("type") == "apiKey":
        found["type"] = "httpApiKey"
    if "flows" in found:
        found["flows"] = {
            name: {("availableScopes" if key == "scopes" else key): value for key, value in flow.items()}
            for name, flow in found["flows"].items()
        }
    return found
