"""Replicas that share one store of any kind, as their settings say it."""

from pathlib import Path

from tests.support.aws import is_place, place_of


def settings_on(url: str) -> dict[str, str]:
    """For `tests.support.service.running`, each replica with a data folder of its own unless the store is SQLite."""
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


def data_folder(url: str, tmp_path: Path, name: str) -> Path:
    """Where this replica keeps its data: of one machine with SQLite all in one place."""
    return tmp_path / ("data" if url.startswith("sqlite") else name)
