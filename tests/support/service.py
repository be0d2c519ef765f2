"""A real `skillwire serve` process for end-to-end tests."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

START_S = 90.0
STOP_S = 15.0
WAIT_S = 5.0
_READY = re.compile(r"http://127\.0\.0\.1:(\d+)/")


class Service:
    """A running process; `log` is everything it has said so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.log: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self) -> None:
        assert self._ready.wait(START_S)
        assert self.port, f"the service did not start:\n{''.join(self.log)}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends the process and answers its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(STOP_S)
        self._reader.join(STOP_S)
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.log.append(line)
                if "skillwire is ready" in line and (found := _READY.search(line)):
                    self.port = int(found[1])
                    self._ready.set()
        self._ready.set()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", *arguments]


def environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SKILLWIRE_")}
    return kept | {f"SKILLWIRE_{name.upper()}": value for name, value in settings.items()}


def skillwire(*arguments: str | Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    """A command from its beginning to its end."""
    return subprocess.run(
        command(*(str(argument) for argument in arguments)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(**settings),
    )


@contextmanager
def running(skills: Path, data: Path, **settings: str) -> Iterator[Service]:
    """Serves `skills` on a free port; the process is gone when the block ends."""
    with running_within((), skills, data, **settings) as service:
        yield service


@contextmanager
def running_within(before: Sequence[str], skills: Path, data: Path, /, **settings: str) -> Iterator[Service]:
    """The same, with a command before it that becomes the one that follows."""
    settings = {"scripts_allowed_owners": '["main"]', **settings}
    process = subprocess.Popen(
        [*before, *command("serve", "--port", "0", "--skills", str(skills), "--data", str(data))],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**settings),
    )
    service = Service(process)
    try:
        service.wait_ready()
        yield service
    finally:
        service.stop()


def write_skill(root: Path, name: str, description: str = "A skill for tests.", body: str = "Do it.") -> Path:
    """A strict package, written as an editor would."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    text = f"---\nname: {name}\ndescription: {description}\n---\n\n# {name}\n\n{body}\n"
    (folder / "SKILL.md").write_text(text)
    return folder


def get(service: Service, path: str, **params: str) -> "dict[str, object]":
    """`data` of a REST answer, which must be a success."""
    answer = httpx2.get(f"{service.url}/api/v1{path}", params=params, timeout=5)
    body = answer.json()
    assert answer.status_code == 200, body
    assert body["success"] is True
    data: dict[str, object] = body["data"]
    return data


def wait_for_skills(service: Service, count: int) -> None:
    """Until the catalog lists `count` skills; they may have been published before anyone could listen."""
    events = httpx2.stream("GET", f"{service.url}/events?topics=skills", timeout=WAIT_S)
    with events as stream:
        for _ in stream.iter_lines():  # `hello` first, then one line or more for every change
            items = get(service, "/skills", limit="500")["items"]
            assert isinstance(items, list)
            if len(items) >= count:
                return
    raise AssertionError(f"fewer than {count} skills after {WAIT_S} s")
