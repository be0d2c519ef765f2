import msgspec
import pytest
from msgspec import Raw

from notifier import protocol
from notifier.protocol import Batch, Invalid, Notification, Request, Response

PARSE_ERROR = {"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": None}
INVALID = {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": None}


def test_request_keeps_its_id_as_it_was_written() -> None:
    for written in (b"1", b"1.0", b'"1"', b"null", b"-7", b'"s-1"'):
        message = protocol.parse(b'{"jsonrpc": "2.0", "method": "m", "params": [1], "id": %s}' % written)
        assert message == Request(written, "m", Raw(b"[1]"))


def test_message_without_an_id_is_a_notification() -> None:
    assert protocol.parse('{"jsonrpc":"2.0","method":"update","params":{"a":1}}') == Notification(
        "update", Raw(b'{"a":1}')
    )


def test_answers_of_the_client_are_told_from_requests() -> None:
    result = protocol.parse('{"jsonrpc":"2.0","id":"s-1","result":null}')
    error = protocol.parse('{"jsonrpc":"2.0","id":"s-1","error":{"code":1,"message":"no"}}')

    assert result == Response(b'"s-1"', Raw(b"null"), None)
    assert error == Response(b'"s-1"', None, Raw(b'{"code":1,"message":"no"}'))


@pytest.mark.parametrize(
    "text", ['{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', "", "{", "[1,2", "[" * 100_000, '"\ud800"']
)
def test_text_that_is_not_json_is_a_parse_error(text: str) -> None:
    message = protocol.parse(text)
    assert isinstance(message, Invalid)
    assert msgspec.json.decode(message.reply) == PARSE_ERROR


@pytest.mark.parametrize(
    ("text", "echoed"),
    [
        ("[]", None),
        ("1", None),
        ('{"foo": "boo"}', None),
        ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', None),
        ('{"jsonrpc": "1.0", "method": "m", "id": 3}', 3),
        ('{"jsonrpc": "2.0", "method": "m", "params": "bar", "id": "x"}', "x"),
        ('{"jsonrpc": "2.0", "method": "m", "id": [1]}', None),
        ('{"jsonrpc": "2.0", "method": "m", "id": true}', None),
        ('{"jsonrpc": "2.0", "id": 4}', 4),
        ('{"jsonrpc": "2.0", "id": 4, "result": 1, "error": {}}', 4),
    ],
)
def test_json_that_is_no_message_is_an_invalid_request(text: str, echoed: object) -> None:
    message = protocol.parse(text)
    assert isinstance(message, Invalid)
    assert msgspec.json.decode(message.reply) == INVALID | {"id": echoed}


def test_batch_keeps_good_and_bad_messages_in_order() -> None:
    batch = protocol.parse(' [1, {"jsonrpc":"2.0","method":"a"}, {"jsonrpc":"2.0","method":"b","id":1}]')

    assert isinstance(batch, Batch)
    assert [type(message) for message in batch.messages] == [Invalid, Notification, Request]


def test_results_are_spliced_around_encoded_bytes() -> None:
    assert protocol.encode_result(b'"x"', b'{"a":[1]}') == b'{"jsonrpc":"2.0","id":"x","result":{"a":[1]}}'
    assert protocol.encode_batch([b"1", b"2"]) == b"[1,2]"
    assert msgspec.json.decode(protocol.encode_request("s-1", "ask", b"{}")) == {
        "jsonrpc": "2.0",
        "id": "s-1",
        "method": "ask",
        "params": {},
    }
    assert msgspec.json.decode(protocol.encode_error(b"1", -32029, "busy", {"retryAfterMs": 5}))["error"] == {
        "code": -32029,
        "message": "busy",
        "data": {"retryAfterMs": 5},
    }
