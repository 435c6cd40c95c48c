"""``demo``: a small chat that runs from the installed package."""

import errno
import json
import socket

import click

from ..commands import json_option, needs


@click.command(short_help="Start a small chat, to see what consumers do.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@json_option
def demo(host: str, port: int, as_json: bool) -> None:
    """Start a small chat, to see what consumers do.

    It keeps everything in memory, until Ctrl-C. Open its page in two windows, or talk to it from another terminal:

    \b
      fastapi-consumers demo
      fastapi-consumers connect 'ws://127.0.0.1:8000/ws/lobby?name=Ann'

    The repository has a larger one, with three rooms and a history on disk: examples/chat.
    """
    with needs("server", "uvicorn", "websockets"):
        import uvicorn
        import websockets  # noqa: F401  uvicorn speaks WebSocket by this, and starts without it

    from . import app

    listening = _listen(host, port)
    shown, port = f"[{host}]" if ":" in host else host, listening.getsockname()[1]
    page, endpoint = f"http://{shown}:{port}/", f"ws://{shown}:{port}/ws/lobby"
    server = uvicorn.Server(uvicorn.Config(app.app, log_level="warning", ws="websockets-sansio"))
    if as_json:
        click.echo(json.dumps({"url": page, "websocket": endpoint}))
    else:
        click.echo(f"A chat is at {page}: open it in two windows.")
        click.echo(f"Or: fastapi-consumers connect '{endpoint}?name=Ann' --app {app.__name__}:app")
        click.echo("Ctrl-C stops it.")
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens already: what is printed next is true. Raises ``click.ClickException``."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise click.ClickException(f"{host} is no address to listen on: {error.strerror}.") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            text = f"Port {port} is taken by another program: choose one with --port, 0 for any that is free."
        else:
            text = f"Cannot listen on {host} port {port}: {error.strerror}."
        raise click.ClickException(text) from None
    return listening
