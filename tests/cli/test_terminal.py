"""``connect`` in a terminal: typed into a pseudo-terminal, as a person would."""

import os
import pty
import re
import select
import signal
import stat
import struct
import subprocess
import sys
import time

import pytest

from tests.cli.conftest import PATIENCE, ROOT

fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|\][^\x07]*\x07|[=>])")


class Silence(AssertionError):
    """It shows nothing more."""


class Typist:
    """A program in a terminal of 100 columns: what it shows, and what is typed into it."""

    def __init__(self, arguments, environment, folder):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastapi_consumers", *arguments], cwd=folder, env=environment,
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.screen = ""
        self._seen = 0

    def expect(self, text, patience=PATIENCE):
        """Read on until this has been shown, after what was expected before."""
        deadline = time.monotonic() + patience
        while (found := self.screen.find(text, self._seen)) < 0:
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise Silence(f"it never showed {text!r}; it showed:\n{self.screen[self._seen :]}")
            try:
                block = os.read(self._master, 65536)
            except OSError:  # What Linux says when nobody has the other end any more.
                block = b""
            assert block, f"it ended, and had not shown {text!r}, but:\n{self.screen[self._seen :]}"
            self.screen += _ESCAPES.sub("", block.decode(errors="replace"))
        self._seen = found + len(text)

    def type(self, text):
        os.write(self._master, text.encode())

    def leave(self, text):
        """Ctrl-D, until this is shown: between two lines the terminal itself takes it, and forgets it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.type("\x04")
            try:
                return self.expect(text, 1.0)
            except Silence:
                if time.monotonic() > deadline:
                    raise

    def wait(self):
        """The exit code. What it still shows is read, or it could not end."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self._master], [], [], 0.05)[0]:
                try:
                    self.screen += _ESCAPES.sub("", os.read(self._master, 65536).decode(errors="replace"))
                except OSError:
                    break
        return self.process.wait(PATIENCE)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._master)


@pytest.fixture
def start(command_environment, tmp_path):
    typists = []

    def start(*arguments, **environment):
        paths = f"{command_environment['PYTHONPATH']}{os.pathsep}{ROOT}"
        # Nobody answers when the program asks where the cursor is.
        own = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": paths}
        typists.append(Typist(arguments, {**command_environment, **own, **environment}, tmp_path))
        return typists[-1]

    yield start
    for typist in typists:
        typist.close()


def test_actions_are_completed_answers_are_shown_and_lines_are_remembered(start, url, tmp_path):
    typist = start("connect", f"{url}/room/tty", "--app", "tests.cli.app:app")
    typist.expect("Ctrl-D leaves.")
    typist.type("sa\t")
    typist.expect("say")
    typist.type("te\t")
    typist.expect("text=")
    typist.type("hello\r")
    typist.expect('-> {"action": "say", "request_id": 1, "data": {"text": "hello"}}')
    typist.expect('said room.tty @1 {"text": "hello"}')
    typist.expect("#1 say ok")
    typist.type("say\x03")  # Ctrl-C gives up the line, not the program.
    typist.type("authenticate token=t-secret\r")
    typist.expect("#2 authenticate ")
    typist.type("/nothing\r")
    typist.expect("There is no /nothing")
    typist.type("/actions\r")
    typist.expect("say text=… loud=…  Tell everybody.")
    typist.type("/reconnect\r")
    typist.expect("connected again to")
    typist.expect("recovering what was missed")
    typist.leave("closed: 1000")
    assert typist.wait() == 0

    [file] = tmp_path.rglob("connect_history")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = file.read_text()
    assert "+say text=hello\n" in kept
    assert "secret" not in kept


def test_what_was_typed_before_is_there_again_and_a_server_that_closes_ends_it(start, url, tmp_path):
    folder = tmp_path / "fastapi-consumers"
    folder.mkdir()
    (folder / "connect_history").write_text("\n# then\n+sum_up a=20 b=22\n")
    typist = start("connect", f"{url}/room/tty2", NO_COLOR="1")
    typist.expect("Ctrl-D leaves.")
    typist.type("\x1b[A\r")
    typist.expect("#1 sum_up ok 42")
    typist.type("su\t")  # Learned from the answer.
    typist.expect("sum_up")
    typist.type(" a=1\r")
    typist.expect("#2 sum_up ok 1")
    typist.type("nonsense {\r")
    typist.expect("Expected JSON or name=value")
    typist.type("close code=4403\r")
    typist.expect("closed: 4403 on_request")
    assert typist.wait() == 1


def test_one_that_cannot_connect_says_so_and_leaves(start):
    typist = start("connect", "ws://127.0.0.1:1/", "--history-file", "")
    typist.expect("Nothing listens at ws://127.0.0.1:1/")
    assert typist.wait() == 1
