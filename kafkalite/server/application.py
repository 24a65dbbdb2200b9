"""The broker's HTTP interface: from a request to the handler of its API, and back.

An :class:`Application` is a :data:`kafkalite.edge.Handler`. It owns everything that is the same for
all APIs - the routes, content types, schemas, the gate that keeps a starting broker silent, the
ambient cause, errors - so that a handler is one async function from a typed request to a typed
response. It knows no HTTP server.

What reaches an API is answered 200, errors included: they stand in the response, per item. Every
other status has the body `{error_code, error, field, message}`:

=====  ==============================================================================
400    not MessagePack, not the schema, or bad query parameters; ``field`` says where
404    no such API
405    the API does not answer this method (`Allow` says what it does)
415    the body is not declared as `application/msgpack`, or is compressed
500    a bug: the exception's type, never a trace; the trace is in the broker's log
503    starting, stopping, or (orders of the controller) without a broker epoch
=====  ==============================================================================

An API's handler that raises a BrokerError means its whole request: the code goes into the
response's own top-level ``error_code``. Some responses have none (`produce`, `metadata`): their
handlers must report per item, and one that raises all the same is a bug, answered 500 with the
error's code.

A handler is cancelled when its connection is lost, which is right for whoever only waits or
reads (:data:`CANCELLABLE` and the read-only APIs). What changes state runs to its end all the
same: a controller that dies in the middle of an order must not leave half of it carried out.
"""

from __future__ import annotations

import asyncio
import enum
import json
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from kafkalite.common import BrokerId, Uuid
from kafkalite.edge import Clock, HttpReply, HttpRequest
from kafkalite.journal import Event, EventId, Journal
from kafkalite.protocol.api import APIS, Api
from kafkalite.protocol.codec import SchemaError, decode, encode, from_query, to_json
from kafkalite.protocol.errors import BrokerError, ErrorCode
from kafkalite.protocol.message import Message
from kafkalite.server import metrics as metrics_module
from kafkalite.server.metrics import BrokerMetrics

_logger = logging.getLogger(__name__)
_request_log = logging.getLogger("kafkalite.request")

MSGPACK: Final = "application/msgpack"
JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"

MAX_EVENTS: Final = 10_000
"""The largest ``limit`` of `GET /v1/events`."""
HEARTBEAT_S: Final = 15.0
"""How often a stream of events that has nothing to say sends a comment, so that a follower that
went away is noticed."""

ORDERS: Final = frozenset({"leader_and_isr", "update_metadata", "stop_replica"})
"""What the controller sends to brokers: refused while the broker does not know its epoch."""

CANCELLABLE: Final = frozenset({"produce", "fetch"})
"""Besides the read-only APIs, what may stop where it stands: an append is one step, and the rest
of these is waiting."""

_EVENT_ID: Final = re.compile(r"-?\d+-\d+-\d+")


class BrokerState(enum.IntEnum):
    """Kafka's states of a broker and their numbers in the BrokerState metric."""

    NOT_RUNNING = 0
    STARTING = 1
    RECOVERY = 2
    RUNNING = 3
    PENDING_CONTROLLED_SHUTDOWN = 6
    SHUTTING_DOWN = 7

    @property
    def serves(self) -> bool:
        """Whether requests are served: during a controlled shutdown the leaders still move away."""
        return self in (BrokerState.RUNNING, BrokerState.PENDING_CONTROLLED_SHUTDOWN)


class RequestContext(NamedTuple):
    """What a handler may know about a request beside its message."""

    listener: str
    """The listener it came in on: metadata answers with this listener's endpoints."""
    client_id: str | None = None
    correlation_id: str | None = None
    cause: EventId | None = None
    """The event that led to it (`X-Cause-Id`); the ambient cause while the handler runs."""
    peer: str = ""
    """The other side's address, for logs."""


ApiHandler: TypeAlias = Callable[[Any, RequestContext], Coroutine[Any, Any, Message]]
"""From a request to its response; the request is of the type that :data:`APIS` names."""


class _Served(msgspec.Struct, frozen=True):
    api: Api
    handle: ApiHandler
    may_stop: bool
    """Cancelled when the client's connection is lost, instead of running to its end."""


class _Refused(Exception):
    """The request never reached its API."""

    def __init__(
        self,
        status: int,
        code: ErrorCode,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.headers = headers or {}


class Unavailable(Exception):
    """Raised by a handler that cannot serve at the moment: answered 503, to be asked again."""


class Application:
    """Routes requests to APIs. Called with an HttpRequest, it answers with an HttpReply."""

    def __init__(
        self, *, broker_id: BrokerId | None, journal: Journal, metrics: BrokerMetrics, clock: Clock
    ) -> None:
        self.broker_id = broker_id
        """None until a generated id is known."""
        self.cluster_id: Uuid | None = None
        """None until it was read from ZooKeeper."""
        self.incarnation: str | None = None
        """Tells this process from another one that answers under the same broker id."""
        self.state = BrokerState.STARTING
        """Set by the broker as it lives; decides what is served."""
        self.has_broker_epoch = False
        """Whether the broker knows its present registration; decides whether it takes orders."""
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._served: dict[str, _Served] = {}
        """By path."""
        self._catalogue: bytes | None = None
        self._unfinished: dict[asyncio.Task[Message], None] = {}
        """Changes of state that run now, in the order in which they began."""

    async def close(self) -> None:
        """Cancel what still runs of changes whose client is gone, and wait until it has ended."""
        while unfinished := list(self._unfinished):
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished)

    def register(self, api_name: str, handler: ApiHandler) -> None:
        """Serve the API ``api_name`` (a key of :data:`APIS`) with ``handler``."""
        path = f"/v1/{api_name}"
        assert path not in self._served, f"{api_name} has two handlers"
        api = APIS[api_name]
        self._served[path] = _Served(api, handler, api.read_only or api_name in CANCELLABLE)
        self._catalogue = None

    async def __call__(self, request: HttpRequest) -> HttpReply:
        """Answer ``request``; raises nothing but cancellation."""
        began = self._clock.monotonic()
        served = self._served.get(request.path)
        # A metric's label: an API's name, never what somebody outside made up.
        label = served.api.name if served is not None else "unknown"
        try:
            if served is not None and self.state.serves:
                reply = await self._call(served, request)
            else:
                reply = self._answer_other(request)
        except _Refused as refused:
            self._metrics.request_refused(label, refused.code.name)
            reply = _error_reply(refused)
        except Exception as error:
            _logger.exception("%s %s failed", request.method, request.path)
            code = error.code if isinstance(error, BrokerError) else ErrorCode.UNKNOWN_SERVER_ERROR
            self._metrics.request_refused(label, code.name)
            reply = _error_reply(_Refused(500, code, type(error).__name__))
        if reply.correlation_id != request.correlation_id:
            reply = HttpReply(reply.status, reply.body, reply.headers, reply.stream, request.correlation_id)
        seconds = self._clock.monotonic() - began
        if served is not None:
            self._metrics.observe_request(label, seconds)
        if _request_log.isEnabledFor(logging.DEBUG):
            _request_log.debug(
                "%s %s -> %d in %.3f ms; %d bytes, listener %s, from %s, client %s, correlation %s, cause %s",
                request.method,
                request.path,
                reply.status,
                seconds * 1000,
                len(request.body),
                request.listener,
                request.peer,
                request.headers.get("x-client-id"),
                request.correlation_id,
                request.headers.get("x-cause-id"),
            )
        return reply

    def _answer_other(self, request: HttpRequest) -> HttpReply:
        """Answer what is no call of an API that is served now."""
        path = request.path
        if path == "/v1/health":
            _require_get(request, path)
            return self._health()
        if not self.state.serves:
            raise _unavailable(f"the broker is {self.state.name}")
        if path in ("/v1", "/v1/"):
            _require_get(request, path)
            return HttpReply(200, (self._list_apis(),), {"Content-Type": JSON})
        if path == "/v1/events":
            _require_get(request, path)
            return self._events(request)
        if path == "/metrics":
            _require_get(request, path)
            return HttpReply(
                200, (self._metrics.exposition(),), {"Content-Type": metrics_module.CONTENT_TYPE}
            )
        raise _Refused(
            404, ErrorCode.UNSUPPORTED_VERSION, f"there is no API at {path}; GET /v1 lists what there is"
        )

    async def _call(self, served: _Served, request: HttpRequest) -> HttpReply:
        api = served.api
        if not self.has_broker_epoch and api.name in ORDERS:
            raise _unavailable("the broker is not registered at the moment: it does not know its epoch")
        headers = request.headers
        if request.method == "POST":
            message, as_json = self._decode(api, request), JSON in headers.get("accept", "")
        elif request.method == "GET" and api.read_only:
            try:
                message, as_json = from_query(api.request, request.query), True
            except SchemaError as error:
                raise _bad_request(error) from None
        else:
            raise _method_not_allowed(request, "GET, POST" if api.read_only else "POST")
        cause = headers.get("x-cause-id")
        context = RequestContext(
            listener=request.listener,
            client_id=headers.get("x-client-id"),
            correlation_id=request.correlation_id,
            cause=EventId(cause) if cause is not None else None,
            peer=request.peer,
        )
        try:
            work = served.handle(message, context)
            if context.cause is not None:
                work = self._because(context.cause, work)
            response = await (work if served.may_stop else self._finish(work))
        except Unavailable as error:
            raise _unavailable(str(error)) from None
        except BrokerError as error:
            if (whole := _whole_response(api.response, error)) is None:
                raise
            response = whole
        body = [to_json(response)] if as_json else encode(response)
        kind = JSON if as_json else MSGPACK
        return HttpReply(200, body, {"Content-Type": kind}, correlation_id=request.correlation_id)

    async def _because(self, cause: EventId, work: Coroutine[Any, Any, Message]) -> Message:
        with self._journal.because(cause):
            return await work

    async def _finish(self, work: Coroutine[Any, Any, Message]) -> Message:
        """Await ``work``, which goes on where this is cancelled; :meth:`close` ends it then."""
        task = asyncio.create_task(work)
        self._unfinished[task] = None
        task.add_done_callback(lambda done: self._unfinished.pop(done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_report_fault)
            raise

    def _decode(self, api: Api, request: HttpRequest) -> Message:
        content_type = request.headers.get("content-type", "")
        if content_type != MSGPACK and content_type.partition(";")[0].strip().lower() != MSGPACK:
            raise _Refused(
                415,
                ErrorCode.INVALID_REQUEST,
                f"the body must be {MSGPACK}, not {content_type or 'of no declared type'}",
            )
        encoding = request.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise _Refused(
                415,
                ErrorCode.INVALID_REQUEST,
                f"the body must not be compressed ({encoding}): compress the batches inside it",
            )
        try:
            return decode(api.request, request.body)
        except SchemaError as error:
            raise _bad_request(error) from None

    def _health(self) -> HttpReply:
        return _json_reply(
            {
                "broker_id": self.broker_id,
                "cluster_id": self.cluster_id,
                "state": self.state.name,
                "incarnation": self.incarnation,
            }
        )

    def _list_apis(self) -> bytes:
        if self._catalogue is None:
            described = [served.api.describe() for served in self._served.values()]
            described.sort(key=lambda api: int(api["api_key"]))
            self._catalogue = json.dumps({"apis": described}).encode()
        return self._catalogue

    # --- The journal -----------------------------------------------------------------------------

    def _events(self, request: HttpRequest) -> HttpReply:
        """`GET /v1/events`: a page of the journal, or a stream that follows it."""
        follow = EVENT_STREAM in request.headers.get("accept", "")
        # A browser that reconnects says where it was; that is newer than what its URL says.
        last_seen = request.headers.get("last-event-id") if follow else None
        after = last_seen or _single(request, "after")
        if after is not None and _EVENT_ID.fullmatch(after) is None:
            raise _bad_query("after", f"{after!r} is not an event id (<broker>-<start ms>-<n>)")
        type = _single(request, "type")
        if follow:
            return HttpReply(
                200,
                (),
                {"Content-Type": EVENT_STREAM, "Cache-Control": "no-store"},
                stream=lambda write: self._follow(write, EventId(after) if after else None, type),
            )
        limit_text = _single(request, "limit")
        limit = 1000
        if limit_text is not None:
            if not limit_text.isascii() or not limit_text.isdigit() or not 1 <= int(limit_text) <= MAX_EVENTS:
                raise _bad_query("limit", f"must be an integer from 1 to {MAX_EVENTS}, not {limit_text!r}")
            limit = int(limit_text)
        events = self._journal.events(after=EventId(after) if after else None, type=type, limit=limit)
        return _json_reply(
            {"events": [event.to_json() for event in events], "next": events[-1].id if events else after}
        )

    async def _follow(
        self, write: Callable[[bytes], Awaitable[None]], after: EventId | None, type: str | None
    ) -> None:
        """Send events later than ``after`` until the follower leaves.

        The ring itself is the bound: a follower holds only the id that it was sent last and is
        woken by new events. One that falls behind by more than the ring holds is told in a
        comment how many events it missed (they are in `state-change.log`) and goes on from the
        oldest one there is.
        """
        news = asyncio.Event()
        unsubscribe = self._journal.subscribe(lambda _event: news.set())
        try:
            await write(b": the journal\n\n")
            while True:
                news.clear()
                while events := self._journal.events(after=after, limit=100):
                    missed = _missed(after, events[0].id)
                    pieces = [f": {missed} events were missed\n\n".encode()] if missed else []
                    pieces += [_sse(event) for event in events if type is None or event.type == type]
                    after = events[-1].id
                    if pieces:
                        await write(b"".join(pieces))
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await news.wait()
                except TimeoutError:
                    await write(b": still here\n\n")
        finally:
            unsubscribe()


def _missed(after: EventId | None, first: EventId) -> int:
    """Count the events between two ids of one life of a broker; 0 where they are of different ones."""
    if after is None:
        return 0
    life, _, number = after.rpartition("-")
    next_life, _, next_number = first.rpartition("-")
    return max(0, int(next_number) - int(number) - 1) if life == next_life else 0


def _sse(event: Event) -> bytes:
    return f"id: {event.id}\ndata: {json.dumps(event.to_json(), default=str)}\n\n".encode()


def _single(request: HttpRequest, name: str) -> str | None:
    values = request.query.get(name, ())
    if len(values) > 1:
        raise _bad_query(name, "may be given once only")
    return values[0] if values and values[0] else None


def _report_fault(task: asyncio.Task[Message]) -> None:
    """Log the fault of a change that nobody waited for any more."""
    if task.cancelled():
        return
    error = task.exception()
    if error is not None and not isinstance(error, BrokerError):
        _logger.error("a change whose client had left failed", exc_info=error)


# --- Replies that never reached an API ---------------------------------------------------------


def _json_reply(body: Mapping[str, Any]) -> HttpReply:
    return HttpReply(200, (json.dumps(body, default=str).encode(),), {"Content-Type": JSON})


def _error_reply(refused: _Refused) -> HttpReply:
    body = {
        "error_code": int(refused.code),
        "error": refused.code.name,
        "field": refused.field,
        "message": refused.message,
    }
    return HttpReply(refused.status, (json.dumps(body).encode(),), {"Content-Type": JSON, **refused.headers})


def _unavailable(message: str) -> _Refused:
    return _Refused(503, ErrorCode.BROKER_NOT_AVAILABLE, message, headers={"Retry-After": "1"})


def _bad_request(error: SchemaError) -> _Refused:
    return _Refused(400, ErrorCode.INVALID_REQUEST, error.message, field=error.field)


def _bad_query(field: str, message: str) -> _Refused:
    return _Refused(400, ErrorCode.INVALID_REQUEST, message, field=field)


def _method_not_allowed(request: HttpRequest, allow: str) -> _Refused:
    return _Refused(
        405,
        ErrorCode.INVALID_REQUEST,
        f"{request.path} answers {allow}, not {request.method}",
        headers={"Allow": allow},
    )


def _require_get(request: HttpRequest, path: str) -> None:
    if request.method != "GET":
        raise _Refused(
            405,
            ErrorCode.INVALID_REQUEST,
            f"{path} answers GET, not {request.method}",
            headers={"Allow": "GET"},
        )


# --- An error that means the whole request -----------------------------------------------------


def _whole_response(response: type[Message], error: BrokerError) -> Message | None:
    """Build a ``response`` that carries ``error`` at its top and is else empty.

    None where the response has no top-level ``error_code``.
    """
    names = {field.name for field in msgspec.structs.fields(response)}
    if "error_code" not in names:
        return None
    values = _empty(response)
    values["error_code"] = int(error.code)
    if "error_message" in names:
        values["error_message"] = error.message or None
    return msgspec.convert(values, response)


def _empty(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The required fields of ``struct``, each with its type's zero."""
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, msgspec.inspect.StructType)
    return {field.name: _zero(field.type) for field in info.fields if field.required}


def _zero(kind: msgspec.inspect.Type) -> Any:
    match kind:
        case msgspec.inspect.IntType():
            return 0
        case msgspec.inspect.StrType():
            return ""
        case msgspec.inspect.BytesType():
            return b""
        case msgspec.inspect.BoolType():
            return False
        case msgspec.inspect.ListType():
            return []
        case msgspec.inspect.StructType(cls=cls):
            return _empty(cls)
        case _:
            return None
