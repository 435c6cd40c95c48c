"""Whose connection it is, and for how long: from the handshake, from the first message, and refreshed in band."""

import copy
from collections.abc import Iterable
from functools import partial
from typing import Any, NoReturn

from .addressing import USER, token_topic
from .authentication import (
    BaseAuthentication,
    Lifetime,
    authenticate_with,
    invalid,
    is_authenticated,
    known_pair,
    lifetime_of,
)
from .connection import Connection
from .early import Early
from .exceptions import InvalidFrame, NotAuthenticated, PermissionDenied, StopConsumer
from .guessing import Guesses
from .identity import ANONYMOUS, user_id
from .inbox import Disconnected
from .messages import Request
from .permissions import check_permissions
from .permitting import check_groups_again
from .stepping import settled
from .texts import gettext_lazy as _
from .throttling import check_throttles
from .types import CloseCode
from .working import Interrupted


async def identify(consumer: Any, connection: Connection) -> None:
    """Ask the authentications whose handshake it is, and count it. What comes for its user waits from here on.

    Raises what they raise, for a credential that has ended, and ``Throttled``.
    """
    throttles, buckets = connection.plan.connection_throttles, connection.consumers.buckets
    if not throttles:
        if await _knows(connection):
            await _join_own_topics(connection)
        return
    guesses = Guesses(connection)
    await guesses.wait()
    try:
        async with guesses:
            is_known = await _knows(connection)
        if is_known:
            await _join_own_topics(connection)
    except Exception:
        # A handshake it was all the same, of somebody unknown at this address.
        await check_throttles(throttles, consumer, None, buckets)
        raise
    if is_authenticated(connection.user):
        # Others may have been wrong meanwhile, all at once in many processes.
        await guesses.check()
    await check_throttles(throttles, consumer, None, buckets)


async def _knows(connection: Connection) -> bool:
    """Ask the authentications. Whether there is anything to reach the connection by."""
    user, auth = await authenticate_with(connection.plan.authentications, connection)
    _take(connection, user, auth, connection.lifetime if auth is None else _lifetime(connection, auth))
    return user is not ANONYMOUS or auth is not None


async def _join_own_topics(connection: Connection) -> None:
    """Make the connection reachable by its user and by its token. Neither is a group, and neither counts as one.

    It is done as soon as they are known, so that what closes these closes a handshake too that is not through yet.
    """
    if is_authenticated(connection.user) and (key := user_id(connection.user)) is not None:
        connection.early = Early(connection)
        connection.member.max_topics += 1
        await connection.consumers.hub.join(USER + str(key), connection.member)
    await _join_token(connection, connection.lifetime.token_id)


async def wait_for_token(consumer: Any, connection: Connection) -> None:
    """Accept the socket, and read it until a message has brought a good token and the permissions have agreed.

    Everything else is refused. Raises ``StopConsumer`` once the client has been told why it is not let in; when the
    time is over the connection is interrupted.
    """
    deadlines, timeout = connection.consumers.deadlines, connection.plan.limits.authentication_timeout
    close = partial(connection.shut, CloseCode.NOT_AUTHENTICATED, "authentication_timeout")
    deadlines.set(connection, deadlines.clock() + timeout, close)
    connection.awaits_token = True
    try:
        await connection.accept()
        request = await _first_request(consumer, connection)
        try:
            await connection.work(_let_in(consumer, connection, request.data["token"]))
        except (Disconnected, Interrupted, StopConsumer):
            raise
        except Exception as failure:
            await _turn_away(connection, request, failure)
    finally:
        connection.awaits_token = False
        deadlines.discard(connection)
    await connection.dispatcher.answer(request, _told(connection))


async def _first_request(consumer: Any, connection: Connection) -> Request:
    refused, limit = 0, connection.plan.limits.max_bad_frames
    while True:
        request = await _read(consumer, connection, await connection.inbox.get())
        if request.action == "authenticate" and request.error is None:
            return request
        if request.action == "authenticate" or isinstance(request.error, InvalidFrame):
            refusal: Any = request.error
        else:
            refusal = NotAuthenticated()
        refused += 1
        if refused > limit:
            await connection.close(CloseCode.BAD_FRAMES, "bad_frames")
            raise StopConsumer
        await connection.dispatcher.answer(request, refusal)


async def _read(consumer: Any, connection: Connection, frame: str | bytes) -> Request:
    reader = connection.plan.token_reader(connection.subprotocol)
    if isinstance(frame, str) is not reader.takes_text:
        return Request(None, error=NotAuthenticated())
    if isinstance(frame, bytes) or "decode_json" not in connection.plan.options.overridden:
        return reader.read(frame)
    try:
        return reader.read_content(await settled(consumer.decode_json(frame)))
    except (ValueError, RecursionError, InvalidFrame):
        return Request(None, error=InvalidFrame(_("The frame could not be decoded.")))


async def _let_in(consumer: Any, connection: Connection, token: str) -> None:
    waiting = (way for way in connection.plan.authentications if way.waits_for_message)
    guesses = Guesses(connection)
    await guesses.wait()
    async with guesses:
        user, auth = await _judge(connection, token, waiting)
    await guesses.check()
    _take(connection, user, auth, _lifetime(connection, auth))
    await _join_own_topics(connection)
    if connection.plan.permissions:
        await check_permissions(connection.plan.permissions, consumer)


async def _turn_away(connection: Connection, request: Request, failure: Exception) -> NoReturn:
    error = await connection.dispatcher.answer(request, failure)
    if error is not None:
        await connection.close(error.close_code, error.code)
    raise StopConsumer


async def refresh(consumer: Any, token: str) -> dict[str, Any]:
    """Put a new credential of the same user in the place of the old one, and ask the permissions again.

    Raises ``NotAuthenticated`` for one that is not good, ``PermissionDenied`` with the code ``user_changed`` for
    another user's, and for any if the connection has none, ``Throttled`` if too many were wrong; then nothing has
    changed. What the permissions raise closes the socket, and so does a cancellation while they are asked. A group that
    the client joined later, and may not be in with this credential, is left, and the client is told.
    """
    connection: Connection = consumer.connection
    if not is_authenticated(connection.user):
        raise _user_changed()  # Whatever the token: it would be told which ones are good, as often as it asks.
    takers = (way for way in connection.plan.authentications if way.takes_tokens)
    guesses = Guesses(connection)
    await guesses.wait()
    async with guesses:
        user, auth = await _judge(connection, token, takers)
        new, old = _lifetime(connection, auth), connection.lifetime
        if not _is_same(user, connection.user):
            raise _user_changed()  # A guess too: whoever has an account could look for the tokens of others.
    if new.token_id != old.token_id:
        await _join_token(connection, new.token_id)
    _take(connection, user, auth, new)
    is_judged = False
    try:
        if new.token_id != old.token_id and old.token_id is not None:
            connection.member.max_topics -= 1
            await connection.consumers.hub.leave(token_topic(old.token_id), connection.member)
        await check_permissions(connection.plan.permissions, consumer)
        await check_groups_again(consumer)
        is_judged = True
    except Exception as failure:
        # A copy: a permission, or a handler, may raise one and the same error each time.
        error = copy.copy(await connection.dispatcher.explain(failure, "a permission"))
        error.close = is_judged = True
        raise error from None
    finally:
        if not is_judged:
            # Its client has cancelled it: nobody has said what the new credential allows, and the old one is gone.
            connection.shut(CloseCode.NOT_AUTHENTICATED, "cancelled")
    return _told(connection)


async def _judge(connection: Connection, token: str, authentications: Iterable[BaseAuthentication]) -> tuple[Any, Any]:
    """``(user, auth)`` from the first that knows the token. Raises the first refusal if none does."""
    refusal: NotAuthenticated | None = None
    for authentication in authentications:
        try:
            result = await settled(authentication.authenticate_token(token, connection))
        except NotAuthenticated as error:
            refusal = refusal or error
        else:
            if result is not None:
                user, auth = known_pair(authentication, result, "authenticate_token")
                if is_authenticated(user):
                    return user, auth
    raise refusal or invalid()


def _lifetime(connection: Connection, auth: Any) -> Lifetime:
    """Raises ``NotAuthenticated`` if the credential has ended already."""
    return lifetime_of(auth, connection.consumers.expiries.clock)


def _take(connection: Connection, user: Any, auth: Any, lifetime: Lifetime) -> None:
    """From here on it is this user's, until the credential ends."""
    expiries, former = connection.consumers.expiries, connection.lifetime
    connection.lifetime = lifetime
    connection.user = connection.scope["user"] = user
    connection.auth = auth
    if auth is not None or "auth" in connection.scope:
        connection.scope["auth"] = auth
    if lifetime.expires_at is None:
        if former.expires_at is not None:
            expiries.discard(connection)
    else:
        ends = lifetime.expires_at + connection.plan.limits.authentication_grace
        expiries.set(connection, ends, partial(connection.shut, CloseCode.NOT_AUTHENTICATED, "expired"))


async def _join_token(connection: Connection, token_id: str | None) -> None:
    if token_id is None:
        return
    connection.member.max_topics += 1
    try:
        await connection.consumers.hub.join(token_topic(token_id), connection.member)
    except BaseException:
        connection.member.max_topics -= 1
        raise


def _is_same(user: Any, other: Any) -> bool:
    if not is_authenticated(other):
        return False
    key = user_id(user)
    if key is None:
        # Such as objects that nobody gave an id: it can only be the very same user.
        return bool(user == other)
    # As text, like the topics that users are reached by: "7" in the claims of a token is 7 in a session.
    return str(key) == str(user_id(other))


def _user_changed() -> PermissionDenied:
    return PermissionDenied(_("A connection keeps its user; open another one."), code="user_changed")


def _told(connection: Connection) -> dict[str, Any]:
    """What the client is told of its credential: who it is, and the seconds for which it is good."""
    lifetime: Lifetime = connection.lifetime
    left = None
    if lifetime.expires_at is not None:
        left = round(max(0.0, lifetime.expires_at - connection.consumers.expiries.clock()), 3)
    return {"user": user_id(connection.user), "expires_in": left}
