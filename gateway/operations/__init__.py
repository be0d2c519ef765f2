"""Every operation, once."""

from gateway.operations import incidents, search, skills, system, tools
from gateway.operations.table import Operation

OPERATIONS: tuple[Operation, ...] = (
    *skills.OPERATIONS,
    *tools.OPERATIONS,
    *search.OPERATIONS,
    *incidents.OPERATIONS,
    *system.OPERATIONS,
)
