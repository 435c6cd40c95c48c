"""``connect``: a client of the native protocol, for people in a terminal and for programs in a pipe."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ..commands import needs
from .catalog import AppActions, Catalog
from .lines import frame_of
from .target import Target, check_headers, check_subprotocols, check_url, token_header, token_offer


@click.command(short_help="Talk to a consumer, by hand or from a program.")
@click.argument("url", metavar="URL")
@click.option(
    "--token",
    envvar="FASTAPI_CONSUMERS_TOKEN",
    show_envvar=True,
    help="Sent as a bearer token. Others on this machine can read what stands on a command line: use the variable.",
)
@click.option(
    "--token-in",
    type=click.Choice(["header", "subprotocol"]),
    default="header",
    show_default=True,
    help="Where the token is put: into Authorization, or among the subprotocols as browsers do.",
)
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the handshake.")
@click.option("--cookie", "cookies", multiple=True, metavar="NAME=VALUE", help="A cookie of the handshake.")
@click.option("--subprotocol", "subprotocols", multiple=True, help="Offered in place of fc.v1.json.")
@click.option("--origin", help="Pretend to be a page of this origin, such as https://example.com.")
@click.option("--insecure", is_flag=True, help="Take any certificate of wss://.")
@click.option("--app", metavar="MODULE:APP", help="The application's code, here, for the completion of its actions.")
@click.option("--factory", is_flag=True, help="APP is a function that makes the application.")
@click.option("--json", "as_json", is_flag=True, help="Lines are frames, in both directions, for programs.")
@click.option("--raw", is_flag=True, help="Lines are sent as they are, for consumers without actions.")
@click.option(
    "--reconnect/--no-reconnect",
    default=None,
    help="Come back when the connection is lost, and recover what was missed. By default in a terminal only.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="In a pipe: how long to listen after the last answer; inf for ever.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="For the handshake, and in a pipe for the answers after the last line.",
)
@click.option("--color/--no-color", default=None, help="By default in a terminal, unless NO_COLOR is set.")
@click.option(
    "--history-file",
    metavar="PATH",
    help="Where what you type is remembered, '' for nowhere. By default in ~/.local/state/fastapi-consumers.",
)
@click.pass_context
def connect(
    context: click.Context,
    url: str,
    token: str | None,
    token_in: str,
    headers: Sequence[str],
    cookies: Sequence[str],
    subprotocols: Sequence[str],
    origin: str | None,
    insecure: bool,
    app: str | None,
    factory: bool,
    as_json: bool,
    raw: bool,
    reconnect: bool | None,
    wait: float,
    timeout: float,
    color: bool | None,
    history_file: str | None,
) -> None:
    """Talk to a consumer at URL, such as ws://127.0.0.1:8000/chat/lobby.

    In a terminal you type actions, and see answers and events as they come. In a pipe each line of the standard input
    is sent, all answers are waited for, and then the socket is closed.

    \b
      say text=hello                 call the action say with {"text": "hello"}
      say {"text": "hello there"}    the same with JSON
      {"action": "say", …}           a frame, sent as it is
      /help                          what else can be typed, in a terminal

    \b
    With --json each line is a frame and goes out as it is; each frame that comes is one line of the standard output.
      echo '{"action": "say", "request_id": 1, "data": {"text": "hi"}}' | fastapi-consumers connect --json URL
      fastapi-consumers connect --json --wait inf --reconnect URL </dev/null | jq .

    \b
    Exit codes: 0 all went well; 1 the socket could not be opened, was closed by the server with another code than
    1000, or did not answer; 2 something on the command line or in a line cannot be meant; 3 a request in a pipe was
    answered with an error.
    """
    if as_json and raw:
        raise click.UsageError("With --json lines are sent as they are already: leave out --raw.")
    target = _target(url, token, token_in, headers, cookies, subprotocols, origin, insecure, timeout)
    with needs("cli", "websockets"):
        from .handshake import HandshakeFailed
        from .piped import converse
        from .session import Session
        from .text import Piece, styled
        from .views import JSONView, PeopleView
    interactive = not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    if color is None:
        color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    actions = asyncio.run(AppActions(app, target.path, factory=factory).actions()) if app is not None else ()

    def write(pieces: Sequence[Piece]) -> None:
        click.echo(styled(pieces, bool(color)), color=color)

    def tell(pieces: Sequence[Piece]) -> None:
        click.echo(styled(pieces, bool(color) and sys.stderr.isatty()), err=True)

    async def run() -> int:
        if not interactive:
            view = JSONView() if as_json else PeopleView(write, tell, raw=raw)
            session = Session(target, view, reconnect=bool(reconnect))
            to_frame = (lambda line, request_id: line) if as_json or raw else frame_of
            return await converse(session, sys.stdin.fileno(), to_frame, wait=wait, timeout=timeout)
        with needs("cli", "prompt_toolkit"):
            from .terminal import Terminal, default_history_file
        file = default_history_file() if history_file is None else Path(history_file) if history_file else None
        people = PeopleView(lambda pieces: terminal.show(pieces), lambda pieces: terminal.show(pieces), raw=raw)
        session = Session(target, people, reconnect=reconnect is not False)
        catalog = Catalog(actions, session.known_actions)
        terminal = Terminal(session, catalog, history_file=file, raw=raw, color=bool(color))
        return await terminal.run()

    try:
        context.exit(asyncio.run(run()))
    except HandshakeFailed as error:
        if as_json:
            JSONView.tell(error.as_dict())
            context.exit(1)
        raise
    except KeyboardInterrupt:
        context.exit(130)


def _target(
    url: str,
    token: str | None,
    token_in: str,
    headers: Sequence[str],
    cookies: Sequence[str],
    subprotocols: Sequence[str],
    origin: str | None,
    insecure: bool,
    timeout: float,
) -> Target:
    all_headers, offers = check_headers(headers, cookies), check_subprotocols(subprotocols)
    if token is not None:
        if token_in == "subprotocol":
            offers.append(token_offer(token))
        else:
            all_headers.append(token_header(token))
    return Target(check_url(url), tuple(all_headers), tuple(offers), origin, insecure, timeout)
