"""Where a package to publish comes from: a folder, a zip, the URL of a zip, a git repository.

A URL is somebody else's text. Every address on the way, redirects included, is resolved once and
connected to as it was checked; addresses of this machine and its networks must be asked for.
git runs without hooks, submodules or prompts.
"""

import ipaddress
import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urljoin, urlsplit

import click
import httpx2

from gateway.commands.remote import name_of, zip_of
from services.skills.package import find_roots, has_skill_md, path_problem, read_folder, why_quarantined

DOWNLOAD_BYTES_MAX = 32 * 1024 * 1024
REDIRECTS_MAX = 5
_DOWNLOAD_S = 60.0
_CLONE_S = 300.0
_GIT_SCHEMES = ("https", "http", "ssh", "file")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,200}")


def zip_from(origin: str, *, allow_private: bool) -> bytes:
    """The package as a zip. Raises `click.ClickException` that says what is wrong with the origin."""
    if origin.startswith("git+"):
        with cloned(origin) as folder:
            return _zip_folder(folder, origin)
    if re.match(r"https?://", origin):
        return download(origin, allow_private=allow_private)
    path = Path(origin)
    if not path.exists():
        raise click.BadParameter(
            f"{origin} is no folder, no file and no URL of http, https or git+", param_hint="PACKAGE"
        )
    return _zip_folder(path, origin) if path.is_dir() else path.read_bytes()


@contextmanager
def folder_from(origin: str) -> Iterator[Path]:
    """The folder that holds packages: one of this machine, or of a git repository, which is gone when the
    block ends. Raises as `zip_from`."""
    if origin.startswith("git+"):
        with cloned(origin) as folder:
            yield folder
    elif Path(origin).is_dir():
        yield Path(origin)
    else:
        raise click.BadParameter(f"{origin} is no folder and no URL of git+", param_hint="FOLDER")


def _zip_folder(folder: Path, origin: str) -> bytes:
    if not has_skill_md(folder) and (roots := find_roots(folder)):
        named = ", ".join(root.relative_to(folder).as_posix() for root in roots[:5])
        raise click.ClickException(
            f"{origin} is no package but holds {len(roots)}: {named}; publish one, "
            f"or all with `skillwire import {origin}`"
        )
    package = read_folder(folder)
    if package.grade == "quarantined":
        # Not left to the service: what is no plain file, or cannot be read, would just be missing from the zip.
        raise click.ClickException(f"{origin} cannot be served: {why_quarantined(package)}")
    return zip_of(package, name_of(folder))


def download(url: str, *, allow_private: bool) -> bytes:
    """The bytes at an http or https URL, at most `DOWNLOAD_BYTES_MAX`, over at most `REDIRECTS_MAX` redirects."""
    with httpx2.Client(timeout=_DOWNLOAD_S, follow_redirects=False, trust_env=False) as client:
        for _ in range(REDIRECTS_MAX + 1):
            address = _checked(url, allow_private=allow_private)
            request = client.build_request(
                "GET",
                address.url,
                headers={"host": address.authority, "accept-encoding": "identity"},
                extensions={"sni_hostname": address.host},
            )
            try:
                with closing(client.send(request, stream=True)) as answer:
                    if not answer.has_redirect_location:
                        return _read_bounded(answer, url)
            except httpx2.HTTPError as error:
                raise click.ClickException(f"{url} cannot be read: {error}") from error
            target = urljoin(url, answer.headers["location"])
            if url.startswith("https:") and not target.startswith("https:"):
                raise click.ClickException(f"{url} leads on to {target}, which is not encrypted")
            url = target
    raise click.ClickException(f"more than {REDIRECTS_MAX} redirects, the last to {url}")


class _Address(NamedTuple):
    """`url` names the host by the number that was checked; `host` and `authority` as the URL had it."""

    url: httpx2.URL
    host: str
    authority: str


def _checked(url: str, *, allow_private: bool) -> _Address:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError) as error:
        raise click.ClickException(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise click.ClickException(f"{url} is no URL of http or https")
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(parsed.host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise click.ClickException(f"the host of {url} is not known: {error}") from error
    numbers = [ipaddress.ip_address(entry[4][0]) for entry in found]
    for number in numbers:
        if reason := _forbidden(number, allow_private=allow_private):
            raise click.ClickException(f"{url} leads to {number}, {reason}")
    return _Address(parsed.copy_with(host=str(numbers[0])), parsed.host, parsed.netloc.decode())


def _forbidden(number: ipaddress.IPv4Address | ipaddress.IPv6Address, *, allow_private: bool) -> str | None:
    mapped = number.ipv4_mapped if isinstance(number, ipaddress.IPv6Address) else None
    number = mapped or number
    if number.is_link_local or number.is_multicast or number.is_unspecified:
        return "where no package is kept"
    if not number.is_global and not allow_private:
        return "an address of this machine or a private network; say --allow-private if that is meant"
    return None


def _read_bounded(answer: httpx2.Response, url: str) -> bytes:
    if answer.status_code != 200:
        raise click.ClickException(f"{url} answers {answer.status_code}")
    data = bytearray()
    for chunk in answer.iter_raw():
        data += chunk
        if len(data) > DOWNLOAD_BYTES_MAX:
            raise click.ClickException(f"{url} holds more than {DOWNLOAD_BYTES_MAX} bytes")
    return bytes(data)


@contextmanager
def cloned(origin: str) -> Iterator[Path]:
    """A folder of a repository's newest commit, gone when the block ends."""
    source, _, fragment = origin.removeprefix("git+").partition("#")
    parsed = urlsplit(source)
    path, at, ref = parsed.path.rpartition("@") if "@" in parsed.path else (parsed.path, "", "")
    if parsed.scheme not in _GIT_SCHEMES or parsed.netloc.startswith("-") or (at and _REF.fullmatch(ref) is None):
        raise click.ClickException(f"{origin!r} is not of the form git+https://HOST/REPOSITORY[@REF][#subdir=FOLDER]")
    url = parsed._replace(path=path, query="").geturl()
    subdir = parse_qs(fragment).get("subdir", [""])[0].strip("/")
    if subdir and path_problem(subdir):
        raise click.ClickException(f"the folder {subdir!r} is not allowed: {path_problem(subdir)}")
    with tempfile.TemporaryDirectory(prefix="skillwire-") as scratch:
        target = Path(scratch) / (Path(path).name.removesuffix(".git") or "repository")
        _git_clone(url, ref, target)
        folder = target / subdir
        # A link in the repository may lead anywhere.
        if not folder.is_dir() or not folder.resolve().is_relative_to(target.resolve()):
            raise click.ClickException(f"{url} has no folder {subdir!r}")
        yield folder


def _git_clone(url: str, ref: str, target: Path) -> None:
    command = [
        "git",
        "-c",
        f"core.hooksPath={os.devnull}",
        "-c",
        "core.fsmonitor=false",
        "-c",
        "protocol.ext.allow=never",
    ]
    command += ["clone", "--quiet", "--depth", "1", "--no-tags", "--no-recurse-submodules", "--template="]
    command += ["--branch", ref] if ref else []
    command += ["--", url, str(target)]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CLONE_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise click.ClickException("git+ needs the program `git`") from error
    except subprocess.TimeoutExpired as error:
        raise click.ClickException(f"{url} was not cloned within {_CLONE_S:.0f} s") from error
    if done.returncode:
        raise click.ClickException(f"{url} cannot be cloned: {done.stderr.strip()[-500:]}")
