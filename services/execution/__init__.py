"""Warm, sandboxed execution of the tools that skills declare."""

from services.execution.jobs import Job, Outcome
from services.execution.packages import PackageFolders
from services.execution.pool import WorkerPool, WorkerStats
from services.execution.runner import Runner
from services.execution.sandbox import Sandbox

__all__ = ["Job", "Outcome", "PackageFolders", "Runner", "Sandbox", "WorkerPool", "WorkerStats"]
