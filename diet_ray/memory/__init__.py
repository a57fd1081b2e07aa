"""The synthetic memory: its rows, the servers that hold them while they learn, the artifact.

Protocol of a stage's servers (`server.py`, `cluster.py`). Each server actor holds a contiguous
range of rows with their optimiser state. One outer step is: workers `pull` the active rows and
`push(step, shard, rows, gradients)`; when all G shards of a step are there, the coordinator asks
for the squared norms of the summed gradients, decides on clipping, and sends `commit(step)`,
which adds the shards in their order and applies one update. Every so many steps all servers save
their rows, and a manifest makes that step *durable*. A server that dies restarts from the last
durable step; it then refuses calls about later steps (`StaleServerError`), the coordinator rolls
all servers back to the durable step, and the lost steps are computed again, to the same bits.

The finished stage is published as an artifact (`artifact.py`) that any Parquet reader opens.
"""
