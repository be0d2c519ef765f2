"""Every operation, once."""

from gateway.operations import cache, incidents, search, skills, system, tools, versions
from gateway.operations.table import Operation

OPERATIONS: tuple[Operation, ...] = (
    *skills.OPERATIONS,
    *versions.OPERATIONS,
    *tools.OPERATIONS,
    *search.OPERATIONS,
    *incidents.OPERATIONS,
    *cache.OPERATIONS,
    *system.OPERATIONS,
)
