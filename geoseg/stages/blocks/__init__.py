"""The same stages block by block: resumable, on any number of processes, with one answer.

`plan` cuts scenes into blocks and blocks into a tree of regions, `shards` are what units of work
leave on disk, `detect` and `region` are the units, `rundir` is the folder they share, `merged`
reads its results in order, `overlaps` settles what two scenes show, and `job` is the whole run.
"""
