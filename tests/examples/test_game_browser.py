"""The page of the game, played by two in a real browser."""

from pathlib import Path

import pytest
from playwright.async_api import Locator, expect

from tests.examples.serving import Window, served, windows

pytestmark = [pytest.mark.browser]


async def sit(window: Window, name: str) -> None:
    await window.page.get_by_label("Your name").fill(name)
    await window.page.get_by_role("button", name="Play").click()


def turn(window: Window) -> Locator:
    return window.page.locator("#turn")


async def play(window: Window, square: int) -> None:
    await expect(turn(window)).to_have_text("Your turn")
    # The page lets everything be clicked, and says so to those who cannot see it: aria-disabled.
    await window.page.locator("#board button").nth(square).click()


async def test_two_play_a_third_waits_and_a_reload_loses_nothing(chromium: str, tmp_path: Path) -> None:
    with served("examples.game.app", tmp_path) as port:
        async with windows(chromium, port) as house:
            ada = await house.open("/#green")
            await ada.look()
            await sit(ada, "Ada")
            await expect(turn(ada)).to_have_text("Waiting for somebody to play with")
            bob = await house.open("/#green", screen="phone", scheme="dark")
            await sit(bob, "Wolfeschlegelsteinhausenberger")
            await expect(turn(bob)).to_have_text("Ada is thinking")
            cleo = await house.open("/#green", screen="phone")
            await sit(cleo, "Cleo")
            await expect(cleo.page.get_by_role("heading", name="Two are playing here already")).to_be_visible()
            await cleo.look()

            await play(ada, 0)
            await play(bob, 3)
            await bob.page.locator("#board button").nth(4).click(force=True)
            await expect(bob.page.get_by_role("alert")).to_have_text("It is not your turn.")
            await bob.look()
            await ada.page.reload()
            await play(ada, 1)
            await play(bob, 4)
            await play(ada, 2)
            await expect(turn(ada)).to_have_text("You have won")
            await expect(turn(bob)).to_have_text("Ada has won")
            await ada.look()
            for window in (bob, ada):
                await window.page.get_by_role("button", name="Play again").click()
            await play(bob, 8)
            await expect(turn(ada)).to_have_text("Your turn")

            await bob.page.get_by_role("button", name="Leave").click()
            await expect(bob.page.get_by_role("heading", name="You have left")).to_be_visible()
            await expect(turn(cleo)).to_be_visible()
            await play(ada, 4)
