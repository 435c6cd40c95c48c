"""``python -m fastapi_consumers``, and the program ``fastapi-consumers``."""

import sys


def main() -> None:
    """Run the command line. Exits with 1, and names the extra, if what it is built on is not installed."""
    try:
        from .cli import cli
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("The command line needs click, which is not installed: pip install 'fastapi-consumers[cli]'")
    cli(prog_name="fastapi-consumers")


if __name__ == "__main__":
    main()
