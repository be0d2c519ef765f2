"""The child that runs a skill's tools: loads one script, then answers calls over a socket.

It is bound into the sandbox as a single file, so it imports the standard library alone and
nothing of ours. Frames are those of `services/frames.py`: 4 bytes, big endian, then JSON.

    -> {"id", "arguments", "cpu_s", "function" | "argv", "call": {...} for an interactive tool}
    <- {"notice": {"kind", ...}}                 what an interactive tool says while it runs
    <- {"ready": true, "load_ms"}               once, after the script is loaded
    <- {"ready": false, "error"}                 once, then the worker ends
    <- {"id", "ok", "ms", "logs", "result" | "error": {"code", "type", "message", "traceback"}}

What a tool prints is returned as `logs`. What is written below Python (C code, children that
inherit standard output) goes to /dev/null, so nothing but frames ever reaches the socket. A
tool shares this process with the worker and could write frames of its own: the parent trusts
no frame more than it trusts the tool.
"""

import contextlib
import importlib.util
import io
import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
import typing
from pathlib import Path

PACKAGE = Path("/skill")
SCRATCH = (Path("/job"), Path("/tmp"))
LOG_BYTES_MAX = 64 * 1024
RESULT_BYTES_MAX = 1024 * 1024
TRACEBACK_CHARS_MAX = 4000
MESSAGE_CHARS_MAX = 2000
MEMORY_MB_MIN = 64  # an idle interpreter maps 20 MB; less than this and the loader itself fails
FILE_BYTES_MAX = 32 * 1024 * 1024
OPEN_FILES_MAX = 64
LOAD_CPU_S = 3600.0  # the parent's clock is stricter; this ends a script whose parent died meanwhile
# Holds where the service is not root: the kernel never applies this limit to the host's uid 0.
# 128: before Linux 5.14 every process of the service's user counts, not the sandbox's alone.
PROCESSES_MAX = 128


class ToolError(Exception):
    """A failed call with a code of its own."""

    def __init__(self, code: str, message: str, logs: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.logs = logs


class CappedSink(io.RawIOBase):
    """Keeps the first `LOG_BYTES_MAX` bytes of one call and counts the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._kept = bytearray()
        self._dropped = 0

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:  # type: ignore[no-untyped-def]  # any buffer
        view = bytes(data)
        kept = view[: max(0, LOG_BYTES_MAX - len(self._kept))]
        self._kept += kept
        self._dropped += len(view) - len(kept)
        return len(view)

    def take(self) -> str:
        """What was written since the last take."""
        if not self._kept:
            return ""
        text = self._kept.decode("utf-8", "replace")
        if self._dropped:
            text += f"\n[{self._dropped} bytes more]"
        self._kept.clear()
        self._dropped = 0
        return text


def limit_self(memory_mb: int) -> None:
    """Sets the limits that hold for the worker's whole life, hard and soft alike."""
    memory = max(memory_mb, MEMORY_MB_MIN) * 1024 * 1024
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, FILE_BYTES_MAX),
        (resource.RLIMIT_NOFILE, OPEN_FILES_MAX),
        (resource.RLIMIT_NPROC, PROCESSES_MAX),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def allow_cpu(seconds: float) -> None:
    """Re-arms the processor limit for one call.

    RLIMIT_CPU counts over the life of a process, so a fixed one would kill a warm worker after
    enough good calls. It is the second line: the parent's clock kills first, unless it is stopped.
    """
    used = math.ceil(time.process_time() + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (used, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def load(script: str) -> dict[str, object]:
    """Runs a script as a module of its own; its folder is importable, as with `python x.py`."""
    path = PACKAGE / script
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{script} is not a Python script")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses and pickle look the module up by its name
    spec.loader.exec_module(module)
    return vars(module)


class Call:
    """The second argument of an interactive tool: what it knows of its caller, and may say while it runs.

    `capabilities` are the client's. To ask, the tool returns `{"inputRequests": {key: {"method", "params"}},
    "requestState": text}`; it is called again with the answers in `responses`, by the same keys, and the
    text in `state`. It may be another worker that answers: what matters stands in the state.
    """

    def __init__(self, known: dict[str, typing.Any], send: typing.Callable[[bytes], None]) -> None:
        self.capabilities = known["capabilities"]
        self.responses = known["responses"]
        self.state = known["state"]
        self._send = send

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        self._say({"kind": "progress", "progress": done, "total": total, "message": message})

    def log(self, data: object, level: str = "info") -> None:
        self._say({"kind": "log", "level": level, "data": data})

    def detach(self) -> None:
        """Lets the client hang up and come back for the result, where its transport can."""
        self._say({"kind": "detach"})

    def _say(self, notice: dict[str, object]) -> None:
        self._send(b'{"notice":' + encode_result(notice) + b"}")


def call_function(names: dict[str, object], name: str, arguments: dict[str, object], call: Call | None) -> object:
    function = names.get(name)
    if not callable(function):
        raise ToolError("no_function", f"the script has no function {name!r}")
    return function(arguments) if call is None else function(arguments, call)


def run_process(argv: list[str], arguments: dict[str, object]) -> tuple[object, str]:
    """Runs one process to its end and answers its result and what it wrote to stderr.

    Its streams are memory files, so a child that floods one meets RLIMIT_FSIZE and never us.
    """
    words = [str(PACKAGE / argv[1]), *argv[2:]]
    program = [sys.executable, "-EsSB"] if argv[0] in ("python", "python3") else [argv[0]]
    with contextlib.ExitStack() as stack:
        given, out, err = (
            stack.enter_context(os.fdopen(os.memfd_create(name), "w+b")) for name in ("in", "out", "err")
        )
        given.write(json.dumps(arguments, ensure_ascii=False).encode())
        given.seek(0)
        try:
            child = subprocess.Popen(
                [*program, *words], stdin=given, stdout=out, stderr=err, cwd="/job", start_new_session=True
            )
        except OSError as error:
            raise ToolError("no_program", f"{argv[0]} cannot be started: {error.strerror}") from error
        status = child.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # what it left running in its group
        logs = _tail(err, LOG_BYTES_MAX)
        if status != 0:
            how = f"exit status {status}" if status > 0 else f"signal {-status}"
            raise ToolError("tool_failed", f"{how}: {logs[-MESSAGE_CHARS_MAX:].strip() or 'nothing on stderr'}", logs)
        size = out.seek(0, os.SEEK_END)
        if size > RESULT_BYTES_MAX:
            raise ToolError("result_too_large", f"the result has {size} bytes; {RESULT_BYTES_MAX} is the most", logs)
        out.seek(0)
        text = out.read().decode("utf-8", "replace")
    try:
        return json.loads(text, parse_constant=_no_constant), logs
    except ValueError:
        return text, logs


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _tail(file: io.BufferedRandom, bytes_max: int) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - bytes_max))
    return file.read().decode("utf-8", "replace")


def encode_result(result: object) -> bytes:
    try:
        encoded = json.dumps(result, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolError("result_not_json", f"the result is not JSON: {error}") from error
    if len(encoded) > RESULT_BYTES_MAX:
        message = f"the result has {len(encoded)} bytes; {RESULT_BYTES_MAX} is the most"
        raise ToolError("result_too_large", message)
    return encoded


def describe(error: BaseException) -> dict[str, object]:
    """An exception as the parent sees it; frames of this file are left out of the traceback."""
    code = error.code if isinstance(error, ToolError) else "tool_failed"
    if isinstance(error, MemoryError):
        code = "memory_exceeded"
    shown = ""
    if not isinstance(error, ToolError | MemoryError):
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
        shown = "".join(traceback.format_list(frames)[-8:])[-TRACEBACK_CHARS_MAX:]
    message = str(error)[:MESSAGE_CHARS_MAX].encode("utf-8", "replace").decode()
    return {"code": code, "type": type(error).__name__, "message": message, "traceback": shown}


def answer_call(
    frame: dict[str, typing.Any],
    names: dict[str, object],
    sink: CappedSink,
    send: typing.Callable[[bytes], None],
) -> bytes:
    """Runs one call and answers its frame; whatever the tool raises ends here."""
    began = time.perf_counter()
    logs = ""
    try:
        allow_cpu(frame["cpu_s"])
        if "argv" in frame:
            result, logs = run_process(frame["argv"], frame["arguments"])
        else:
            call = Call(frame["call"], send) if "call" in frame else None
            result = call_function(names, frame["function"], frame["arguments"], call)
        tail = b',"ok":true,"result":' + encode_result(result)
    except BaseException as error:  # noqa: BLE001 - a tool may raise anything, SystemExit included
        logs = getattr(error, "logs", "") or logs
        tail = b',"ok":false,"error":' + json.dumps(describe(error)).encode()
    with contextlib.suppress(ValueError, OSError):  # the tool closed its own standard streams
        sys.stdout.flush()
    logs = logs or sink.take()
    milliseconds = (time.perf_counter() - began) * 1000
    head = b'{"id":%d,"ms":%.3f,"logs":%s' % (frame["id"], milliseconds, json.dumps(logs).encode() if logs else b'""')
    return head + tail + b"}"


def clear_scratch() -> None:
    """Empties the scratch folders: a call must not meet another caller's files."""
    for folder in SCRATCH:
        for name in os.listdir(folder):  # noqa: PTH208 - this runs after every call: 2 us, iterdir takes 9
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


def quiet_streams() -> CappedSink:
    """Points 0, 1 and 2 at /dev/null and Python's standard output at a capped sink."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    sink = CappedSink()
    sys.stdout = sys.stderr = io.TextIOWrapper(sink, encoding="utf-8", errors="replace", write_through=True)
    return sink


def main() -> None:
    descriptor, memory_mb, script = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    os.set_inheritable(descriptor, False)
    channel = socket.socket(fileno=descriptor)
    received = channel.makefile("rb", buffering=64 * 1024)

    def send(payload: bytes) -> None:
        channel.sendall(len(payload).to_bytes(4, "big") + payload)

    began = time.perf_counter()
    limit_self(memory_mb)
    allow_cpu(LOAD_CPU_S)
    sink = quiet_streams()
    printed = sys.stdout
    try:
        names = load(script) if script else {}
    except BaseException as error:  # noqa: BLE001 - a script may raise anything while it loads
        send(json.dumps({"ready": False, "error": describe(error)}).encode())
        return
    sink.take()
    send(b'{"ready":true,"load_ms":%.3f}' % ((time.perf_counter() - began) * 1000))
    while len(head := received.read(4)) == 4:
        frame = json.loads(received.read(int.from_bytes(head, "big")))
        sys.stdout = sys.stderr = printed  # a tool may have replaced them
        os.chdir("/job")
        send(answer_call(frame, names, sink, send))
        clear_scratch()


if __name__ == "__main__":
    main()
