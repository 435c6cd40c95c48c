"""The page of the notifications: two devices of one person, a real broker, and a worker in a process of its own."""

import asyncio
import uuid
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.examples.serving import PATIENCE, Window, served, windows

pytestmark = [pytest.mark.browser]


async def log_in(window: Window) -> None:
    await window.page.get_by_label("Name").fill("ann")
    await window.page.get_by_label("Password").fill("tea")
    await window.page.get_by_role("button", name="Log in").click()
    await expect(window.page.locator("#state")).to_have_text("Connected")


async def test_a_job_tells_of_its_end_on_all_devices_and_after_a_reload(
    chromium: str, tmp_path: Path, valkey_url: str
) -> None:
    url = f"{valkey_url}?prefix={uuid.uuid4().hex}:"
    with served("examples.notifications.app", tmp_path, BROKER_URL=url) as port:
        async with windows(chromium, port) as house:
            desk = await house.open()
            phone = await house.open(screen="phone", scheme="dark")
            for window in (desk, phone):
                await window.look()
                await log_in(window)

            await desk.page.get_by_label("Count the primes").select_option("10000000")
            await desk.page.get_by_role("button", name="Start").click()
            for window in (desk, phone):
                notes = window.page.locator("#notes li")
                await expect(notes).to_have_count(1)
                await expect(notes).to_contain_text("There are 664,579 primes below 10,000,000.")
                await expect(window.page.locator("#unread")).to_have_text("1 new")
                await expect(window.page.locator("#running li")).to_have_count(0)
                await window.look()
            await desk.page.reload()
            await expect(desk.page.locator("#unread")).to_have_text("1 new")
            await phone.page.get_by_role("button", name="Mark as read").click()
            for window in (desk, phone):
                await expect(window.page.locator("#unread")).to_be_hidden()

            await desk.page.get_by_label("Count the primes").select_option("1000000000")
            await desk.page.get_by_role("button", name="Start").click()
            await expect(phone.page.locator("#running output")).to_contain_text("%")
            await phone.look()
            await desk.page.get_by_role("button", name="Log out", exact=True).click()
            await expect(desk.page.get_by_role("heading", name="Log in")).to_be_visible()
            # The other device stays; who ends all logins, ends this one's new one too.
            await expect(phone.page.locator("#state")).to_have_text("Connected")
            await log_in(desk)
            await phone.page.get_by_role("button", name="Log out everywhere").click()
            for window in (desk, phone):
                await expect(window.page.get_by_role("heading", name="Log in")).to_be_visible()
                await expect(window.page.locator("#home")).to_be_hidden()


async def test_the_page_renews_its_token_before_that_ends(chromium: str, tmp_path: Path, valkey_url: str) -> None:
    url = f"{valkey_url}?prefix={uuid.uuid4().hex}:"
    with served("examples.notifications.app", tmp_path, BROKER_URL=url) as port:
        async with windows(chromium, port) as house:
            desk = await house.open()
            await desk.page.clock.install()
            await desk.page.reload()
            frames: list[str] = []
            desk.page.on("websocket", lambda found: found.on("framesent", lambda frame: frames.append(str(frame))))
            await log_in(desk)
            assert not [frame for frame in frames if "authenticate" in frame]
            for _ in range(2):
                frames.clear()
                async with desk.page.expect_response("**/token") as answer:
                    await desk.page.clock.fast_forward("12:30")
                token = (await (await answer.value).json())["token"]
                # The answer of the server is waited for by the page, so that it renews again, and stays.
                await expect(desk.page.locator("#state")).to_have_text("Connected")
                async with asyncio.timeout(PATIENCE):
                    while True:
                        if [frame for frame in frames if token in frame and '"authenticate"' in frame]:
                            break
                        await asyncio.sleep(0.01)
