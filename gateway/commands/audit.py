"""`skillwire audit`: verifying the audit log, and writing it out, beside running replicas or without any."""

import re
from contextlib import AsyncExitStack
from typing import Any

import click
import msgspec

from gateway.backends import open_storage
from gateway.commands.running import read_settings, run
from services.audit.chain import Seal
from services.audit.verification import Noted, Verdict, read_all, verify
from services.settings import Settings

_HEAD = re.compile(r"(\d{1,16}):([0-9a-f]{64})")


class _Head(click.ParamType[Noted]):
    name = "SEQ:HASH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Noted:
        found = _HEAD.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is not a seq, a colon and 64 hex digits", param, ctx)
        return Noted(int(found[1]), found[2])


@click.group()
def audit() -> None:
    """Verify the audit log, or write it out. SKILLWIRE_AUDIT_KEY must be what the service has."""


@audit.command("verify")
@click.option("--head", "noted", type=_Head(), multiple=True, help="A head noted elsewhere; may be given repeatedly.")
@click.pass_context
def verify_chain(context: click.Context, noted: tuple[Noted, ...]) -> None:
    """Recompute the whole chain and compare it with the change rows that are kept.

    Exits with 0 when all is as it was sealed, and with 1 and the first seq that is not. Only a head
    noted elsewhere shows that the newest records were removed, or all made anew by somebody with the key.
    """
    settings = read_settings({})
    verdict = run(_verified(settings, noted))
    click.echo(_said(verdict, bool(settings.audit_key)))
    if verdict.finding is not None:
        context.exit(1)


@audit.command("export")
def export() -> None:
    """Write every record to stdout, oldest first, one JSON object a line."""
    run(_exported(read_settings({})))


async def _verified(settings: Settings, noted: tuple[Noted, ...]) -> Verdict:
    async with AsyncExitStack() as stack:
        storage = await open_storage(settings, stack)
        return await verify(storage.audit, storage.store, Seal(settings.audit_key), noted, _tell)


async def _exported(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        storage = await open_storage(settings, stack)
        async for page in read_all(storage.audit):
            for record in page:
                click.echo(msgspec.json.encode(record.shown()))


def _tell(records: int, seq: int) -> None:
    click.echo(f"{records} records up to seq {seq}", err=True)


def _said(verdict: Verdict, has_key: bool) -> str:
    finding, head = verdict.finding, verdict.head
    if finding is not None:
        return f"BAD at seq {finding.seq}: {finding.problem}: {finding.detail}"
    waiting = f"; {verdict.unsealed} changes are not sealed yet" if verdict.unsealed else ""
    if head is None:
        return f"OK: there are no records{waiting}"
    keyed = f"keyed from seq {verdict.keyed_from}" if verdict.keyed_from else "none is keyed"
    if has_key and not verdict.keyed_from:
        keyed = "none is keyed, although there is a key"
    return f"OK: {verdict.records} records from seq {verdict.first}, {keyed}; head {head.seq}:{head.hash}{waiting}"
