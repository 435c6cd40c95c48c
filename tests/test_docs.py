"""The documentation is true: its Python runs, its links lead somewhere.

The Python snippets of one file are run in order, as one module, whose ``test_*`` functions pytest runs as it runs any
other. HTML comments on the line above a snippet steer this:

- ``<!-- new file -->``: this snippet and those after it are a module of their own;
- ``<!-- skip: reason -->``: a fragment that cannot run.

A snippet below a line ``**name.py**`` is the whole text of that file. The pages of a folder are steps, in the order of
their names: the files of a step are there in those that follow, until one gives them another text. Each step's tests
run with its files.

A translated page shows the code of its original, to the letter, and runs only there. Tests compare the two, so that a
translation cannot fall behind in what it shows, says about names, or links to.
"""

import multiprocessing
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/**/*.md")
PAGES = sorted(page for pattern in FOLDERS for page in ROOT.glob(pattern))

CHINESE = ROOT / "docs/zh"
#: Each page in another language, and its original.
TRANSLATIONS = {ROOT / "README.zh-CN.md": ROOT / "README.md"} | {
    page: ROOT / "docs" / page.relative_to(CHINESE) for page in PAGES if page.is_relative_to(CHINESE)
}

FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)\n"
    r"(?P<body>.*?)"
    r"^(?P=indent)(?P=fence)`*$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"(?:<!-- *(?P<comment>new file|skip: *\S.*?) *-->|^\*\*(?P<file>\w+\.py)\*\*)\s*\Z", re.MULTILINE)
LINK = re.compile(
    r"!?\[[^\]]*\]\((?P<inline>[^)\s]+)[^)]*\)"
    r"|^\[[^\]]+\]: *(?P<reference>\S+)"
    r"|(?:href|src)=\"(?P<html>[^\"]+)\"",
    re.MULTILINE,
)


class Module(NamedTuple):
    page: Path
    line: int
    source: str
    file: str | None = None  # its name, where the page says one

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def modules_of(page: Path) -> list[Module]:
    """The page's snippets. Each keeps its line number, so that a traceback points into the page."""
    text = page.read_text(encoding="utf-8")
    found: list[Module] = []
    for match in FENCE.finditer(text):
        if match["info"].split(" ")[0].strip() not in ("python", "py"):
            continue
        mark = MARK.search(text[: match.start()])
        if mark and (mark["comment"] or "").startswith("skip"):
            continue
        line = text.count("\n", 0, match.start("body"))
        indent = len(match["indent"])
        body = "".join(row[indent:] if row.strip() else "\n" for row in match["body"].splitlines(keepends=True))
        if not found or mark:
            found.append(Module(page, line + 1, "", mark["file"] if mark else None))
        before = found[-1].source
        found[-1] = found[-1]._replace(source=before + "\n" * (line - before.count("\n")) + body)
    return found


#: Without those of translations: theirs are the same.
MODULES = [module for page in PAGES if page not in TRANSLATIONS for module in modules_of(page)]
SNIPPETS = {page: modules for page in PAGES if (modules := [m for m in MODULES if m.page == page and not m.file])}
TUTORIALS = sorted({module.page.parent for module in MODULES if module.file})

#: The files of one step have the names of those of the step before: each step imports its own.
STEPS = """
import sys

import pytest

def pytest_collectstart(collector):
    if isinstance(collector, pytest.Module):
        folder = collector.path.parent
        for file in folder.glob("*.py"):
            sys.modules.pop(file.stem, None)
        sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(folder))]
"""


#: A process that has imported what most pages do, and is forked for each: to start one for each took most of the time.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "fastapi.testclient", "fastapi_consumers.testing.plugin", "hypothesis"])


def run_pytest(folder: Path, output: Path) -> None:
    """In a process of its own."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    # What is imported already is no test, and need not be rewritten.
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    sys.exit(pytest.main([*options, f"--rootdir={ROOT}", "-c", str(ROOT / "pyproject.toml"), str(folder)]))


def run_tests(folder: Path, output: Path) -> None:
    """Run the modules of ``folder`` in a process of its own, so that what they leave behind goes with it."""
    process = FORKS.Process(target=run_pytest, args=(folder, output))
    process.start()
    try:
        process.join(200)
    finally:
        process.kill()
        process.join()
    no_tests = 5  # the modules were imported, and hold no test
    assert process.exitcode in (0, no_tests), output.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("page", SNIPPETS, ids=lambda page: str(page.relative_to(ROOT)))
def test_snippets_run(page: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    for module in SNIPPETS[page]:
        file = folder / f"test_{re.sub(r'[^a-zA-Z0-9]', '_', str(module))}.py"
        file.write_text(module.source, encoding="utf-8")
    run_tests(folder, tmp_path / "output")


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_each_step_of_a_tutorial_runs(tutorial: Path, tmp_path: Path) -> None:
    folder = tmp_path / "steps"
    folder.mkdir()
    (folder / "conftest.py").write_text(STEPS, encoding="utf-8")
    files: dict[str, str] = {}
    for page in sorted(tutorial.glob("*.md")):
        given = {module.file: module.source for module in MODULES if module.page == page and module.file}
        if not given:
            continue
        files |= given
        assert any(name.startswith("test_") for name in files), f"{page.name} tests nothing"
        (folder / page.stem).mkdir()
        for name, source in files.items():
            (folder / page.stem / name).write_text(source, encoding="utf-8")
    run_tests(folder, tmp_path / "output")


def test_what_newcomers_read_has_snippets() -> None:
    assert {page.name for page in SNIPPETS} >= {"README.md", "index.md"}
    assert [folder.name for folder in TUTORIALS] == ["tutorial"]


def shown(page: Path) -> list[tuple[str, str | None, str]]:
    """The blocks of code: their language, the file or mark above, the text."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(text):
        mark = MARK.search(text[: match.start()])
        blocks.append((match["info"], mark and (mark["file"] or mark["comment"]), match["body"]))
    return blocks


def prose_of(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def levels(page: Path) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#{1,6}) ", prose_of(page), re.M)]


def names(page: Path) -> set[str]:
    """What stands in backticks."""
    return {" ".join(name.split()) for name in re.findall(r"`([^`]+)`", prose_of(page))}


def targets(page: Path) -> set[str]:
    """What a page links to, with originals in place of translations. Headings count where they are not translated."""
    found = set()
    for match in LINK.finditer(re.sub(r"`[^`]*`", "", prose_of(page))):
        target = match["inline"] or match["reference"] or match["html"]
        if re.match(r"[a-z][a-z+.-]*:", target):
            found.add(target)
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        original = TRANSLATIONS.get(file, file)
        if original != TRANSLATIONS.get(page, page):  # the way to the other language
            found.add(f"{original.relative_to(ROOT)}#{'' if original in TRANSLATIONS.values() else anchor}")
    return found


def test_the_way_in_is_translated() -> None:
    assert set(TRANSLATIONS.values()) == {
        ROOT / "README.md", ROOT / "docs/index.md", *(ROOT / "docs/tutorial").glob("*.md")
    }  # fmt: skip


@pytest.mark.parametrize("page", TRANSLATIONS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_translation_keeps_up_with_its_original(page: Path) -> None:
    original = TRANSLATIONS[page]
    mend = f"bring {page.relative_to(ROOT)} up to date with {original.relative_to(ROOT)}"
    assert levels(page) == levels(original), f"{mend}: it has other headings"
    assert len(shown(page)) == len(shown(original)), f"{mend}: it has other blocks of code"
    for mine, its in zip(shown(page), shown(original), strict=True):
        assert mine == its, f"{mend}: this block is another"
    assert names(page) == names(original), f"{mend}: it names other things in backticks"
    assert targets(page) == targets(original), f"{mend}: it links to other pages"


@pytest.mark.parametrize("page", TRANSLATIONS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_translation_and_its_original_link_to_each_other_below_their_titles(page: Path) -> None:
    original = TRANSLATIONS[page]
    for here, there, language in [(page, original, "English"), (original, page, "简体中文")]:
        link = Path(os.path.relpath(there, here.parent)).as_posix()
        assert here.read_text(encoding="utf-8").splitlines()[2] == f"[{language}]({link})"


def anchors_of(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#{1,6} +(.+?) *#*$", text, re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))
    broken = []
    for match in LINK.finditer(text):
        target = match["inline"] or match["reference"] or match["html"]
        if re.match(r"[a-z][a-z+.-]*:|//", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors_of(file)):
            broken.append(target)
    assert broken == []
