"""SIGTERM with a thousand open streams: each ends cleanly, and goes on at the other replica without a gap."""

import re
import resource
import socket
from pathlib import Path

import httpx2
import msgspec
import pytest

from tests.support.packages import skill_md, zip_of
from tests.support.service import Service, running

STREAMS = 1000
WAIT_S = 60


@pytest.fixture(autouse=True)
def many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))


def publish(service: Service, text: str) -> str:
    """The position that holds it."""
    answer = httpx2.post(
        f"{service.url}/api/v1/skills",
        files={"file": ("demo.zip", zip_of({"SKILL.md": skill_md(body=text)}), "application/zip")},
        timeout=WAIT_S,
    )
    assert answer.status_code == 201, answer.text
    return answer.headers["x-position"]


class RawStream:
    """One connection read as bytes, so that nothing a client library does hides what was sent."""

    def __init__(self, service: Service, since: str) -> None:
        self.received = b""
        self.is_at_end = False
        self.socket = socket.create_connection(("127.0.0.1", service.port), timeout=WAIT_S)
        self.begin(since)

    def begin(self, since: str) -> None:
        raise NotImplementedError

    def read_until(self, mark: bytes) -> None:
        while mark not in self.received:
            data = self.socket.recv(65536)
            if not data:
                self.is_at_end = True
                break
            self.received += data
        assert mark in self.received, self.received[-300:]

    def read_to_end(self) -> None:
        while data := self.socket.recv(65536):
            self.received += data
        self.socket.close()

    def ids(self) -> list[str]:
        """The ids of the events, in order."""
        return [found.decode() for found in re.findall(rb'\{"id":"([^"]+)","prev":', self.received)]

    def ended_cleanly(self) -> bool:
        raise NotImplementedError


class RawSse(RawStream):
    def begin(self, since: str) -> None:
        resume = f"Last-Event-ID: {since}\r\n" if since else ""
        self.socket.sendall(f"GET /events?topics=skills HTTP/1.1\r\nHost: 127.0.0.1\r\n{resume}\r\n".encode())
        self.read_until(b"event: hello")

    def ended_cleanly(self) -> bool:
        return b"event: bye\nretry: " in self.received and self.received.endswith(b"\r\n0\r\n\r\n")


class RawWebSocket(RawStream):
    def begin(self, since: str) -> None:
        self.socket.sendall(
            b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        self.read_until(b"\r\n\r\n")
        params = {"topics": ["skills"], **({"since": since} if since else {})}
        call = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": params})
        head = b"\x81" + (bytes([0x80 | len(call)]) if len(call) < 126 else b"\xfe" + len(call).to_bytes(2, "big"))
        self.socket.sendall(head + bytes(4) + call)  # masked with zeros
        self.read_until(b'"recovered":')

    def ended_cleanly(self) -> bool:
        return b'"method":"bye"' in self.received and self.received.endswith(b"\x88\x0a\x0b\xb9shutdown")


def test_every_stream_ends_with_a_resumable_close_and_resumes_elsewhere(tmp_path: Path) -> None:
    skills = tmp_path / "skills"
    skills.mkdir()
    settings = {"watch": "off", "embedder": "off", "redis_url": "off"}
    with (
        running(skills, tmp_path / "data", **settings) as leaving,
        running(skills, tmp_path / "data", **settings) as other,
    ):
        streams = [(RawSse if number % 2 else RawWebSocket)(leaving, "") for number in range(STREAMS)]
        first = publish(leaving, "one")
        for stream in streams:
            stream.read_until(first.encode())
        leaving.process.terminate()
        second = publish(other, "two")
        for stream in streams:
            stream.read_to_end()
        assert leaving.process.wait(WAIT_S) == 0
        assert [stream.ended_cleanly() for stream in streams] == [True] * STREAMS

        resumed = [type(stream)(other, stream.ids()[-1]) for stream in streams]
        third = publish(other, "three")
        for stream in resumed:
            stream.read_until(third.encode())
            assert b"reset" not in stream.received
        seen = [[*before.ids(), *after.ids()] for before, after in zip(streams, resumed, strict=True)]
        assert seen == [[first, second, third]] * STREAMS
        for stream in resumed:
            stream.socket.close()
