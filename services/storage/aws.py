"""Calls to AWS, each bounded in time and in tries; needs the extra `aws`.

The SDK's own retries are off: five of them, with pauses of up to 20 s, are a request that hangs.
A call is sent at most `TRIES_MAX` times within its time, and only where sending it twice does no
harm; what does not succeed by then is `Unavailable`, counted in `skillwire_aws_failures_total`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, NamedTuple, TypeVar

import botocore.exceptions
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.loaders import create_loader
from botocore.parsers import ResponseParserError

from services import metrics
from services.failures import Unavailable

Answer = Mapping[str, Any]
T = TypeVar("T")
R = TypeVar("R")

CALL_TIMEOUT_S = 3.0
TRIES_MAX = 3
# How long S3 may send nothing within a call that is given more time, such as a list.
S3_SILENCE_S = 20.0
_CONNECT_TIMEOUT_S = 1.0
_CONNECTIONS = 32
# Requests of one operation under way at the same time: some connections stay for the others.
AT_ONCE = 8
_PAUSE_S = 0.05
_THROTTLED = {
    "ProvisionedThroughputExceededException", "RequestLimitExceeded", "SlowDown", "Throttling", "ThrottlingException",
    "ThrottlingError", "TooManyRequestsException", "503", "TransactionInProgressException",
}  # fmt: skip
# Not a mistake of the request's: the account, the permission or the table is what has to change.
_REFUSED = {
    "AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId",
    "InvalidClientTokenId", "KMSAccessDeniedException", "NoSuchBucket", "ResourceNotFoundException",
    "SignatureDoesNotMatch", "UnrecognizedClientException", "403", "RequestTimeTooSkewed",
}  # fmt: skip

_NO_CREDENTIALS = (
    "no AWS credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give it a role"
)
_NOT_MADE = {"NoSuchBucket", "ResourceNotFoundException"}


class AwsPlace(NamedTuple):
    """Where a deployment lives in AWS; empty endpoints are AWS's own.

    The tables beside the two that are named are `<skills_table>-changes`, `-versions` and `-state`.
    """

    region: str
    bucket: str
    skills_table: str
    invocations_table: str
    skills_prefix: str
    invocation_days: float
    s3_endpoint: str = ""
    dynamodb_endpoint: str = ""


class Refusal(Exception):
    """An answer other than success that the caller is to understand, such as a condition that failed."""

    def __init__(self, code: str, answer: Answer) -> None:
        super().__init__(code)
        self.code = code
        self.answer = answer


class Service:
    """One AWS service. Open it with `open_service`, which closes it at the end of its stack."""

    def __init__(self, name: str, client: Any) -> None:
        self._name = name
        self._client = client

    async def call(
        self, operation: str, *, timeout_s: float = CALL_TIMEOUT_S, idempotent: bool = True, **parameters: Any
    ) -> Answer:
        """The answer. Raises `Refusal`, or `Unavailable` when there is none; a call that is not
        idempotent is sent again only when the service says that it was not carried out."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._tried(operation, idempotent, parameters)
        except TimeoutError as error:
            self._count("timeout")
            raise Unavailable(f"{self._name} does not answer in {timeout_s:g} s") from error

    async def read(self, timeout_s: float, **parameters: Any) -> bytes:
        """The whole body of an S3 object. Raises as `call`."""
        trouble: Exception | None = None
        try:
            async with asyncio.timeout(timeout_s):
                for attempt in range(TRIES_MAX):
                    answer = await self._tried("get_object", True, parameters)
                    try:
                        async with answer["Body"] as body:
                            return bytes(await body.read())
                    except (botocore.exceptions.BotoCoreError, OSError) as error:
                        # Cut off in the middle: the length that was announced is checked by the SDK.
                        self._count("failed")
                        trouble = error
                        await asyncio.sleep(random.uniform(0, _PAUSE_S * 2**attempt))
        except TimeoutError as error:
            self._count("timeout")
            raise Unavailable(f"{self._name} does not answer in {timeout_s:g} s") from error
        raise Unavailable(f"{self._name} does not answer: {trouble}") from trouble

    async def pages(self, operation: str, **parameters: Any) -> AsyncIterator[Answer]:
        """Every page of a DynamoDB query or scan, in order; each is a call with its own time."""
        while True:
            page = await self.call(operation, **parameters)
            yield page
            if not page.get("LastEvaluatedKey"):
                return
            parameters["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    async def _tried(self, operation: str, idempotent: bool, parameters: Mapping[str, Any]) -> Answer:
        method = getattr(self._client, operation)
        trouble: Exception | None = None
        for attempt in range(TRIES_MAX):
            if attempt:
                await asyncio.sleep(random.uniform(0, _PAUSE_S * 2**attempt))
            try:
                answer: Answer = await method(**parameters)
            except botocore.exceptions.ClientError as error:
                trouble = error
                code, status = error.response["Error"]["Code"], _status(error.response)
                if code in _THROTTLED or status == 503:
                    self._count("throttled")
                    continue
                if code in _REFUSED:
                    self._count("refused")
                    hint = ": run `skillwire init-storage`" if code in _NOT_MADE else ""
                    raise Unavailable(f"{self._name} refuses {operation}: {code}{hint}") from error
                if status < 500:
                    raise Refusal(code, error.response) from error
                self._count("failed")
            except (botocore.exceptions.BotoCoreError, ResponseParserError, OSError) as error:
                self._count("failed")
                trouble = error
                if isinstance(error, botocore.exceptions.NoCredentialsError):
                    raise Unavailable(f"{self._name} cannot be asked: {_NO_CREDENTIALS}") from error
                if isinstance(error, botocore.exceptions.ProfileNotFound):
                    break
            else:
                return answer
            if not idempotent:
                break
        # The class alone for what the SDK says: its words carry the address, and this goes to callers.
        reason = trouble.response["Error"]["Code"] if isinstance(trouble, botocore.exceptions.ClientError) else None
        raise Unavailable(f"{self._name} does not answer: {reason or type(trouble).__name__}") from trouble

    def _count(self, outcome: str) -> None:
        metrics.aws_failures.labels(self._name.lower(), outcome).inc()


async def open_service(stack: AsyncExitStack, name: str, place: AwsPlace) -> Service:
    """A client of `s3` or `dynamodb`, with the credentials that the SDK finds by itself."""
    endpoint = place.s3_endpoint if name == "s3" else place.dynamodb_endpoint
    config = AioConfig(
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=S3_SILENCE_S if name == "s3" else CALL_TIMEOUT_S,
        max_pool_connections=_CONNECTIONS,
        retries={"total_max_attempts": 1, "mode": "standard"},
        # Ours are SHA-256; the SDK's CRC would change how bodies are sent, which not every endpoint takes.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **({"s3": {"addressing_style": "path"}} if name == "s3" and endpoint else {}),
    )
    try:
        session = get_session()
        session.register_component("data_loader", _descriptions())
        client = session.create_client(name, region_name=place.region, endpoint_url=endpoint or None, config=config)
        return Service({"s3": "S3", "dynamodb": "DynamoDB"}[name], await stack.enter_async_context(client))
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise Unavailable(f"AWS cannot be used: {error}") from error


@cache
def _descriptions() -> Any:
    """The SDK's descriptions of services, which take it 150 ms of computing to read: once a process is enough."""
    return create_loader()


async def together(function: Callable[[T], Awaitable[R]], items: Iterable[T], at_once: int = AT_ONCE) -> list[R]:
    """What the function answers for each, in order, at most `at_once` under way; the first failure
    ends the others."""
    gate = asyncio.Semaphore(at_once)

    async def gated(item: T) -> R:
        async with gate:
            return await function(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(gated(item)) for item in items]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]


def server_time_s(answer: Answer) -> float:
    """Seconds since 1970 when the service answered, by its clock, without the fraction: replicas
    whose own clocks differ agree on it."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()


def _status(answer: Answer) -> int:
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
