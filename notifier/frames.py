"""The client's side of RFC 6455 framing, as far as it is needed to find where frames end (section 5.2)."""

TEXT_FINAL = 0x81
PING = b"\x89\x00"
_MASKED = 0x80


def frame_bounds(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload of the frame that begins at `at` begins and ends, its mask being the four bytes before;
    None when there is too little to say. For a frame that is not masked, which no client may send, both are `at`."""
    if len(data) < at + 2:
        return None
    size = data[at + 1] ^ _MASKED
    if size >= _MASKED:
        return at, at
    if size < 126:
        return at + 6, at + 6 + size
    head = at + (4 if size == 126 else 10)
    if len(data) < head:
        return None
    return head + 4, head + 4 + int.from_bytes(data[at + 2 : head])
