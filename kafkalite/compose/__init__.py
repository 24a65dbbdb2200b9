"""A cluster in containers: found, driven and broken through the Docker engine.

The files in `compose/` say what the cluster is; the compose command (`docker compose`, or the older
`docker-compose`) makes it so. This package is what comes after: it finds the containers by the
labels that compose gives them, breaks and heals them, and tells how the cluster answered.

- :mod:`.project`: the containers of one compose project, and the compose command.
- :mod:`.faults`: what can be done to a container. Each fault makes sure that it is really in force.
- :mod:`.view`: the brokers as seen from this machine: health, metadata, journals.
- :mod:`.answer`: what the journals tell of the time since a fault, in words. Pure.
- :mod:`.verbs`: the verbs: do, wait until the cluster has answered, tell.

Nothing here knows how a broker works inside: all that is told was read from its HTTP API.
"""
