"""Importing what is used, and nothing else: most of a start and most of a small replica's memory are imports.

*Deferred*: packages whose `__init__` is run when something of it is asked for, not at the first
import below it. `mcp/__init__.py` and `mcp/server/__init__.py` import the client and the decorator
framework: 110 modules and 11 MB that a server on the low-level API never uses. A deferred package
is found and has its path, so that everything below it can be imported; the first attribute it does
not have runs its `__init__` as ever. Whoever imported it before gets what is there.

*Left out*: modules that a library tries to import and does without when they are not installed.

*One heap*: glibc gives threads heaps of their own, of which it takes little back; under the
interpreter's lock they would hardly ever use them at once. And once it has seen a block of 32 MB
freed it keeps that much for the next: one large upload, and the replica would be as large for ever.

*Unbuilt*: MCP's types and FastAPI's are 600 models of pydantic in three protocol versions, and its routes
have 180 adapters. A replica uses a few dozen, and pydantic has an option to build each when it is first used.

*Uncollected*: while modules are imported nearly nothing becomes garbage, and looking for it over
and over takes a sixth of the time.
"""

import ctypes
import gc
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader  # brings ten modules, for the name of a type

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE_BYTES = 1024 * 1024


class _Deferred(ModuleType):
    def __getattr__(self, name: str) -> Any:
        loader = self.__loader__
        # The machinery asks for some that a package need not have.
        if (name.startswith("__") and name not in ("__all__", "__version__")) or not isinstance(loader, _Deferring):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
            return importlib.import_module(f"{self.__name__}.{name}")  # `from package import module`
        self.__class__ = ModuleType  # from here on a module like any other
        self.__loader__ = loader.whole
        loader.whole.exec_module(self)
        return getattr(self, name)


class _Deferring:
    """Makes a module without running it; `whole` is the loader that does."""

    def __init__(self, whole: "Loader") -> None:
        self.whole = whole

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Finder:
    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._names:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Deferring(spec.loader)  # type: ignore[assignment]  # it is one, without the base class
        return spec


def defer(*names: str) -> None:
    """Defers the `__init__` of these packages, whoever imports them from now on."""
    sys.meta_path.insert(0, _Finder(names))


def leave_out(*names: str) -> None:
    """Has the import of these modules fail from now on, where nobody has imported them before."""
    for name in names:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # typeshed does not know of None


def share_heap() -> None:
    """Has the threads of this process allocate from the main one's heap, and large blocks given back to the
    system when they are freed, where the C library is glibc."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_ARENA_MAX, 1)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, 4 * _LARGE_BYTES)


@contextmanager
def unbuilt() -> Iterator[None]:
    """Of the models and adapters that are defined meanwhile only the used ones are built, when they first are."""
    import pydantic  # noqa: PLC0415  # a tenth of a second, which not every command has to spend

    from gateway.unbuilt import UnbuiltAdapter  # noqa: PLC0415  # the same

    # FastAPI ignores it while it makes an adapter; these are built when it is no longer there to.
    warnings.filterwarnings("ignore", category=pydantic.warnings.UnsupportedFieldAttributeWarning)
    whole = pydantic.TypeAdapter
    pydantic.BaseModel.model_config["defer_build"] = True
    pydantic.TypeAdapter = UnbuiltAdapter  # type: ignore[misc]  # it is one
    try:
        yield
    finally:
        pydantic.TypeAdapter = whole  # type: ignore[misc]  # the same
        del pydantic.BaseModel.model_config["defer_build"]


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector, which never looks again at what was made meanwhile."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
