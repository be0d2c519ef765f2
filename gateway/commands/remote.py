"""A running service as the command line's client: packages go up whole, large ones in parts."""

import hashlib
import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import httpx2

from services.skills.package import Package, printable
from services.skills.uploads import PART_BYTES_MAX

_TIMEOUT_S = 60.0
# A service that is full or restarting says when to come back; three times is enough for both.
_TRIES = 4
_WAIT_MAX_S = 10.0
_LATER = (429, 502, 503, 504)


class Refused(Exception):
    """The service answered, and did not do it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.detail = detail


class Unreachable(click.ClickException):
    """No answer, or none that Skillwire would give. Exit status 3."""

    exit_code = 3


class Made(NamedTuple):
    id: str
    version: int
    digest: str
    changed: bool


Progress = Callable[[int], None]


class Remote:
    """One service; used by several threads at once. Close it."""

    def __init__(self, url: str, key: str | None) -> None:
        if key and not (key.isascii() and key.isprintable()):
            raise click.UsageError("the key holds characters that no key has: it is ASCII, in one line")
        self._url = url.rstrip("/")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(base_url=f"{self._url}/api/v1", headers=headers, timeout=_TIMEOUT_S)

    def close(self) -> None:
        self._client.close()

    def publish(
        self,
        data: bytes,
        owner: str,
        if_match: str | None = None,
        progress: Progress | None = None,
        *,
        activate: bool = True,
    ) -> Made:
        """Publishes a zip; `progress` is told of bytes as they arrive. Raises `Refused` and `Unreachable`."""
        if len(data) > PART_BYTES_MAX:
            made = self._publish_in_parts(data, {"owner": owner, "if_match": if_match, "activate": activate}, progress)
        else:
            made = self._answer(
                "POST",
                "/skills",
                files={"file": ("package.zip", data, "application/zip")},
                data={"owner": owner, "activate": str(activate).lower()},
                headers={"if-match": if_match} if if_match else {},
            )
            if progress is not None:
                progress(len(data))
        return Made(made["id"], made["version"], made["digest"], made["changed"])

    def _publish_in_parts(self, data: bytes, how: dict[str, Any], progress: Progress | None) -> Any:
        names: list[str] = []
        for start in range(0, len(data), PART_BYTES_MAX):
            part = data[start : start + PART_BYTES_MAX]
            names.append(hashlib.sha256(part).hexdigest())
            # What an upload before this one sent, as far as it came, is there already.
            if self._send("HEAD", f"/uploads/{names[-1]}").status_code != 200:
                self._answer("PUT", f"/uploads/{names[-1]}", content=part)
            if progress is not None:
                progress(len(part))
        return self._answer("POST", "/uploads", json={"parts": names, **how})

    def _answer(self, method: str, path: str, **request: Any) -> Any:
        """`data` of a success. Raises `Refused` and `Unreachable`."""
        answer = self._send(method, path, **request)
        try:
            body = answer.json()
            if answer.is_success:
                return body["data"]
            raise Refused(body["code"], body["detail"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._unreachable(f"HTTP {answer.status_code} that is none of its answers") from error

    def _send(self, method: str, path: str, **request: Any) -> httpx2.Response:
        for left in reversed(range(_TRIES)):
            try:
                answer = self._client.request(method, path, **request)
            except httpx2.HTTPError as error:
                raise self._unreachable(str(error)) from error
            if answer.status_code not in _LATER or not left:
                break
            time.sleep(_wait_s(answer.headers.get("retry-after", "")))
        return answer

    def _unreachable(self, reason: str) -> Unreachable:
        return Unreachable(f"{self._url} does not answer as Skillwire does: {reason}; is `skillwire serve` running?")


def _wait_s(retry_after: str) -> float:
    """Seconds. A proxy before the service may say a date instead: then it is asked again soon."""
    return min(float(retry_after), _WAIT_MAX_S) if retry_after.isascii() and retry_after.isdigit() else 1.0


def zip_of(package: Package, folder: str) -> bytes:
    """The package as a zip, the same bytes every time, so that an upload in parts can go on."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in sorted(package.files.items()):
            archive.writestr(zipfile.ZipInfo(f"{folder}/{path}"), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def name_of(folder: Path) -> str:
    """As it may stand in a zip: Linux names are bytes, which need not be UTF-8."""
    return printable(folder.resolve().name)
