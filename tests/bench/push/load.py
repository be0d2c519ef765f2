"""The clients of the push benchmarks: `python -m tests.bench.push.load PORT CONTROL CLIENTS KIND`.

Opens CLIENTS connections, then reads whatever comes and counts the events by a mark that each holds once. Whenever all
connections together have received CLIENTS more events, one byte goes to the control connection: the server knows then
that an event has arrived everywhere.
"""

import contextlib
import resource
import select
import socket
import sys

# Of a character that no frame header and no JSON of ours holds otherwise.
MARK = b"\xa7"
_WEBSOCKET = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_GET = "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
_SUBSCRIBE = b'{"jsonrpc":"2.0","id":1,"method":"subscribe","params":{"topics":["skills"]}}'
# What a connection sends first, and what it sends once the server has answered.
KINDS = {
    "skillwire-ws": (_WEBSOCKET.format(path="/ws"), _SUBSCRIBE),
    "websocket": (_WEBSOCKET.format(path="/ws"), b""),
    "socket.io": (_WEBSOCKET.format(path="/socket.io/?EIO=4&transport=websocket"), b"40"),
    "sse": (_GET.format(path="/events?topics=skills"), b""),
}


def masked(text: bytes) -> bytes:
    """A client's text frame; a mask of zeros leaves the payload as it is."""
    head = bytes([0x81, 0x80 | len(text)]) if len(text) < 126 else b"\x81\xfe" + len(text).to_bytes(2, "big")
    return head + bytes(4) + text


def connect(port: int, kind: str, receive_bytes: int = 0) -> socket.socket:
    """A connection whose handshake is done; `receive_bytes` makes its kernel buffer that small."""
    request, then = KINDS[kind]
    client = socket.socket()
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.connect(("127.0.0.1", port))
    client.settimeout(10)
    client.sendall(request.encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    if then:
        client.sendall(masked(then))
        client.recv(4096)
    client.setblocking(False)
    return client


def main(port: int, control_port: int, clients: int, kind: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, clients + 100)), hard))
    control = socket.create_connection(("127.0.0.1", control_port))
    poll = select.epoll()
    connections = {}
    for _ in range(clients):
        client = connect(port, kind)
        connections[client.fileno()] = client
        poll.register(client, select.EPOLLIN)
    control.sendall(b"+")
    poll.register(control, select.EPOLLIN)
    buffer, received, told = bytearray(256 * 1024), 0, 0
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == control.fileno():
                return
            with contextlib.suppress(BlockingIOError):
                count = connections[descriptor].recv_into(buffer)
                if not count:
                    poll.unregister(descriptor)
                received += buffer.count(MARK, 0, count)
        if (complete := received // clients) > told:
            control.sendall(b"." * (complete - told))
            told = complete


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
