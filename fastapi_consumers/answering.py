"""What an HTTP endpoint, or a WebSocket endpoint that is no consumer, answers to a ``ConsumerError``."""

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from .codecs import encode_json
from .denial import can_deny
from .exceptions import ConsumerError
from .localization import Localization
from .runtime import Consumers
from .types import close_reason


async def answer_consumer_error(connection: HTTPConnection, error: Exception) -> Response | None:
    """Handles a ``ConsumerError`` outside of consumers: HTTP is answered in JSON, a socket refused or closed."""
    assert isinstance(error, ConsumerError)
    if not isinstance(connection, WebSocket):
        return _response(connection, error)
    if connection.application_state is WebSocketState.CONNECTING and can_deny(connection.scope):
        await connection.send_denial_response(_response(connection, error))
    elif connection.application_state is not WebSocketState.DISCONNECTED:
        await connection.close(error.close_code, close_reason(error.code))
    return None


def _response(connection: HTTPConnection, error: ConsumerError) -> Response:
    consumers = getattr(getattr(connection.scope.get("app"), "state", None), "consumers", None)
    localization = consumers.defaults.localization if isinstance(consumers, Consumers) else Localization()
    told, headers = localization.told_by_http(connection, error)
    return Response(encode_json({"error": told.body()}), told.http_status, headers, "application/json")


answer_consumer_error.is_default = True  # type: ignore[attr-defined]  # a mark on the function
