import asyncio
from collections.abc import Sequence

import pytest

from notifier import Event
from notifier.history import HistoryTimeout
from notifier.pages import PAGE_ROWS, LogPages
from tests.support.notifier_log import EVERYONE, ListLog, Row, announce, notifier_of, seqs

pytestmark = pytest.mark.anyio


@pytest.fixture
def log() -> ListLog:
    log = ListLog()
    for _ in range(3 * PAGE_ROWS):
        log.append()
    return log


async def read(pages: LogPages, after: int) -> list[int]:
    async with asyncio.timeout(5):
        return [event.seq for event in await pages.after(after)]


async def test_streams_that_are_behind_together_read_each_page_once(log: ListLog) -> None:
    notifier = notifier_of(log, events_max=8)
    announce(log, notifier, 20)
    since = log.rows[9].id
    subscriptions = [notifier.subscribe(EVERYONE, ["skills"], since) for _ in range(50)]

    async def everything(number: int) -> list[int]:
        got: list[int] = []
        while not got or got[-1] < len(log.rows):
            got += seqs(await subscriptions[number].next_batch(32))
        return got

    async with asyncio.timeout(20):
        received = await asyncio.gather(*map(everything, range(50)))
    assert received == [list(range(11, len(log.rows) + 1))] * 50
    assert log.reads == 4  # as there are pages


async def test_pages_end_where_they_should_and_frames_are_shared(log: ListLog) -> None:
    pages = LogPages(log.tail)

    assert await read(pages, 0) == list(range(1, PAGE_ROWS + 1))
    assert await read(pages, PAGE_ROWS - 1) == [PAGE_ROWS]
    assert await read(pages, PAGE_ROWS) == list(range(PAGE_ROWS + 1, 2 * PAGE_ROWS + 1))
    assert (await pages.after(5))[0] is (await pages.after(0))[5]
    assert await read(pages, len(log.rows)) == []
    assert log.reads == 3


async def test_rows_that_came_after_the_page_was_read_are_read_then(log: ListLog) -> None:
    pages = LogPages(log.tail)
    last = len(log.rows)
    log.append()
    assert await read(pages, last) == [last + 1]
    log.append()
    assert await read(pages, last) == [last + 1]
    assert await read(pages, last + 1) == [last + 2]


async def test_row_that_was_trimmed_is_not_replaced_by_the_next_one_that_is_there(log: ListLog) -> None:
    pages = LogPages(log.tail)
    log.oldest_kept = 100

    assert await read(pages, 50) == []
    assert await read(pages, 98) == []
    assert (await read(pages, 99))[0] == 100


async def test_failure_is_told_to_all_who_wait_and_to_nobody_after(log: ListLog) -> None:
    pages = LogPages(log.tail)
    log.gate.clear()
    waiting = [asyncio.create_task(read(pages, 0)) for _ in range(5)]
    async with asyncio.timeout(5):
        await log.reader_waits.wait()
    log.failure = HistoryTimeout("no answer")
    log.gate.set()
    assert [type(end) for end in await asyncio.gather(*waiting, return_exceptions=True)] == [HistoryTimeout] * 5
    assert log.reads == 1

    log.failure = None
    assert len(await read(pages, 0)) == PAGE_ROWS


async def test_stream_that_ends_while_it_reads_leaves_the_page_to_the_others(log: ListLog) -> None:
    pages = LogPages(log.tail)
    log.gate.clear()
    first = asyncio.create_task(read(pages, 0))
    others = [asyncio.create_task(read(pages, 0)) for _ in range(3)]
    async with asyncio.timeout(5):
        await log.reader_waits.wait()
    first.cancel()
    await asyncio.wait([first])
    log.gate.set()

    assert [len(got) for got in await asyncio.gather(*others)] == [PAGE_ROWS] * 3
    assert log.reads == 2


async def test_memory_is_bounded_and_the_page_read_last_stays(log: ListLog) -> None:
    size = sum(Event(row).size for row in log.rows[:PAGE_ROWS])
    pages = LogPages(log.tail, bytes_max=int(size * 1.5))
    for after in (0, PAGE_ROWS, PAGE_ROWS, 0):
        await read(pages, after)

    assert log.reads == 3


async def test_page_that_was_on_its_way_when_the_history_ended_is_not_kept() -> None:
    old, new = ListLog("e1"), ListLog("e2")
    for log in (old, new):
        log.append()
    reads: list[ListLog] = [old, new]

    async def tail(after: int, limit: int) -> Sequence[Row]:
        return await reads.pop(0).tail(after, limit)

    pages = LogPages(tail)
    old.gate.clear()
    reading = asyncio.create_task(pages.after(0))
    async with asyncio.timeout(5):
        await old.reader_waits.wait()
    pages.forget()
    old.gate.set()

    assert await reading == []
    assert [event.id for event in await pages.after(0)] == [new.rows[0].id]


async def test_pages_of_another_history_are_not_served_in_the_new_one() -> None:
    log = ListLog("e1")
    notifier = notifier_of(log, events_max=8)
    announce(log, notifier, 30)
    before = notifier.subscribe(EVERYONE, ["skills"], log.rows[2].id)
    assert seqs(await before.next_batch())[0] == 4
    before.close()
    log.epoch, log.rows = "e2", []
    announce(log, notifier, 40)
    subscription = notifier.subscribe(EVERYONE, ["skills"], log.rows[9].id)

    assert (await subscription.start()).recovered
    frames = await subscription.next_batch()
    assert [frame.id for frame in frames if isinstance(frame, Event)][:2] == [log.rows[10].id, log.rows[11].id]
