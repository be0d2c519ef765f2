"""Pydantic's adapter that builds its validator when it is first used (`lean.unbuilt`)."""

from typing import Any, Generic, TypeVar

from pydantic import ConfigDict, PydanticUserError, TypeAdapter

T = TypeVar("T")
_LATER = ConfigDict(defer_build=True)


class UnbuiltAdapter(TypeAdapter[T], Generic[T]):  # type: ignore[misc]  # final, so that its methods mean what they say
    """A type that has a configuration of its own decides itself."""

    def __init__(
        self, type: Any, *, config: ConfigDict | None = None, _parent_depth: int = 2, module: str | None = None
    ) -> None:
        depth = _parent_depth + 1  # where names of the type are looked up: whoever called this
        try:
            super().__init__(type, config={**_LATER, **(config or {})}, _parent_depth=depth, module=module)
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":
                raise
            super().__init__(type, config=config, _parent_depth=depth, module=module)
