"""Who runs units of work: this process, processes of this machine, or a Dask cluster.

All answer the same call: units in, each with its outcome out, in the order they end. Units are
descriptions; pixels go from a reading worker to a computing one at most, never through client or
scheduler. The only user of dask and distributed.

`base` is the call and this process, `cluster` the client of a Dask cluster, `local` the processes
it starts on this machine, `worker` what happens inside one.
"""

from geoseg.stages.executors.base import Executor, Serial, UnitLostError
from geoseg.stages.executors.cluster import Dask

__all__ = ["Dask", "Executor", "Serial", "UnitLostError"]
