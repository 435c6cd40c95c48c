"""axe-core, which looks at a page as an auditor of its accessibility would."""

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page


async def obstacles(page: Page) -> list[str]:
    """All that it finds, however small: what, and the first elements that have it."""
    found = await Axe().run(page)
    return [
        f"{each['impact']}: {each['help']}: {[node['html'] for node in each['nodes']][:3]}"
        for each in found.response["violations"]
    ]
