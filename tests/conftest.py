"""What all tests share. Whatever only one folder of tests needs lives in that folder."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# For `examples` and `tests`. At the end of the path, so that an installed wheel of the package comes before its source.
sys.path.append(str(Path(__file__).resolve().parent.parent))

# One profile everywhere: no deadline, because a shared machine stalls; the same examples on every run under CI.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium or Chrome. Without one the test is skipped, but on CI it fails: nobody would notice."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        reason = "no Chromium on PATH (Debian: apt-get install chromium), and CHROMIUM does not name one"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return executable
