"""Several processes behind one address: each leaves what it counts in a folder, and whoever is scraped adds all up."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .families import Family, add_up


class Workers:
    """The folder that the workers of one application share. On systems that have ``flock``.

    A worker holds a lock on a file of its own for as long as it lives, so that the others can tell. What a dead one has
    counted stays in the sums, or they would go down; its gauges do not. The files stay until somebody deletes them:
    give each start of the application an empty folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._lock: IO[bytes] | None = None

    def open(self) -> None:
        """Raises ``OSError`` if the folder cannot be written to."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self._folder / f"{self._name}.lock").open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write(self, families: list[Family]) -> None:
        """Leave this worker's samples for the others."""
        new = self._folder / f"{self._name}.new"
        new.write_text(json.dumps(families), encoding="utf-8")
        new.replace(self._folder / f"{self._name}.json")

    def read(self, own: list[Family]) -> list[Family]:
        """The samples of all workers; ``own`` are this one's, as they are now."""
        return add_up([(True, own), *self._others()])

    def _others(self) -> Iterator[tuple[bool, list[Family]]]:
        for file in sorted(self._folder.glob("*.json")):
            if file.stem != self._name:
                try:
                    families = [
                        Family(kind, name, documentation, labels, [(key, value) for key, value in samples])
                        for kind, name, documentation, labels, samples in json.loads(file.read_text(encoding="utf-8"))
                    ]
                except FileNotFoundError:
                    continue  # Deleted meanwhile.
                yield self._lives(file.with_suffix(".lock")), families

    @staticmethod
    def _lives(lock: Path) -> bool:
        try:
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            pass
        return False
