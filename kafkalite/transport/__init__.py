"""How brokers and clients ask servers: pipelined HTTP/1.1 on asyncio, and typed calls on top.

:class:`.http.HttpTransport` is the real :class:`kafkalite.edge.Transport`; :func:`.rpc.ask` turns
a request message into an answer message over any transport. Neither retries: whether a request
may be repeated is known only to whoever makes it.
"""
