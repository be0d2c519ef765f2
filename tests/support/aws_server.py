"""S3 and DynamoDB for tests: `python -m tests.support.aws_server` prints the port it serves on 127.0.0.1.

The emulator keeps everything in memory, which is what lets replicas be killed and started again. What
it gets wrong for us is put right here:

* A transaction that fails puts whole tables back as they were, with the work of others since; and
  one that goes on can be seen half done; versions of an object get lost when two change them at once.
  So requests are served one at a time.
* It copies each table once per item of a transaction, so the conditions are checked before anything
  is written instead; a copy is then not needed.
* The limit of 4 MB a transaction is not checked.

`POST /backdate?bucket=&key=&at=` sets when an object was written last, which S3 itself has no call for.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from moto.dynamodb.comparisons import get_filter_expression
from moto.dynamodb.exceptions import (
    MockValidationException,
    MultipleTransactionsException,
    TransactionCanceledException,
)
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import Client

from services.storage.dynamodb_items import size_of

_TRANSACTION_BYTES_MAX = 4 * 1024 * 1024
_TRANSACTION_ITEMS_MAX = 100
_ITEM_BYTES_MAX = 400 * 1024
_ACCOUNT = "123456789012"


class Quiet(WSGIRequestHandler):
    """Keeps connections open, as AWS does, and logs nothing."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def transact_write_items(self: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
    """Looks at all conditions, then writes; in place of the emulator's own (see above)."""
    if len(transact_items) > _TRANSACTION_ITEMS_MAX or size_of(transact_items) > _TRANSACTION_BYTES_MAX:
        raise MockValidationException("the transaction is too large")
    errors: list[tuple[str | None, str | None, None]] = []
    targets: set[tuple[str, str]] = set()
    for transact_item in transact_items:
        ((kind, operation),) = transact_item.items()
        table = self.get_table(operation["TableName"])
        attributes = operation["Item"] if kind == "Put" else operation["Key"]
        names = [name for name in (table.hash_key_attr, table.range_key_attr) if name]
        key = {name: attributes[name] for name in names}
        if (table.name, str(key)) in targets:
            raise MultipleTransactionsException
        targets.add((table.name, str(key)))
        if kind == "Put" and size_of(attributes) > _ITEM_BYTES_MAX:
            raise MockValidationException("Item size has exceeded the maximum allowed size")
        condition = get_filter_expression(
            operation.get("ConditionExpression"),
            operation.get("ExpressionAttributeNames"),
            operation.get("ExpressionAttributeValues"),
        )
        holds = condition.expr(self.get_item(table.name, key) or Item(DynamoType({"S": "-"}), None, {}))
        errors.append(
            (None, None, None) if holds else ("ConditionalCheckFailed", "The conditional request failed", None)
        )
    if any(code for code, _, _ in errors):
        raise TransactionCanceledException(errors)
    for transact_item in transact_items:
        ((kind, operation),) = transact_item.items()
        if kind == "Put":
            self.put_item(operation["TableName"], operation["Item"])
        elif kind == "Delete":
            self.delete_item(operation["TableName"], operation["Key"])
        elif kind == "Update":
            self.update_item(
                operation["TableName"],
                operation["Key"],
                update_expression=operation["UpdateExpression"],
                expression_attribute_names=operation.get("ExpressionAttributeNames") or {},
                expression_attribute_values=operation.get("ExpressionAttributeValues") or {},
            )


class OneAtATime:
    """The emulator's application, with what this module adds to it."""

    def __init__(self) -> None:
        self._emulator = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/backdate":
            return self._backdate(parse_qs(environ["QUERY_STRING"]), start_response)
        with self._lock:
            return list(self._emulator(environ, start_response))

    def _backdate(self, query: dict[str, list[str]], start_response: Callable[..., Any]) -> Iterable[bytes]:
        key = s3_backends[_ACCOUNT]["aws"].buckets[query["bucket"][0]].keys[query["key"][0]]
        key.last_modified = datetime.fromtimestamp(float(query["at"][0]), UTC).replace(tzinfo=key.last_modified.tzinfo)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]


def main() -> None:
    DynamoDBBackend.transact_write_items = transact_write_items  # type: ignore[method-assign]
    application = OneAtATime()
    # What the first request of each kind would have to load: a client does not wait so long.
    signed = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=0"
    listing = {"X-Amz-Target": "DynamoDB_20120810.ListTables", "Content-Type": "application/x-amz-json-1.0"}
    client = Client(application)
    client.post("/", data=b"{}", headers={**listing, "Authorization": signed.format("dynamodb")})
    client.get("/", headers={"Authorization": signed.format("s3")})
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
