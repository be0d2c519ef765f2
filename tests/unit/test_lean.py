"""What the service imports, seen from a process of its own."""

import platform
import subprocess
import sys

import pytest


def said_by(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_service_imports_nothing_of_the_mcp_client() -> None:
    program = """
import sys, gateway.commands.serve
print([name for name in ("mcp.client", "mcp.server.mcpserver") if name in sys.modules])
"""
    assert said_by(program) == "[]"


def test_the_service_imports_nothing_of_the_orm() -> None:
    program = """
import sys, gateway.commands.serve
print([name for name in sys.modules if name.startswith("sqlalchemy.orm")])
"""
    assert said_by(program) == "[]"


def test_the_service_imports_nothing_that_only_a_search_a_call_or_the_sdk_needs() -> None:
    program = """
import sys, gateway.commands.serve
unused = ("numpy", "bm25s", "jsonschema", "cryptography.hazmat.primitives", "redis.cluster", "yaml", "mcp_types")
print([name for name in unused if name in sys.modules])
"""
    assert said_by(program) == "[]"


def test_the_command_leaves_out_what_it_never_uses_and_what_is_there_stays() -> None:
    program = """
import sys
from gateway.__main__ import main
from gateway.lean import leave_out
main.get_command(None, "serve")
try:
    import pydantic.v1
except ImportError as error:
    print(error.name)
import json
leave_out("json")
print(sys.modules["json"] is json)
"""
    assert said_by(program).splitlines() == ["pydantic.v1", "True"]


def test_the_collector_is_back_once_a_command_is_imported_and_looks_at_none_of_it() -> None:
    program = """
import gc
from gateway.__main__ import main
main.get_command(None, "serve")
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
    assert said_by(program) == "True True"


def test_a_model_of_a_library_is_built_when_it_is_used_and_ours_of_later_at_once() -> None:
    program = """
from gateway.__main__ import main
main.get_command(None, "stdio")
import mcp_types, pydantic
print(mcp_types.Tool.__pydantic_complete__)
print(mcp_types.Tool(name="a", inputSchema={"type": "object"}).name, mcp_types.Tool.__pydantic_complete__)
class Later(pydantic.BaseModel):
    name: str
print(Later.__pydantic_complete__)
"""
    assert said_by(program).splitlines() == ["False", "a True", "True"]


def test_an_adapter_that_is_built_later_warns_of_nothing_that_its_maker_ignores() -> None:
    """FastAPI gives its adapters a field's alias, and ignores pydantic's warning of it while it makes them."""
    program = """
import warnings
from typing import Annotated
warnings.simplefilter("error")
from gateway.lean import unbuilt
with unbuilt():
    from pydantic import Field, TypeAdapter
print(TypeAdapter(Annotated[int, Field(alias="b")]).validate_python(1))
"""
    assert said_by(program) == "1"


def test_an_adapter_is_built_when_it_is_used_and_finds_the_names_of_who_made_it() -> None:
    program = """
from typing_extensions import TypedDict
from gateway.lean import unbuilt
with unbuilt():
    from pydantic import ConfigDict, TypeAdapter
Number = int
listed = TypeAdapter(list["Number"])
strict = TypeAdapter[list["Number"]](list["Number"], config=ConfigDict(strict=True))
class Own(TypedDict):
    __pydantic_config__ = {"extra": "forbid"}
    name: str
own = TypeAdapter(Own)
print(listed.pydantic_complete, listed.validate_python(["1"]), listed.pydantic_complete)
for given in (lambda: strict.validate_python(["1"]), lambda: own.validate_python({"name": "a", "more": 1})):
    try:
        print(given())
    except ValueError as error:
        print(error.errors()[0]["type"])
import pydantic
print(pydantic.TypeAdapter(int).pydantic_complete)
"""
    assert said_by(program).splitlines() == ["False [1] True", "int_type", "extra_forbidden", "True"]


def test_the_service_imports_no_client_of_other_replicas() -> None:
    program = """
import sys
from gateway.__main__ import main
main.get_command(None, "serve")
print([name for name in ("httpcore2", "httpx2._client", "email_validator.syntax") if name in sys.modules])
"""
    assert said_by(program) == "[]"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have one heap")
def test_threads_share_one_heap() -> None:
    program = """
import ctypes, threading
from gateway.lean import share_heap
share_heap()
library = ctypes.CDLL(None)
together = threading.Barrier(4)
def allocate():
    together.wait()
    library.malloc(1000)
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
library.malloc_info(0, ctypes.c_void_p.in_dll(library, "stdout"))
library.fflush(None)
"""
    assert said_by(program).count("<heap nr=") == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do not learn")
def test_a_large_block_that_is_freed_is_given_back_however_often() -> None:
    program = """
import resource
from gateway.lean import share_heap
share_heap()
def resident() -> int:
    with open("/proc/self/statm") as counts:
        return int(counts.read().split()[1]) * resource.getpagesize()
before = resident()
for _ in range(3):
    block = b"x" * 32_000_000
    del block
print(resident() - before < 8_000_000)
"""
    assert said_by(program) == "True"


def test_a_module_of_a_deferred_package_is_had_without_the_package() -> None:
    program = """
import gateway, sys
from sqlalchemy.ext.asyncio import engine
print(engine.__name__, "sqlalchemy.orm" in sys.modules)
from sqlalchemy.ext.asyncio import AsyncSession
print(AsyncSession.__name__, "sqlalchemy.orm" in sys.modules)
"""
    assert said_by(program).splitlines() == ["sqlalchemy.ext.asyncio.engine False", "AsyncSession True"]


def test_what_a_deferred_package_exports_is_there_when_it_is_asked_for() -> None:
    program = """
import gateway.commands.serve
from mcp import ClientSession
from mcp.server import Server
from mcp.server.lowlevel import Server as same
import mcp
print(ClientSession.__name__, Server is same, mcp.client.__name__, mcp.server.Server is same)
"""
    assert said_by(program) == "ClientSession True mcp.client True"


def test_what_a_package_does_not_have_is_said_as_ever() -> None:
    program = """
import gateway.lean
import mcp
print(hasattr(mcp, "nothing_of_that_name"), hasattr(mcp, "__nothing__"))
"""
    assert said_by(program) == "False False"


def test_a_package_imported_before_stays_as_it_is() -> None:
    program = """
import mcp, sys
before = sys.modules["mcp"], sys.modules["mcp.server"]
import gateway
print(before == (sys.modules["mcp"], sys.modules["mcp.server"]), type(mcp).__name__)
"""
    assert said_by(program) == "True module"
