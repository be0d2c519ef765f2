"""All settings, read once: `SKILLWIRE_*` in the environment, then `skillwire.toml`, then the defaults here."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

# Names that deployments on S3 and DynamoDB have in their environment already; ours go before them.
KNOWN_NAMES = {
    "STORAGE_BACKEND": "storage_backend",
    "AWS_REGION": "aws_region",
    "S3_SKILLS_BUCKET": "s3_bucket",
    "S3_SKILLS_PREFIX": "s3_prefix",
    "S3_ENDPOINT_URL": "s3_endpoint_url",
    "DYNAMODB_SKILLS_TABLE": "dynamodb_skills_table",
    "DYNAMODB_INVOCATION_LOGS_TABLE": "dynamodb_invocations_table",
    "DYNAMODB_ENDPOINT_URL": "dynamodb_endpoint_url",
    "INVOCATION_LOG_TTL_DAYS": "invocation_keep_days",
}
_TABLE_NAME = r"^[A-Za-z0-9_.-]{3,200}$"
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class KnownNames(PydanticBaseSettingsSource):
    """The settings that stand in the environment under a name of `KNOWN_NAMES`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002  # the base class's
        name = next((name for name, setting in KNOWN_NAMES.items() if setting == field_name), "")
        return os.environ.get(name) or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found = ((name, self.get_field_value(FieldInfo(), name)[0]) for name in self.settings_cls.model_fields)
        return {name: value for name, value in found if value is not None}


class Settings(BaseSettings):
    """Frozen; documented row by row in `docs/operations.md`, which a test keeps complete."""

    model_config = SettingsConfigDict(
        env_prefix="SKILLWIRE_",
        toml_file="skillwire.toml",
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # a key that is too short is still somebody's secret
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    skills_dir: Path = Path("skills")
    data_dir: Path = Path(".skillwire")
    owner: str = Field(default="main", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    database_url: str = ""
    redis_url: str = "embedded"
    storage_backend: Literal["local", "s3"] = "local"
    aws_region: str = "us-east-1"
    s3_bucket: str = "mcp-skills-bucket"
    s3_prefix: str = Field(default="skills/", pattern=r"^[A-Za-z0-9_.-][A-Za-z0-9_./-]{0,200}/$")
    s3_endpoint_url: str = ""
    dynamodb_skills_table: str = Field(default="mcp-skills", pattern=_TABLE_NAME)
    dynamodb_invocations_table: str = Field(default="mcp-invocation-logs", pattern=_TABLE_NAME)
    dynamodb_endpoint_url: str = ""
    milvus_uri: str = ""
    admin_key: str = Field(default="", repr=False)
    audit_key: str = Field(default="", repr=False)
    advertise_url: str = Field(default="", pattern=r"^(https?://[^/?#\s]+)?$")
    allowed_hosts: tuple[str, ...] = ()
    watch: Literal["auto", "poll", "off"] = "auto"
    scripts_allowed_owners: tuple[str, ...] = ()
    workers_max: int = Field(default=4, ge=1, le=256)
    tools_list_limit: int = Field(default=64, ge=0)
    call_queue_max: int = Field(default=256, ge=1)
    l1_entries_max: int = Field(default=2000, ge=1)
    l1_policy: Literal["s3fifo", "lru"] = "s3fifo"
    l1_bytes_max: int = Field(default=64 * 1024 * 1024, ge=1024)
    cache_audit_one_in: int = Field(default=1000, ge=0)
    tail_interval_s: float = Field(default=0.15, gt=0, le=0.4)
    versions_kept_max: int = Field(default=50, ge=1)
    invocation_keep_days: float = Field(default=30.0, gt=0)
    run_keep_h: float = Field(default=24.0, ge=2)
    blob_keep_h: float = Field(default=24.0, ge=1)
    log_keep_rows: int = Field(default=100_000, ge=1000)
    ring_events_max: int = Field(default=16_384, ge=16)
    upload_bytes_max: int = Field(default=32 * 1024 * 1024, ge=1024)
    embedder: Literal["use", "off"] = "use"
    embedder_idle_s: float = Field(default=120.0, gt=0)
    shutdown_grace_s: float = Field(default=8.0, gt=0)
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("s3_prefix")
    @classmethod
    def _not_ours(cls, value: str) -> str:
        if value.startswith(("blobs/", "uploads/")):
            raise ValueError("s3_prefix may not be below blobs/ or uploads/")
        return value

    @field_validator("admin_key", "audit_key")
    @classmethod
    def _long_enough(cls, value: str, info: ValidationInfo) -> str:
        if value and len(value) < 32:
            raise ValueError(f"{info.field_name} needs at least 32 characters, e.g. from `openssl rand -hex 24`")
        return value

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can reach the service."""
        return self.host in _LOOPBACK

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{(self.data_dir / 'skillwire.db').absolute()}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the base class passes it by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # the same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        known_names = KnownNames(settings_cls)
        return init_settings, env_settings, known_names, TomlConfigSettingsSource(settings_cls)
