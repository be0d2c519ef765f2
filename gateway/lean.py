"""Packages of `mcp` whose `__init__` is run when something of it is asked for, not at the first import below it.

`mcp/__init__.py` and `mcp/server/__init__.py` import the client and the decorator framework: 110
modules and 11 MB that a server on the low-level API never uses.
A deferred package is found and has its path, so that everything below it can be imported; the
first attribute it does not have runs its `__init__` as ever. Whoever imported it before gets
what is there.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any


class _Deferred(ModuleType):
    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        # The machinery asks for some that a package need not have.
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
            return importlib.import_module(f"{self.__name__}.{name}")  # `from package import module`
        self.__class__ = ModuleType  # type: ignore[assignment]  # from here on a module like any other
        spec.loader.exec_module(self)
        return getattr(self, name)


def defer(*names: str) -> None:
    """Defers the `__init__` of these packages, outermost first; those imported already stay as they are."""
    for name in names:
        if name in sys.modules:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None:
            continue  # it is the import that fails then, with its own message
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Deferred
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
