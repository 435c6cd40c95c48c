"""``demo``: as a program, and its page in a browser."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from fastapi_consumers.cli.demo.app import app
from tests.accessibility import obstacles
from tests.cli.conftest import PATIENCE, serving


def test_it_says_where_it_is_serves_its_page_and_stops_at_ctrl_c(command_environment, tmp_path, call):
    command = [sys.executable, "-m", "fastapi_consumers", "demo", "--port", "0", "--json"]
    with subprocess.Popen(
        command, env=command_environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            for name in ("", "page.js", "page.css"):
                with urllib.request.urlopen(told["url"] + name, timeout=PATIENCE) as answer:
                    assert answer.status == 200
            result = call("connect", told["websocket"] + "?name=Ann", input="add a=1\ncountdown start=1\nsay text=hi")
            assert result.code == 0
            assert "#1 add ok 2" in result.out
            assert "#2 countdown partial 1" in result.out
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "", "")
    assert list(tmp_path.iterdir()) == [tmp_path / "standard input"]  # It keeps nothing.


def test_a_port_that_is_taken_is_told(call):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = call("demo", "--port", str(port))
    assert (result.code, result.out) == (1, "")
    assert f"Port {port} is taken" in result.err


@pytest.mark.parametrize(("host", "text"), [("203.0.113.1", "Cannot listen on"), ("no host", "is no address")])
def test_an_address_that_is_not_ours_is_told(call, host, text):
    result = call("demo", "--host", host, "--port", "0")
    assert (result.code, result.out) == (1, "")
    assert text in result.err


@pytest.mark.browser
async def test_the_page_shows_who_is_there_and_what_is_said(chromium):
    playwright = pytest.importorskip("playwright.async_api")
    with serving(app) as port:
        async with playwright.async_playwright() as running:
            browser = await running.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=120_000)
            pages = []
            for name in ("Ann", "Bob"):
                page = await browser.new_page()
                page.on("dialog", lambda dialog, name=name: dialog.accept(name))
                await page.goto(f"http://127.0.0.1:{port}/")
                await playwright.expect(page.locator("#state")).to_have_text(f"as {name}", timeout=PATIENCE * 1000)
                pages.append(page)
            for page in pages:
                await playwright.expect(page.locator("#people")).to_contain_text("Bob", timeout=PATIENCE * 1000)
            ann, bob = pages
            await ann.fill("#text", "<b>hi</b>")
            await ann.press("#text", "Enter")
            await playwright.expect(bob.locator("#log li")).to_have_text("Ann: <b>hi</b>", timeout=PATIENCE * 1000)
            await bob.reload()
            await playwright.expect(bob.locator("#log li")).to_have_text("Ann: <b>hi</b>", timeout=PATIENCE * 1000)
            assert await obstacles(ann) == []
            await browser.close()
