"""What the service imports, seen from a process of its own."""

import subprocess
import sys


def said_by(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_service_imports_nothing_of_the_mcp_client() -> None:
    program = """
import sys, gateway.commands.service
print([name for name in ("mcp.client", "mcp.server.mcpserver") if name in sys.modules])
"""
    assert said_by(program) == "[]"


def test_the_service_imports_nothing_of_the_orm() -> None:
    program = """
import sys, gateway.commands.service
print([name for name in sys.modules if name.startswith("sqlalchemy.orm")])
"""
    assert said_by(program) == "[]"


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
import gateway.commands.service
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
