"""Noticing that the database is not the one it was, and making everybody forget the other one.

A database that was restored from a backup gives out seqs a second time, for other changes. What
was remembered of the first time (cached records, positions of clients, state of replicas) must
not be taken for the second. So the log gets a new epoch, which is part of every id and of every
cached record: it is *fenced*. One replica does it, by compare and set; the others find it done.

What shows it: a row that this replica has applied is not in the log, or is another one. A hash
chained over all rows before is part of an id, so one row stands for the whole history.
"""

import structlog

from services.ports import CatalogSnapshot, MetadataStore, Position

log = structlog.get_logger(__name__)


async def snapshot_after(store: MetadataStore, known: Position) -> CatalogSnapshot:
    """The catalog now, in an epoch in which `known` is a place of the log, or in a later one.

    For a replica that runs: an epoch other than `known`'s is taken as it is, because another
    replica has fenced. Raises `Unavailable`.
    """
    snapshot = await store.snapshot()
    if snapshot.position.epoch != known.epoch or await _holds(store, known):
        return snapshot
    return await _fenced(store, snapshot, known)


async def snapshot_at_start(store: MetadataStore, known: Position | None) -> CatalogSnapshot:
    """The same for a replica that starts; `known` is what this data folder's last one had applied.

    An epoch that differs may here be an old one, brought back by a backup, so it is fenced too.
    """
    snapshot = await store.snapshot()
    if known is None or (snapshot.position.epoch == known.epoch and await _holds(store, known)):
        return snapshot
    return await _fenced(store, snapshot, known)


async def _fenced(store: MetadataStore, found: CatalogSnapshot, known: Position) -> CatalogSnapshot:
    await store.fence(found.position.epoch)
    snapshot = await store.snapshot()
    log.warning(
        "the database holds another history than it did; its log has a new epoch",
        known=known.id,
        found=found.position.id,
        now=snapshot.position.id,
    )
    return snapshot


async def _holds(store: MetadataStore, known: Position) -> bool:
    """True as well for a place from before the oldest row that is kept: nothing speaks against it."""
    if known.seq == 0:
        return True
    rows = await store.tail(known.seq - 1, 1)
    return bool(rows) and (rows[0].seq > known.seq or rows[0].id == known.id)
