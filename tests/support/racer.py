"""A replica's process that publishes when it is told to: `python -m tests.support.racer URL NAME`.

Each line on its standard input holds the digest to replace, or `-`; it answers `201 VERSION DIGEST` or `409`.
"""

import asyncio
import sys

from services.failures import Conflict
from tests.support.drafts import draft
from tests.support.stores import open_store


async def _race(url: str, name: str) -> None:
    store = await open_store(url)
    print("ready", flush=True)  # noqa: T201  # the answer
    round_ = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        round_ += 1
        if_match = None if line.strip() == "-" else line.strip()
        try:
            (published,) = await store.publish([draft(text=f"{name} {round_}", if_match=if_match)])
            print(f"201 {published.version} {published.digest}", flush=True)  # noqa: T201  # the answer
        except Conflict:
            print("409", flush=True)  # noqa: T201  # the answer
    await store.close()


if __name__ == "__main__":
    asyncio.run(_race(sys.argv[1], sys.argv[2]))
