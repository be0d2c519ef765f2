"""An AWS of the tests' own, and deployments on it: tables and a bucket that no other test uses."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2
import pytest

from services.storage.aws import AwsPlace
from services.storage.preparation import prepare

_KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}


class AwsServer:
    """An emulator in a process; see `aws_server.py`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.aws_server"], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._client = httpx2.Client(timeout=10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def backdate(self, bucket: str, key: str, at: float) -> None:
        """Sets when an object was written last, in seconds since 1970."""
        assert self._client.post(f"{self.url}/backdate?bucket={bucket}&key={key}&at={at}").is_success

    def stop(self) -> None:
        self._client.close()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def running_aws() -> Iterator[AwsServer]:
    """A server, and credentials for it in the environment, as a deployment has them."""
    server = AwsServer()
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            environment.delenv(name)
        for name, value in _KEYS.items():
            environment.setenv(name, value)
        try:
            yield server
        finally:
            server.stop()


def is_place(url: str) -> bool:
    return url.startswith("aws+")


def place_of(url: str) -> AwsPlace:
    """`aws+http://127.0.0.1:PORT/NAME` as the settings would say it."""
    endpoint, _, name = url.removeprefix("aws+").rpartition("/")
    return AwsPlace(
        region="us-east-1",
        bucket=name,
        skills_table=name,
        invocations_table=f"{name}-invocations",
        skills_prefix="skills/",
        invocation_days=30,
        s3_endpoint=endpoint,
        dynamodb_endpoint=endpoint,
    )


def new_deployment(endpoint: str) -> str:
    """The URL of empty tables and an empty bucket that nobody else uses."""
    url = f"aws+{endpoint}/test-{secrets.token_hex(4)}"
    with ThreadPoolExecutor(1) as thread:  # whoever asks may be on a loop of its own
        thread.submit(asyncio.run, prepare(place_of(url))).result()
    return url
