"""A process that publishes until it is killed: `python -m tests.support.publisher DATA_DIR URL`.

It forks one publisher for every line on its standard input, so that only the first start pays
for the imports; it answers with the child's process id, and with `dead` once that has ended. A
child appends a line to DATA_DIR/acknowledged for every publish that was answered.
"""

import asyncio
import os
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path

import sqlalchemy.dialects.postgresql.asyncpg  # noqa: F401  # or every child would load it anew

from services.failures import Unavailable
from services.storage.postgres import PostgresDatabase  # noqa: F401  # the same
from tests.support.drafts import draft, sha256
from tests.support.stores import open_blobs, open_store


async def published_once_more(data_dir: Path) -> None:
    """Returns when the publisher has been answered again; at most 60 s."""
    acknowledged = data_dir / "acknowledged"
    before = acknowledged.stat().st_size if acknowledged.exists() else 0  # a glance
    async with asyncio.timeout(60):
        while not acknowledged.exists() or acknowledged.stat().st_size == before:  # noqa: ASYNC110  # the event is another process's
            await asyncio.sleep(0.002)


async def _publish(data_dir: Path, url: str) -> None:
    while True:
        with suppress(Unavailable):  # a busy machine's store answers too late; only the kill ends this process
            await _publish_on(data_dir, url)


async def _publish_on(data_dir: Path, url: str) -> None:
    store = await open_store(url)
    blobs = await open_blobs(store, url, data_dir)
    try:
        with (data_dir / "acknowledged").open("a") as acknowledged:
            for number in count():
                texts = [f"{os.getpid()} {number} {part}" for part in range(2)]
                await blobs.put_many({sha256(text): text.encode() for text in texts})
                await store.publish([draft(name, text) for name, text in zip(("alpha", "beta"), texts, strict=True)])
                acknowledged.write(f"{sha256(texts[1])}\n")
                acknowledged.flush()
    finally:
        await blobs.close()
        await store.close()


def main() -> None:
    data_dir, url = Path(sys.argv[1]), sys.argv[2]
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(_publish(data_dir, url))
        os.write(1, f"{child}\n".encode())
        os.waitpid(child, 0)
        os.write(1, b"dead\n")


if __name__ == "__main__":
    main()
