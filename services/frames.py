"""Length-prefixed frames between this process and a child: 4 bytes, big endian, then the payload."""

FRAME_BYTES_MAX = 16 * 1024 * 1024


class FrameTooLarge(Exception):
    """The other side announced more than `FRAME_BYTES_MAX`; the stream cannot be trusted any more."""


def pack(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


class FrameDecoder:
    """Turns received bytes into whole payloads; does no I/O and keeps at most one partial frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete now, oldest first. Raises `FrameTooLarge`."""
        self._buffer += data
        payloads: list[bytes] = []
        at = 0
        while len(self._buffer) - at >= 4:
            size = int.from_bytes(self._buffer[at : at + 4], "big")
            if size > FRAME_BYTES_MAX:
                raise FrameTooLarge(f"a frame of {size} bytes was announced; {FRAME_BYTES_MAX} is the most")
            if len(self._buffer) - at - 4 < size:
                break
            payloads.append(bytes(self._buffer[at + 4 : at + 4 + size]))
            at += 4 + size
        del self._buffer[:at]
        return payloads
