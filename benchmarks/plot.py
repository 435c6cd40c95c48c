"""Bars as an SVG, written by hand: readable on light and on dark pages, and by who cannot see it."""

from __future__ import annotations

from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, COLUMNS = 960, 2
#: Of a panel: names and bars; figures stand behind these.
NAMES, BARS = 230, 170
LINE, HEAD, FOOT = 17, 44, 22

#: An image in a page does not see the colours of the page: it has a ground of its own.
STYLE = """
    svg { color: #1f2328; font: 12px system-ui, sans-serif; }
    text { fill: currentColor; }
    .ground { fill: #ffffff; }
    .bar { fill: #a3adb8; }
    .ours { fill: #1c7ed6; }
    .one, .whisker, .cap { stroke: currentColor; }
    .one { stroke-dasharray: 3 3; }
    .title, .strong { font-weight: 600; }
    .faint { opacity: 0.75; }
    .end { text-anchor: end; }
    @media (prefers-color-scheme: dark) {
      svg { color: #e6edf3; }
      .ground { fill: #161b22; }
      .bar { fill: #6e7985; }
      .ours { fill: #4dabf7; }
    }
"""


class Bar(NamedTuple):
    name: str
    #: Of all rounds.
    median: float
    lowest: float
    highest: float
    is_ours: bool = False


class Panel(NamedTuple):
    title: str
    subtitle: str
    bars: list[Bar]

    @property
    def height(self) -> int:
        return HEAD + LINE * len(self.bars) + FOOT


def plot(title: str, description: str, panels: list[Panel], base: str) -> str:
    """``base``: whom the ratios are to, whose line is at 1."""
    rows = [panels[at : at + COLUMNS] for at in range(0, len(panels), COLUMNS)]
    drawn, top = [], 8
    for row in rows:
        drawn += [_panel(panel, 16 + column * WIDTH // COLUMNS, top, base) for column, panel in enumerate(row)]
        top += max(panel.height for panel in row)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}"'
        ' role="img" aria-labelledby="title description">\n'
        f'  <title id="title">{escape(title)}</title>\n'
        f'  <desc id="description">{escape(description)}</desc>\n'
        f"  <style>{STYLE}  </style>\n"
        f'  <rect class="ground" width="{WIDTH}" height="{top}"/>\n' + "".join(drawn) + "</svg>\n"
    )


def _panel(panel: Panel, left: int, top: int, base: str) -> str:
    largest = max([1.2, *(bar.highest for bar in panel.bars)])
    scale = BARS / largest
    start = left + NAMES
    one, end = start + scale, top + HEAD + LINE * len(panel.bars)
    parts = [
        f'<text class="title" x="{left}" y="{top + 14}">{escape(panel.title)}</text>',
        f'<text class="faint" x="{left}" y="{top + 30}">{escape(panel.subtitle)}</text>',
    ]
    for number, bar in enumerate(panel.bars):
        y = top + HEAD + LINE * number
        middle = y + LINE / 2 - 1
        strong = " strong" if bar.is_ours else ""
        told = f"{bar.name}: {bar.median:.2f} ({bar.lowest:.2f} to {bar.highest:.2f})"
        whisker = f"M{start + bar.lowest * scale:.1f} {middle}H{start + bar.highest * scale:.1f}"
        ends = "".join(f"M{start + at * scale:.1f} {middle - 3}v6" for at in (bar.lowest, bar.highest))
        parts += [
            f"<g><title>{escape(told)}</title>",
            f'<text class="end{strong}" x="{start - 6}" y="{middle + 4}">{escape(bar.name)}</text>',
            f'<rect class="{"ours" if bar.is_ours else "bar"}" x="{start}" y="{y + 1}"'
            f' width="{max(0.5, bar.median * scale):.1f}" height="{LINE - 5}"/>',
            f'<path class="whisker" d="{whisker}{ends}"/>',
            f'<text class="{strong.strip() or "faint"}" x="{start + BARS + 8}" y="{middle + 4}">'
            f"{bar.median:.2f}</text></g>",
        ]
    parts += [
        f'<path class="one" d="M{one:.1f} {top + HEAD - 4}V{end}"/>',
        f'<text class="faint" x="{one + 3:.1f}" y="{end + 12}">{escape(base)}</text>',
    ]
    return "".join(f"  {part}\n" for part in parts)
