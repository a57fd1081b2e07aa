"""The synthetic memory: its rows, the servers that hold them while they learn, the artifact.

A synthetic row is the ids of the real row that it started from, soft labels, and a delta where one
was learned: its embedding is E(anchor) + delta (`rows.py`). Rows lie in files of a fixed number of
rows (`files.py`), so that any process can make, read or write a part of them.

Protocol of a stage's servers (`server.py`, `coordinator.py`). The stage's start is a folder of such
files. Each server actor holds whole files of them, one range of rows; beside the start it holds
deltas, labels and optimiser state of those rows alone that a gradient has touched (`state.py`). A
server that was just started holds nothing and refuses every call: `restore(step)` makes it read its
start and the changes up to a durable step. One outer step is: workers `pull` the rows of their
batches and `push(step, shard, gradients)`; when all G shards of a step are there, the coordinator
asks for the squared norms of the summed gradients, decides on clipping, and sends `commit(step)`,
which adds the shards in their order and applies one update (`update.py`).

Every so many steps each server saves what it changed since the last durable step, or, when the
saved changes outgrow what was learned, all that it has learned; a manifest that names the files in
their order makes the step *durable* (`durable.py`). When a server dies, calls to it fail, and calls
that name another step than a server's own are refused (`StaleServerError`); the coordinator then
rolls all servers back to the last durable step, and the lost steps are computed again, to the same
bits. Any number of servers can go on from there, since changes are read by range.

At the end of the stage every server writes its own files of the finished set; the coordinator gets
their checksums and no row. The manifest makes the set visible (`artifact.py`): an artifact that any
Parquet reader opens. `dataset.py` gives it back as embeddings and labels, or writes those.
"""
