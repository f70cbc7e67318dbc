"""Containers over a Dask cluster: jobs in, typed results out (extra ``runc-async[dask]``).

`ContainerPlugin` prepares the workers, `Containers` is how a client uses them. They know of nothing but Dask's own
scheduler: it places jobs by their needs, runs those of a lost worker again, and shows them in its dashboard.
"""

from ..._jobs.job import Job
from ._client import Containers, Submitted
from ._job import JobCancelledError, JobLostError, Output, Result
from ._worker import ContainerPlugin

__all__ = [
    "ContainerPlugin",
    "Containers",
    "Job",
    "JobCancelledError",
    "JobLostError",
    "Output",
    "Result",
    "Submitted",
]
