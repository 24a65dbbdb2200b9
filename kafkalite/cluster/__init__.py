"""A whole cluster on one machine: a ZooKeeper ensemble and brokers as ordinary processes.

There is no supervisor. Processes are started detached, with logs in files, and everything that
is known about them lies under one directory, so that any later command finds them again:

- `cluster.json`: what the cluster is made of (:mod:`kafkalite.cluster.layout`): names, ports,
  overrides. Ports are chosen once and remembered, because a broker that comes back must be
  where its clients look for it.
- `<name>/process.json`: which process that is just now (:mod:`kafkalite.cluster.process`). A pid
  counts only together with the start time that the kernel has for it, so a reused pid is never
  taken for ours, let alone killed.
- `<name>/…`: configuration and data; `logs/<name>.log`: what the process printed.

:mod:`kafkalite.cluster.launcher` brings these together in the verbs of `kafkalite cluster`. A
verb returns when what it promises is true. This package is an edge: it starts processes, waits
and reads files.
"""
