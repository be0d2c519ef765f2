from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.settings import KNOWN_NAMES, Settings


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of this machine: an empty folder, and none in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SKILLWIRE_{name.upper()}", raising=False)
    for name in KNOWN_NAMES:
        monkeypatch.delenv(name, raising=False)


def test_the_defaults_serve_this_machine_alone() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.is_loopback) == ("127.0.0.1", 8080, True)
    assert settings.scripts_allowed_owners == ()
    assert settings.admin_key == ""


def test_the_environment_is_stronger_than_the_file_and_the_file_than_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "skillwire.toml").write_text('port = 9001\nowner = "team"\nscripts_allowed_owners = ["team"]\n')
    monkeypatch.setenv("SKILLWIRE_PORT", "9002")
    settings = Settings()
    assert (settings.port, settings.owner, settings.workers_max) == (9002, "team", 4)
    assert settings.scripts_allowed_owners == ("team",)
    assert Settings(port=9003).port == 9003


def test_the_names_that_deployments_on_aws_have_already_stand_behind_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "skillwire.toml").write_text('s3_bucket = "of-the-file"\naws_region = "eu-west-1"\n')
    monkeypatch.setenv("STORAGE_BACKEND", "s3")
    monkeypatch.setenv("S3_SKILLS_BUCKET", "known")
    monkeypatch.setenv("INVOCATION_LOG_TTL_DAYS", "7")
    monkeypatch.setenv("DYNAMODB_SKILLS_TABLE", "theirs")
    monkeypatch.setenv("SKILLWIRE_DYNAMODB_SKILLS_TABLE", "ours")
    monkeypatch.setenv("S3_ENDPOINT_URL", "")
    settings = Settings()
    assert (settings.storage_backend, settings.s3_bucket, settings.aws_region) == ("s3", "known", "eu-west-1")
    assert (settings.invocation_keep_days, settings.dynamodb_skills_table) == (7, "ours")
    assert settings.s3_endpoint_url == ""


def test_lists_in_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKILLWIRE_ALLOWED_HOSTS", '["a.example", "b.example"]')
    assert Settings().allowed_hosts == ("a.example", "b.example")


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKILLWIRE_PORT", "")
    monkeypatch.setenv("SKILLWIRE_ADMIN_KEY", "")
    assert (Settings().port, Settings().admin_key) == (8080, "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65_536),
        ("owner", ""),
        ("owner", "Team"),
        ("owner", "-a"),
        ("owner", "a/b"),
        ("owner", "a_b"),
        ("owner", "main\n"),
        ("owner", "x" * 64),
        ("storage_backend", "ftp"),
        ("watch", "sometimes"),
        ("workers_max", 0),
        ("call_queue_max", 0),
        ("l1_entries_max", 0),
        ("tail_interval_s", 0),
        ("tail_interval_s", 0.5),
        ("ring_events_max", 1),
        ("upload_bytes_max", 10),
        ("shutdown_grace_s", 0),
        ("log_level", "chatty"),
        ("admin_key", "x" * 31),
    ],
)
def test_a_value_beyond_its_bounds_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**{name: value})  # type: ignore[arg-type]
    assert refused.value.errors()[0]["loc"] == (name,)


def test_a_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    (tmp_path / "skillwire.toml").write_text("prot = 9001\n")
    with pytest.raises(ValidationError, match="prot"):
        Settings()
    with pytest.raises(ValidationError, match="prot"):
        Settings(prot=1)  # type: ignore[call-arg]


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_the_key_is_not_shown() -> None:
    key = "0123456789abcdef" * 3
    assert key not in repr(Settings(admin_key=key))
    assert key not in str(Settings(admin_key=key))


def test_a_key_that_is_refused_is_not_shown() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(admin_key="tell-nobody-about-this")
    assert "tell-nobody" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback_is_said_of_nothing_that_others_reach(host: str, is_loopback: bool) -> None:
    assert Settings(host=host).is_loopback is is_loopback


def test_the_database_lies_in_the_data_folder_unless_one_is_named(tmp_path: Path) -> None:
    settings: Any = Settings(data_dir=Path("data"))
    assert settings.resolved_database_url == f"sqlite:///{tmp_path}/data/skillwire.db"
    assert Settings(database_url="sqlite:////x.db").resolved_database_url == "sqlite:////x.db"
