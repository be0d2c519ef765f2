"""The document that `rpc.discover` answers says what the registry serves."""

from gateway import openrpc
from gateway.operations import OPERATIONS
from gateway.routes.push import rpc_registry
from tests.test_docs import NO_REPLICA, connection_commands

DOCUMENT = openrpc.document(OPERATIONS, "1.2.3")
METHODS = {method["name"]: method for method in DOCUMENT["methods"]}


def test_every_command_is_described_and_no_other() -> None:
    assert METHODS.keys() == set(rpc_registry(NO_REPLICA, OPERATIONS).names) | connection_commands()
    assert len(METHODS) == len(DOCUMENT["methods"])
    assert DOCUMENT["info"] == {"title": "Skillwire", "version": "1.2.3"}


def test_parameters_are_those_of_the_operation_required_ones_first() -> None:
    rollback = METHODS["rollback"]
    assert [(each["name"], each["required"]) for each in rollback["params"]] == [
        ("owner", True),
        ("name", True),
        ("version", True),
    ]
    assert rollback["params"][2]["schema"]["type"] == "integer"
    assert (rollback["x-scope"], rollback["paramStructure"]) == ("publish", "by-name")
    assert [each["name"] for each in METHODS["subscribe"]["params"]] == ["topics", "since"]
    optional = {each["name"] for each in METHODS["list_skills"]["params"] if not each["required"]}
    assert {"limit", "cursor"} <= optional


def test_references_lead_to_schemas_of_the_document() -> None:
    text = str(DOCUMENT["methods"])
    for part in text.split("#/components/schemas/")[1:]:
        assert part.split("'")[0] in DOCUMENT["components"]["schemas"]
