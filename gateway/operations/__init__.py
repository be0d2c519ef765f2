"""Every operation, once."""

from gateway.operations import audit, cache, incidents, runs, search, skills, system, tools, versions
from gateway.operations.table import Operation

OPERATIONS: tuple[Operation, ...] = (
    *skills.OPERATIONS,
    *versions.OPERATIONS,
    *tools.OPERATIONS,
    *runs.OPERATIONS,
    *search.OPERATIONS,
    *incidents.OPERATIONS,
    *cache.OPERATIONS,
    *system.OPERATIONS,
    *audit.OPERATIONS,
)
