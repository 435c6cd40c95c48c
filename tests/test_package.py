"""The package as a whole: what it exports, what it ships, what must not be in the repository."""

import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

import fastapi_consumers

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 420


def test_exported_names_are_sorted_and_resolve() -> None:
    names = fastapi_consumers.__all__
    assert list(names) == sorted(set(names))
    assert [name for name in names if not hasattr(fastapi_consumers, name)] == []


def test_nothing_public_is_left_out_of_the_exported_names() -> None:
    here = vars(fastapi_consumers).items()
    own = {name for name, value in here if getattr(value, "__module__", "").startswith("fastapi_consumers.")}
    assert {name for name in own if not name.startswith("_")} - set(fastapi_consumers.__all__) == set()


def test_the_marker_for_type_checkers_is_shipped() -> None:
    assert files(fastapi_consumers).joinpath("py.typed").is_file()


def test_no_module_holds_two_concepts() -> None:
    lines = {path: path.read_bytes().count(b"\n") for path in ROOT.glob("fastapi_consumers/**/*.py")}
    assert {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > MAX_LINES} == {}


def repository_files() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run([git, "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    names = listing.stdout.decode().split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


def test_no_file_names_a_machine() -> None:
    """No path of somebody's machine and no package registry: what is in the repository works everywhere."""
    folders = "|".join(("root", "work", "home", "Users"))
    hosts = "|".join(("pypi" r"\.org", "pythonhosted" r"\.org", "npmjs" r"\.org"))
    pattern = re.compile(rf"(?<![\w.:/~}}-])/(?:{folders})/[\w.]|{hosts}")
    found = []
    for path in repository_files():
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []
