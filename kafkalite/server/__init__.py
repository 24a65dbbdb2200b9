"""A broker: from the process's configuration to the answers that clients get.

The rules of the log and of replication live below, those of the controller beside; here they meet
the network, ZooKeeper and each other.

- :mod:`.config`: every broker config of Kafka, honoured, dormant or refused.
- :mod:`.http` puts bytes on sockets and knows no API; :mod:`.application` knows every API and no
  socket. Between them are :class:`~kafkalite.edge.HttpRequest` and
  :class:`~kafkalite.edge.HttpReply`, so either can be replaced (the simulation brings its own network).
- :mod:`.handlers`: one async function an API, from a typed request to a typed response.
- :mod:`.metadata_cache`: what this broker last heard about the cluster.
- :mod:`.isr_store`, :mod:`.channels`: what replication and the controller asked to be handed.
- :mod:`.broker`: the order in which all of it starts and stops.
- :mod:`.metrics`, :mod:`.state_change_log`: what an operator reads.
- :mod:`.malloc`: the process, tuned for its kind of garbage.

Invariants: nothing but `/v1/health` answers before the broker is registered; no order of the
controller is taken without a broker epoch; what reached an API is answered 200, and every other
answer says in JSON what was wrong and where.
"""
