"""A job in a process of its own: it counts primes, and tells whoever asked for it how far it is.

It is a plain script without an event loop, as a worker of Celery or a cron job is. All that it knows of the application
is the broker's URL and the names of the group and the events:

    BROKER_URL=redis://127.0.0.1:6379/0 python worker.py JOB USER BELOW
"""

import math
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from fastapi_consumers import BrokerUnavailable, SyncPublisher

SEGMENT = 1 << 21
#: Seconds between two messages of progress: nobody reads faster.
PROGRESS_INTERVAL = 0.2


def sieve(below: int) -> list[int]:
    """The primes below a number, which is small."""
    is_prime = bytearray([1]) * below
    is_prime[:2] = bytes(min(2, below))
    for number in range(2, math.isqrt(max(0, below - 1)) + 1):
        if is_prime[number]:
            is_prime[number * number :: number] = bytes(len(range(number * number, below, number)))
    return [number for number, found in enumerate(is_prime) if found]


def count_primes(below: int) -> Iterator[tuple[int, int]]:
    """Count the primes below a number, segment by segment (the sieve of Eratosthenes).

    Yields up to where it is done, and how many there are in that segment.
    """
    small = sieve(math.isqrt(below) + 1)
    for start in range(0, below, SEGMENT):
        end = min(start + SEGMENT, below)
        is_prime = bytearray([1]) * (end - start)
        if start == 0:
            is_prime[:2] = bytes(2)
        for prime in small:
            if prime * prime >= end:
                break
            first = max(prime * prime, -(-start // prime) * prime) - start
            is_prime[first::prime] = bytes(len(range(first, end - start, prime)))
        yield end, is_prime.count(1)


def main(job: str, user: str, below: int) -> None:
    with SyncPublisher(os.environ["BROKER_URL"]) as publish:
        told, count = 0.0, 0
        for done, found in count_primes(below):
            count += found
            if time.monotonic() - told >= PROGRESS_INTERVAL:
                told = time.monotonic()
                try:
                    # To the person, and not kept: the next one says more.
                    publish.send("progress", {"job": job, "done": done / below}, user=user)
                except BrokerUnavailable:
                    print(f"job {job}: nobody can be told that it is at {done}", file=sys.stderr)
        data = {"job": job, "text": f"There are {count:,} primes below {below:,}.", "at": datetime.now(UTC)}
        # To the person's group, which is kept. The key is that of the end, whoever tells of it: see jobs.py.
        publish.broadcast(f"inbox.{user}", "finished", data, idempotency_key=f"{job} end")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
