"""A replica's process that takes calls until SIGTERM: `python -m tests.support.called URL PER_S`.

A line per call whose block has ended goes to standard output, and at the end `accepted N`, when the log
has closed: what it accepted must then be in the database.
"""

import asyncio
import signal
import sys
import time

from services.caller import Caller
from services.clock import monotonic_s
from services.failures import Unavailable
from services.storage.invocations import InvocationLog
from tests.support.search_parts import everyone, skill
from tests.support.stores import open_store

_TURN_S = 0.02


async def _take_calls(url: str, per_s: int) -> None:
    store = await open_store(url)
    log = InvocationLog(store)
    log.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    called = skill("calc", "Calculates.")
    assert called.active is not None
    caller = Caller("key-1", "rest", "", everyone)
    accepted = refused = 0
    started_s, cpu_s = monotonic_s(), time.process_time()
    print("ready", flush=True)  # noqa: T201  # the answer
    while not ended.is_set():
        due = int((monotonic_s() - started_s) * per_s)
        while accepted + refused < due:
            try:
                async with log.logged(caller, "main_calc_add", called, called.active, {"n": accepted}):
                    accepted += 1
            except Unavailable:
                refused += 1
        await asyncio.sleep(_TURN_S)
    took_s = monotonic_s() - started_s
    await log.close()
    cpu_s = time.process_time() - cpu_s
    await store.close()
    print(f"accepted {accepted} refused {refused} in {took_s:.2f} cpu {cpu_s:.2f}", flush=True)  # noqa: T201  # the answer


if __name__ == "__main__":
    asyncio.run(_take_calls(sys.argv[1], int(sys.argv[2])))
