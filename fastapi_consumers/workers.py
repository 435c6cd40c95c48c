"""Whether this process is one of several that a server was told to run, as far as that can be seen from inside."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath

#: Programs that run workers of an ASGI application, and inherit their command line to them.
_SERVERS = {"uvicorn", "gunicorn", "fastapi", "hypercorn", "granian"}
#: ``--workers 4``, ``--workers=4``, ``-w 4``, ``-w4``.
_OPTION = re.compile(r"(?:--workers|-w)=?(\d*)")


def several_workers(arguments: Sequence[str], environ: Mapping[str, str]) -> int | None:
    """How many workers the command line or ``WEB_CONCURRENCY`` asks for, if it is more than one; else ``None``.

    Args:
        arguments: as in ``sys.argv``. A command line that is none of a server's says nothing.
    """
    program = PurePath(arguments[0]) if arguments else PurePath()
    if not _SERVERS & {program.stem, program.parent.name}:  # The latter for `python -m uvicorn`.
        return None
    asked = environ.get("WEB_CONCURRENCY", "")
    for argument, following in pairwise([*arguments, ""]):
        if (option := _OPTION.fullmatch(argument)) is not None:
            asked = option[1] or following
    return int(asked) if asked.isdecimal() and int(asked) > 1 else None
