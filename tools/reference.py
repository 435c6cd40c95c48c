"""The reference in ``docs/reference``: how docstrings are read for it, and whether anything is missing from it.

Its pages name what they show (``::: fastapi_consumers.path``), and mkdocstrings loads the package by griffe, which
finds :class:`Docstrings` here: docstrings are written for people who read the code, and reStructuredText's marks in
them become Markdown's, with links.

Run as a program it says what is wrong with the reference, and fails if anything is: see :func:`mistakes`.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "fastapi_consumers"

#: What modules export for the rest of the package alone.
INTERNAL = {
    f"{PACKAGE}.{module}.{name}"
    for module, names in {
        "actions": "ANYTHING INJECTED MISSING Payload Returns Unresolved compile_action typed_dict",
        "authentication": "BEARER_SUBPROTOCOL Lifetime authenticate_with authentication_of compile_authentications "
        "denial_headers expired invalid is_authenticated known_pair lifetime_of",
        "pagination": "pagination_for pagination_for_streams pagination_of",
        "permissions": "About PermissionMeta asked_about asked_at_all check_about check_permissions "
        "compile_permissions depends_on_action is_delivered permission_of",
        "schedule_stores": "ATTEMPTS encode_timing schedule_store_beside",
        "throttling": "FAILURE_MODES Refusals check_throttles compile_throttles throttle_of",
    }.items()
    for name in names.split()
}

_DIRECTIVE = re.compile(rf"^::: ({PACKAGE}[\w.]*)$", re.MULTILINE)
_SNIPPET = re.compile(r"^```py(?:thon)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: A role, such as :meth:`connect`, with a title of its own perhaps; or code between double backticks.
_MARK = re.compile(r":\w+:`(?:(?P<title>[^`<>]*?) *<)?~?(?P<role>[\w.]+)>?`|``(?P<code>[^`\n]+)``")
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def shown() -> list[str]:
    """What the pages of the reference show, by the paths that users import it from."""
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    return [found for page in pages for found in _DIRECTIVE.findall(page.read_text(encoding="utf-8"))]


class Docstrings(griffe.Extension):
    """Reads ``#:`` comments as docstrings of attributes, and turns the marks of all docstrings into Markdown's."""

    def on_attribute_instance(self, *, node: Any, attr: griffe.Attribute, **kwargs: Any) -> None:
        """Take the ``#:`` lines right above for its docstring."""
        if attr.docstring is None and attr.lineno is not None and isinstance(attr.filepath, Path):
            comment = _comment_at(attr.filepath, attr.lineno)
            attr.docstring = griffe.Docstring(comment, lineno=attr.lineno, parent=attr) if comment else None

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite all docstrings, once every name is known that they may refer to."""
        links = _Links(pkg)
        for found in _objects(pkg):
            if found.docstring is not None:
                found.docstring.value = _fenced(links.add_to(found.docstring.value, found))


_LINES: dict[Path, list[str]] = {}


def _comment_at(file: Path, number: int) -> str:
    lines = _LINES.setdefault(file, file.read_text(encoding="utf-8").splitlines())
    found: list[str] = []
    for line in reversed(lines[: number - 1]):
        if not line.strip().startswith("#:"):
            break
        found.insert(0, line.strip()[2:].strip())
    return "\n".join(found)


def _objects(parent: griffe.Module | griffe.Class) -> Iterator[griffe.Object]:
    """It, and all that is defined in it."""
    yield parent
    for member in parent.members.values():
        if isinstance(member, griffe.Module | griffe.Class):
            yield from _objects(member)
        elif isinstance(member, griffe.Object):
            yield member


def _fenced(text: str) -> str:
    """Literal blocks, which a line that ends in ``::`` begins, as fenced code."""
    lines, found = text.splitlines(), list[str]()
    while lines:
        line = lines.pop(0)
        if not line.endswith("::"):
            found.append(line)
            continue
        if line.strip() != "::":
            found += [line.removesuffix(":"), ""]
        margin = len(line) - len(line.lstrip())
        block: list[str] = []
        while lines and (not lines[0].strip() or len(lines[0]) - len(lines[0].lstrip()) > margin):
            block.append(lines.pop(0)[margin + 4 :])
        code = "\n".join(block).strip("\n").splitlines()
        language = "text" if "──" in "".join(code) else "python"
        found += [" " * margin + row for row in (f"```{language}", *code, "```", "")]
    return "\n".join(found)


class _Links:
    """From a name in a docstring to its place in the reference."""

    def __init__(self, package: griffe.Module) -> None:
        self._package = package
        #: Where things are defined, to where users find them.
        self._public: dict[str, str] = {}
        for path in shown():
            self._public[_at(package, path).canonical_path] = path
        names = Counter(path.rpartition(".")[2] for path in self._public.values())
        self._names = {
            path.rpartition(".")[2]: path for path in self._public.values() if names[path.rpartition(".")[2]] == 1
        }

    def add_to(self, text: str, where: griffe.Object) -> str:
        """``text`` with Markdown's marks for code, and links where a name is one of the reference's."""

        def replace(match: re.Match[str]) -> str:
            code = match["code"] or match["role"]
            name = code.removesuffix("()")
            # A word in lower case is more often a parameter's name than a function's.
            may_link = match["role"] or name != code or name[:1].isupper()
            target = self._target(name, where) if may_link and _NAME.fullmatch(name) else None
            shown_as = match["title"] or (name.removeprefix(f"{PACKAGE}.") if match["role"] else code)
            return f"[`{shown_as}`][{target}]" if target is not None and target != where.path else f"`{shown_as}`"

        return _MARK.sub(replace, text)

    def _target(self, name: str, where: griffe.Object) -> str | None:
        head, _, rest = name.partition(".")
        if name.startswith(f"{PACKAGE}."):
            found = self._found(name)
        elif head in self._names:
            path = self._names[head]
            # A method of a base that users do not know stands with the class.
            found = self._found(f"{path}.{rest}", path) if rest else path
        else:
            parent = where if isinstance(where, griffe.Class) else where.parent
            found = None
            for cls in [parent, *parent.mro()] if isinstance(parent, griffe.Class) and not rest else ():
                found = found or self._found(f"{cls.canonical_path}.{name}")
        return found

    def _found(self, path: str, heir: str | None = None) -> str | None:
        """The address of what is at this path, if the reference has it; with ``heir``, where that is shown."""
        try:
            found = _at(self._package, path)
        except (KeyError, griffe.AliasResolutionError):
            return None
        if found.canonical_path in self._public:
            return self._public[found.canonical_path]
        owner = found.parent
        shown_in = self._public.get(owner.canonical_path, heir) if owner is not None else None
        return f"{shown_in}.{found.name}" if shown_in is not None and found.docstring is not None else None


def _at(package: griffe.Module, path: str) -> griffe.Object:
    """What is at this path, behind imports. Raises ``KeyError`` if nothing is."""
    found: Any = package
    for name in path.split(".")[1:]:
        found = found.all_members[name] if isinstance(found, griffe.Class) else found.members[name]
        while isinstance(found, griffe.Alias):
            found = package if found.target_path == PACKAGE else _at(package, found.target_path)
    return found  # type: ignore[no-any-return]


# -- what is missing ---------------------------------------------------------------------------------------------------


def imported_in_docs() -> dict[str, set[str]]:
    """What the snippets of README, ``docs`` and ``examples`` import of the package: module to names."""
    sources = [file.read_text(encoding="utf-8") for file in sorted(ROOT.glob("examples/**/*.py"))]
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        sources += _SNIPPET.findall(page.read_text(encoding="utf-8"))
    found: dict[str, set[str]] = {}
    for source in sources:
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue  # A fragment; tests/test_docs.py knows which are.
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
                found.setdefault(node.module or "", set()).update(alias.name for alias in node.names)
    return found


def mistakes() -> list[str]:
    """What is wrong with the reference.

    Public are: what a module exports in ``__all__`` if the docs import anything from it or the reference shows
    something of it, and whatever else the docs import. All of that has to be in the reference, once, with a docstring.
    """
    package: Any = griffe.load(PACKAGE, search_paths=[ROOT], extensions=griffe.Extensions(Docstrings()))
    places: dict[str, list[str]] = {}
    problems: list[str] = []
    for path in shown():
        found = _at(package, path)
        places.setdefault(found.canonical_path, []).append(path)
        if found.docstring is None:
            problems.append(f"{path} has no docstring")
        if isinstance(found, griffe.Class):
            problems += [f"{path}.{name} has no docstring" for name in _undocumented(found)]
    imported = imported_in_docs()
    modules = {path.rpartition(".")[0] for path in shown()} | imported.keys()
    for module in sorted(modules):
        exports = [str(name) for name in _at(package, module).exports or ()]
        for name in sorted({*exports, *imported.get(module, ())}):
            target = _at(package, f"{module}.{name}")
            if isinstance(target, griffe.Module) or f"{module}.{name}" in INTERNAL:
                continue
            if not places.get(target.canonical_path):
                problems.append(f"{module}.{name} is public, and in no page of the reference")
    for shown_at in places.values():
        if len(shown_at) > 1:
            problems.append(f"{shown_at[0]} is in the reference {len(shown_at)} times: {', '.join(shown_at)}")
    return problems


def _undocumented(cls: griffe.Class) -> Iterator[str]:
    """Its public methods and properties without a docstring, but those that a base describes."""
    for name, member in cls.members.items():
        # Properties are attributes to griffe. Fields of a class stand in its signature.
        is_code = isinstance(member, griffe.Function) or "property" in member.labels
        described = any(name in each.members and each.members[name].docstring for each in [cls, *cls.mro()])
        if is_code and not name.startswith("_") and not described:
            yield name


if __name__ == "__main__":
    found = mistakes()
    sys.exit("\n".join(found) or None)
