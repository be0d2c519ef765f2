"""What stands in deploy/ for AWS says what the service does."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import yaml

from services.settings import KNOWN_NAMES, Settings
from services.storage.aws import AwsPlace
from services.storage.blobs_s3 import BLOBS_PREFIX
from services.storage.dynamodb_tables import RECENT_INDEX, STATUS_INDEX, TIME_INDEX, Tables, definitions

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = Settings.model_construct()
TABLES = Tables.of(
    AwsPlace("", "", DEFAULTS.dynamodb_skills_table, DEFAULTS.dynamodb_invocations_table, DEFAULTS.s3_prefix, 30)
)
# Made by `skillwire init-storage`, which an administrator runs with rights of their own.
PREPARATION = "services/storage/preparation.py", "services/storage/dynamodb_tables.py"
S3_RIGHTS = {
    "get_object": {"s3:GetObject"},
    "put_object": {"s3:PutObject"},
    "copy_object": {"s3:GetObject", "s3:PutObject"},
    "create_multipart_upload": {"s3:PutObject"},
    "upload_part": {"s3:PutObject"},
    "complete_multipart_upload": {"s3:PutObject"},
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
    "delete_objects": {"s3:DeleteObjectVersion", "s3:DeleteObject"},
    "delete_object": {"s3:DeleteObject"},
    "list_objects_v2": {"s3:ListBucket"},
    "list_object_versions": {"s3:ListBucketVersions"},
    "get_bucket_versioning": {"s3:GetBucketVersioning"},
}
_OPERATION = re.compile(r"^(?:[a-z]+_)+(?:items?|objects?|objects_v2|versions|upload|part|versioning)$|^query$|^scan$")
# A transaction needs the right to each thing it does.
TRANSACTION = {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:ConditionCheckItem"}


def statements() -> dict[str, dict[str, Any]]:
    policy = json.loads((ROOT / "deploy" / "iam-policy.json").read_text())
    return {statement["Sid"]: statement for statement in policy["Statement"]}


def operations() -> set[str]:
    """Every operation of AWS that a replica calls, by the SDK's names."""
    names: set[str] = set()
    for path in (ROOT / "services" / "storage").glob("*.py"):
        if path.relative_to(ROOT).as_posix() in PREPARATION:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.update(_OPERATION.findall(node.value))
    return names


def test_the_policy_allows_what_the_service_calls_and_nothing_else() -> None:
    called: set[str] = set()
    for name in operations():
        if name == "transact_write_items":
            called |= TRANSACTION
        elif name in S3_RIGHTS:
            called |= S3_RIGHTS[name]
        else:
            called.add(f"dynamodb:{''.join(part.capitalize() for part in name.split('_'))}")
    allowed = {action for statement in statements().values() for action in statement["Action"]}
    assert allowed == called
    assert all(statement["Effect"] == "Allow" for statement in statements().values())


def test_the_policy_names_the_tables_indexes_and_prefixes_of_the_default_settings() -> None:
    named = {resource.rpartition(":")[2] for resource in statements()["Tables"]["Resource"]}
    indexes = {f"table/{TABLES.state}/index/{RECENT_INDEX}", f"table/{TABLES.invocations}/index/{TIME_INDEX}"}
    assert named == {f"table/{name}" for name in TABLES} | indexes
    for sid, prefix in (("Blobs", BLOBS_PREFIX), ("ReadableCopies", DEFAULTS.s3_prefix)):
        assert statements()[sid]["Resource"] == f"arn:aws:s3:::{DEFAULTS.s3_bucket}/{prefix}*"


def test_the_table_of_skills_is_the_one_that_is_known() -> None:
    skills = definitions(TABLES)[0]
    assert (skills["TableName"], skills["KeySchema"][0]["AttributeName"]) == ("mcp-skills", "skill_id")
    (index,) = skills["GlobalSecondaryIndexes"]
    keys = [key["AttributeName"] for key in index["KeySchema"]]
    assert (index["IndexName"], keys) == (STATUS_INDEX, ["status", "updated_at"])
    assert [part["AttributeName"] for part in definitions(TABLES)[-1]["KeySchema"]] == ["skill_id", "invoked_at"]


def test_compose_starts_two_replicas_with_settings_that_exist() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    for name in ("first", "second", "init-storage"):
        service = compose["services"][name]
        ours = {key for key in service["environment"] if not key.startswith("AWS_") or key == "AWS_REGION"}
        known = {f"SKILLWIRE_{field.upper()}" for field in Settings.model_fields} | set(KNOWN_NAMES)
        assert ours <= known
        assert service["environment"]["STORAGE_BACKEND"] == "s3"
        assert (ROOT / "deploy" / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    assert compose["services"]["init-storage"]["command"] == ["init-storage"]
