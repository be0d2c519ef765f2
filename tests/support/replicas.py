"""Replicas that share one store of any kind, as their settings say it."""

from contextlib import ExitStack
from pathlib import Path

from tests.support.aws import is_place, place_of
from tests.support.service import Service, running


def settings_on(url: str) -> dict[str, str]:
    """For `tests.support.service.running`."""
    quiet = {"embedder": "off", "redis_url": "off"}
    if not is_place(url):
        return {"database_url": url, **quiet}
    place = place_of(url)
    return {
        "storage_backend": "s3",
        "s3_bucket": place.bucket,
        "s3_endpoint_url": place.s3_endpoint,
        "dynamodb_endpoint_url": place.dynamodb_endpoint,
        "dynamodb_skills_table": place.skills_table,
        "dynamodb_invocations_table": place.invocations_table,
        **quiet,
    }


def two_replicas(stack: ExitStack, url: str, tmp_path: Path) -> list[Service]:
    """Two processes that share this store and watch nothing; on SQLite also the folder of their data."""
    skills = tmp_path / "skills"
    skills.mkdir(exist_ok=True)
    names = ("data", "data") if url.startswith("sqlite") else ("here", "there")
    return [stack.enter_context(running(skills, tmp_path / name, **settings_on(url), watch="off")) for name in names]
