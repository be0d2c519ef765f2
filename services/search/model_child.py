"""The parent's end of the process that holds the sentence model."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from services.frames import FrameDecoder, FrameTooLarge, pack

_CODE_ROOT = Path(__file__).parents[2]


class ChildGone(Exception):
    """The child ended, or can no longer be understood; `stop()` it and start another."""


class ModelChild:
    """One running child; `start` it, `receive` its empty ready frame, then ask and answer in turn."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._decoder = FrameDecoder()

    @classmethod
    async def start(cls) -> "ModelChild":
        """The caller's task must outlive the call: a cancelled start may leave a child, which ends with us."""
        # No part of our environment goes along: the child needs no keys, and BLAS threads would
        # fight over the cores with the service.
        environment = {
            "PYTHONPATH": str(_CODE_ROOT),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.search.embed_child",
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,  # Ctrl-C in a terminal is for the service, which ends the child
            )
        except OSError as failure:
            raise ChildGone(f"it could not be started: {failure}") from failure
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, payload: bytes) -> None:
        """Raises `ChildGone`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(pack(payload))
            await self._process.stdin.drain()
        except OSError as failure:
            raise ChildGone("it closed its input") from failure

    async def receive(self) -> bytes:
        """The next frame. Raises `ChildGone`."""
        assert self._process.stdout is not None
        while True:
            data = await self._process.stdout.read(65_536)
            if not data:
                raise ChildGone("it closed its output")
            try:
                payloads = self._decoder.feed(data)
            except FrameTooLarge as failure:
                raise ChildGone(str(failure)) from failure
            if payloads:
                return payloads[0]

    async def stop(self) -> None:
        """Kills it, for it has nothing to save, and returns when it is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.returncode is None:
            # Not `process.kill()`: that polls, and may reap a child whose end asyncio waits for.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
        self._process.stdin.close()
        await self._process.wait()
        while await self._process.stdout.read(65_536):
            """What it had still written is of no use; reading to the end lets the pipe close."""
