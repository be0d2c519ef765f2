"""A proxy for one name: tools of packages are `<owner>_<skill>_<tool>`, and the suite calls one `greet`."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2

CALLED, SERVED = "greet", "test_greet"
_TIMEOUT_S = 60.0
_HOP = frozenset(("connection", "content-length", "host", "transfer-encoding"))


@contextmanager
def renaming(target: str) -> Iterator[str]:
    """The URL of a proxy before `target`, whose answers are sent when they are whole: no streams."""

    class Relay(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items() if name.lower() not in _HOP}
            if body.get("method") == "tools/call" and body["params"].get("name") == CALLED:
                body["params"]["name"] = SERVED
                headers |= {"mcp-name": SERVED} if headers.get("mcp-name") == CALLED else {}
            answer = httpx2.post(f"{target}{self.path}", json=body, headers=headers, timeout=_TIMEOUT_S)
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers.get("content-type", "application/json"))
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            """Says nothing: the suite does."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
