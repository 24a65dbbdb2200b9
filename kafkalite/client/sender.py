"""Carries batches to their leaders: which go when, in which request, and what the answers mean.

One task looks at all queues whenever something happened (a batch was sealed, an answer came, metadata
changed, a timer ran out) and starts requests; each request is a task that lives until its answer. Batches
of several partitions of one leader share a request, up to `max_request_size`; at most five requests are in
flight a broker, on one connection, so they arrive in the order in which they were started.

A partition that has moved costs one round trip: the error names the new leader, or metadata is asked for
at once, and the batch goes on without waiting out its back-off. What is still in flight to a leader that
is known to be deposed (a broker that hangs, say) is given up and sent to the new one, if idempotence makes
that safe.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from kafkalite.client.accumulator import Accumulator
from kafkalite.client.background import Background
from kafkalite.client.batch import Batch, Identity
from kafkalite.client.cluster import Cluster, backoff_ms
from kafkalite.client.errors import (
    BrokerError,
    ClusterUnreachableError,
    DeliveryTimeoutError,
)
from kafkalite.client.metadata import Node
from kafkalite.client.partition_queue import MAX_PRODUCER_EPOCH, Outcome
from kafkalite.common import TopicPartition
from kafkalite.edge import ConnectionFailed
from kafkalite.protocol.errors import ErrorCode, error_for
from kafkalite.protocol.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from kafkalite.protocol.produce import (
    ProducePartition,
    ProduceRequest,
    ProduceResponse,
    ProduceResponsePartition,
    ProduceTopic,
)
from kafkalite.transport import rpc

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = 5
"""Requests to one broker at a time."""
SLOW_ANSWER: Final = 1.0
"""Seconds after which a leader that has not answered is suspected, and metadata asked for."""


class Flight:
    """One request and its batches."""

    __slots__ = ("batches", "is_under_way", "node", "size", "started", "task")

    def __init__(self, node: Node, started: float) -> None:
        self.node = node
        self.started = started
        self.batches: list[Batch] = []
        self.size = 0
        self.task: asyncio.Task[None] | None = None
        self.is_under_way = False
        """The task runs. Cancelled before that, it could not put its batches back."""


class Sender:
    """Moves batches from an accumulator to the cluster until cancelled."""

    def __init__(
        self,
        cluster: Cluster,
        accumulator: Accumulator,
        background: Background,
        *,
        acks: int,
        max_request_size: int,
        request_timeout_ms: int,
    ) -> None:
        self._cluster = cluster
        self._accumulator = accumulator
        self._background = background
        self._acks = acks
        self._max_request_size = max_request_size
        self._request_timeout_ms = request_timeout_ms
        # The leader gives up waiting for followers a little earlier than we do for the leader:
        # an answer tells more than a lost connection.
        self._leader_timeout_ms = max(1, request_timeout_ms - min(1000, request_timeout_ms // 10))
        self._wake = asyncio.Event()
        self._flights: dict[int, dict[Flight, None]] = {}
        self._fresh: Identity | None = None
        """What the cluster handed out last."""
        self._asking_for_id = False
        self._rotation = 0
        self._has_launched = False
        """The latest look at the queues has started a request."""

    def wake(self) -> None:
        """Something happened: look at the queues again."""
        self._wake.set()

    def metadata_changed(self) -> None:
        """Give up what is in flight to leaders that are deposed, and look at the queues again."""
        self._wake.set()
        self._leave_deposed()

    def _leave_deposed(self) -> None:
        if not self._accumulator.idempotent:
            return  # Sending it again could append it twice; its answer, or time-out, must be waited for.
        for flights in self._flights.values():
            for flight in list(flights):
                if flight.is_under_way and all(self._is_deposed(flight, b) for b in flight.batches):
                    assert flight.task is not None
                    flight.task.cancel()

    def _is_deposed(self, flight: Flight, batch: Batch) -> bool:
        info = self._cluster.metadata.partition(batch.tp)
        return (
            info is not None
            and info.leader >= 0
            and (info.leader != flight.node.node_id and info.leader_epoch > batch.sent_to[1])
        )

    async def run(self) -> None:
        """Send until cancelled."""
        loop = asyncio.get_running_loop()
        clock = self._cluster.clock
        while True:
            self._wake.clear()
            now = clock.monotonic()
            self._expire(now)
            next_at = self._drain(now)
            # One batch a partition a time, while requests are free.
            while self._has_launched and self._accumulator.has_waiting():
                next_at = self._drain(now)
            timer = loop.call_later(max(0.0, next_at - now), self._wake.set) if next_at else None
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    # --- Deciding what goes --------------------------------------------------------------------

    def _expire(self, now: float) -> None:
        for batch in self._accumulator.expire(now):
            why = f": {batch.last_error}" if batch.last_error is not None else ""
            if batch.last_error is None and self._cluster.metadata.leader_of(batch.tp) is None:
                why = ": it has no leader that is known"
            self._fail(
                batch,
                DeliveryTimeoutError(
                    f"{len(batch.values) or batch.count} records for {batch.tp} were not acknowledged within "
                    f"{self._accumulator.delivery_timeout * 1000:g} ms{why}",
                    batch.last_error,
                ),
            )

    def _drain(self, now: float) -> float:
        """Start the requests that can go; return when to look again if nothing happens, 0 for never."""
        self._has_launched = False
        accumulator = self._accumulator
        metadata = self._cluster.metadata
        moments: list[float] = []
        ready: dict[int, tuple[Node, list[TopicPartition]]] = {}
        soon: dict[int, list[TopicPartition]] = {}
        leaderless = False
        for tp, queue in accumulator.busy.items():
            if not queue.waiting:
                continue
            batch = queue.waiting[0]
            node = metadata.leader_of(tp)
            if node is None:
                leaderless = True
                continue
            if batch.retry_at > now and not self._moved(batch):
                moments.append(batch.retry_at)
                continue
            if not queue.may_send(batch, idempotent=accumulator.idempotent):
                continue
            if accumulator.idempotent and queue.needs_new_identity() and not queue.renew(self._fresh):
                self._ask_for_id()
                continue
            pause = self._cluster.backs_off_until(node.address)
            if pause > now:
                moments.append(pause)
                continue
            if accumulator.is_ready(batch, now):
                ready.setdefault(node.node_id, (node, []))[1].append(tp)
            else:
                lingers_until = batch.created + accumulator.linger
                moments.append(lingers_until)
                if lingers_until - now < accumulator.linger / 2:
                    soon.setdefault(node.node_id, []).append(tp)
        if leaderless:
            self._cluster.request_refresh()
            moments.append(now + self._cluster.retry_backoff_ms / 1000)
        for node_id, (node, partitions) in ready.items():
            # What would go within half of linger_ms anyway travels along.
            self._fill(node, partitions, soon.get(node_id, ()), now)
        oldest = next(iter(accumulator.incomplete), None)
        if oldest is not None:
            moments.append(oldest.created + accumulator.delivery_timeout)
        suspect = [flight.started for flights in self._flights.values() for flight in flights]
        if suspect:
            first = min(suspect) + SLOW_ANSWER
            if first <= now:
                self._cluster.request_refresh()
                self._leave_deposed()
                first = now + SLOW_ANSWER
            moments.append(first)
        return min(moments, default=0.0)

    def _moved(self, batch: Batch) -> bool:
        """Whether the partition has another leader, or leader epoch, than the last attempt was for."""
        info = self._cluster.metadata.partition(batch.tp)
        return info is not None and batch.attempts > 0 and (info.leader, info.leader_epoch) != batch.sent_to

    def _fill(
        self, node: Node, ready: list[TopicPartition], soon: Iterable[TopicPartition], now: float
    ) -> None:
        """Start requests to ``node`` with one batch of each partition; who comes first rotates."""
        flights = self._flights.setdefault(node.node_id, {})
        if len(flights) >= MAX_IN_FLIGHT:
            return
        self._rotation += 1
        start = self._rotation % len(ready)
        flight = Flight(node, now)
        for tp in (*ready[start:], *ready[:start], *soon):
            queue = self._accumulator.busy[tp]
            head = queue.waiting[0]
            if not head.is_sealed:
                self._accumulator.seal(head)
            assert head.encoded is not None
            if flight.batches and flight.size + len(head.encoded) > self._max_request_size:
                self._launch(flight)
                if len(flights) >= MAX_IN_FLIGHT:
                    return
                flight = Flight(node, now)
            batch = queue.take(flight, idempotent=self._accumulator.idempotent)
            info = self._cluster.metadata.partition(tp)
            assert info is not None
            batch.sent_to = (info.leader, info.leader_epoch)
            flight.batches.append(batch)
            flight.size += len(head.encoded)
        self._launch(flight)

    def _launch(self, flight: Flight) -> None:
        if flight.batches:
            self._has_launched = True
            self._flights[flight.node.node_id][flight] = None
            # Tasks start in the order of their creation, so requests leave in this order.
            flight.task = self._background.spawn(self._exchange(flight), "produce")

    # --- One request ---------------------------------------------------------------------------

    async def _exchange(self, flight: Flight) -> None:
        flight.is_under_way = True
        topics: dict[str, list[ProducePartition]] = {}
        for batch in flight.batches:
            assert batch.encoded is not None
            topics.setdefault(batch.tp.topic, []).append(
                ProducePartition(index=batch.tp.partition, records=memoryview(batch.encoded))
            )
        request = ProduceRequest(
            acks=self._acks,
            timeout_ms=self._leader_timeout_ms,
            topic_data=[ProduceTopic(name=name, partition_data=parts) for name, parts in topics.items()],
        )
        answer: ProduceResponse | None = None
        error: BrokerError | None = None
        is_certain = False
        try:
            answer = await self._cluster.ask(
                flight.node, request, ProduceResponse, lane="produce", timeout_ms=self._request_timeout_ms
            )
        except ConnectionFailed as failure:
            error = error_for(ErrorCode.NETWORK_EXCEPTION, str(failure))
            is_certain = not failure.sent
        except rpc.RequestRefused as refusal:
            error, is_certain = _refused(refusal)
        finally:
            # Also when cancelled: the batches must not stay in flight for ever.
            del self._flights[flight.node.node_id][flight]
            if answer is None:
                deposed = f"{flight.node} was given up: deposed"
                error = error or error_for(ErrorCode.NETWORK_EXCEPTION, deposed)
                self._cluster.request_refresh()
                for batch in flight.batches:
                    if batch.flight is flight:
                        self._answered(batch, error, NO_HINT, is_certain=is_certain)
            self._wake_for_waiting()
        answers: dict[TopicPartition, ProduceResponsePartition] = {
            TopicPartition(topic.name, p.index): p
            for topic in (answer.responses if answer is not None else ())
            for p in topic.partition_responses
        }
        if answer is not None and answer.node_endpoints:
            self._cluster.metadata.hint_nodes(
                Node(n.node_id, n.host, n.port, n.rack) for n in answer.node_endpoints
            )
        for batch in flight.batches:
            if batch.flight is not flight:
                continue  # It expired meanwhile, or was answered above.
            p = answers.get(batch.tp)
            if p is None:
                missing = error_for(ErrorCode.NETWORK_EXCEPTION, f"{flight.node} left {batch.tp} unanswered")
                self._answered(batch, missing, NO_HINT)
            elif p.error_code == ErrorCode.NONE:
                self._acknowledged(batch, p)
            else:
                message = p.error_message or f"{batch.tp} at broker {flight.node}"
                hint = (p.current_leader.leader_id, p.current_leader.leader_epoch)
                self._answered(batch, error_for(p.error_code, message), hint)
        self._wake_for_waiting()

    def _wake_for_waiting(self) -> None:
        """Look at the queues again if there is anything in them that is not under way."""
        if self._accumulator.has_waiting():
            self._wake.set()

    def _acknowledged(self, batch: Batch, answer: ProduceResponsePartition | None) -> None:
        queue = self._accumulator.queues[batch.tp]
        queue.land(batch)
        if batch.identity is not None and batch.identity == queue.identity:
            queue.is_established = True
        if answer is not None:
            batch.base_offset = answer.base_offset
            batch.log_append_time = answer.log_append_time_ms
            batch.log_start_offset = answer.log_start_offset
        self._accumulator.complete(batch, None)

    def _answered(
        self, batch: Batch, error: BrokerError, leader: tuple[int, int], *, is_certain: bool = False
    ) -> None:
        """An attempt of ``batch`` did not end with an acknowledgement."""
        accumulator = self._accumulator
        queue = accumulator.queues[batch.tp]
        outcome = queue.judge(batch, error, idempotent=accumulator.idempotent, is_certain=is_certain)
        if outcome is Outcome.APPENDED:
            self._acknowledged(batch, None)
            return
        queue.land(batch)
        batch.attempts += 1
        batch.last_error = error
        if error.refresh_metadata:
            if leader[0] >= 0 and self._cluster.metadata.hint_leader(batch.tp, *leader):
                self._cluster.changed()
            else:
                self._cluster.request_refresh()
        if outcome is Outcome.FAILED:
            accumulator.withdraw(batch)
            self._fail(batch, error)
        elif outcome is Outcome.SPLIT:
            accumulator.split(batch)
        else:
            cluster = self._cluster
            now = cluster.clock.monotonic()
            wait = backoff_ms(
                batch.attempts, cluster.retry_backoff_ms, cluster.retry_backoff_max_ms, cluster.chance
            )
            # An order violated by an older batch's retry is mended as soon as that one is through.
            batch.retry_at = now + wait / 1000 if error.retriable else now
            queue.put_back(batch)

    # --- Ends ----------------------------------------------------------------------------------

    def _fail(self, batch: Batch, error: BaseException) -> None:
        count = batch.count or len(batch.values)
        if not batch.waiters:
            # Whoever sent them may never look: say it where it can be found.
            logger.warning("%d records for %s were not delivered: %s", count, batch.tp, error)
        self._accumulator.complete(batch, error)

    def fail_all(self, error: BaseException) -> None:
        """Fail every batch that is not done."""
        for batch in list(self._accumulator.incomplete):
            self._accumulator.withdraw(batch)
            self._fail(batch, error)

    # --- Producer ids --------------------------------------------------------------------------

    def _ask_for_id(self) -> None:
        if not self._asking_for_id:
            self._asking_for_id = True
            self._background.spawn(self._get_id(), "producer id")

    async def _get_id(self) -> None:
        cluster = self._cluster
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=2**31 - 1)
        failures = 0
        try:
            while True:
                try:
                    answer = await cluster.ask_any(
                        request, InitProducerIdResponse, timeout_ms=self._request_timeout_ms
                    )
                except ClusterUnreachableError as failure:
                    error: Exception = failure
                else:
                    if answer.error_code == ErrorCode.NONE and answer.producer_epoch < MAX_PRODUCER_EPOCH:
                        self._fresh = Identity(answer.producer_id, answer.producer_epoch)
                        return
                    if answer.error_code == ErrorCode.NONE:
                        error = error_for(
                            ErrorCode.INVALID_PRODUCER_EPOCH, "a producer id without epochs left"
                        )
                    else:
                        told = error_for(answer.error_code, "no producer id from the cluster")
                        if not told.retriable:
                            self._fail_unidentified(told)
                            return
                        error = told
                failures += 1
                for batch in self._accumulator.incomplete:
                    if batch.identity is None:
                        batch.last_error = error
                wait = backoff_ms(
                    failures, cluster.retry_backoff_ms, cluster.retry_backoff_max_ms, cluster.chance
                )
                await asyncio.sleep(wait / 1000)
        finally:
            self._asking_for_id = False
            self._wake.set()

    def _fail_unidentified(self, error: BrokerError) -> None:
        """Without a producer id nothing more can be sent; what has one goes on."""
        for batch in [b for b in self._accumulator.incomplete if b.identity is None]:
            self._accumulator.withdraw(batch)
            self._fail(batch, error)


NO_HINT: Final = (-1, -1)


def _refused(refusal: rpc.RequestRefused) -> tuple[BrokerError, bool]:
    """The error for an answer other than 200, and whether it is certain that nothing was appended."""
    if refusal.status == 503:
        return error_for(ErrorCode.NETWORK_EXCEPTION, str(refusal)), True
    if refusal.status == 413:
        return error_for(ErrorCode.MESSAGE_TOO_LARGE, str(refusal)), True
    if refusal.status >= 500:
        return error_for(ErrorCode.UNKNOWN_SERVER_ERROR, str(refusal)), False
    return error_for(refusal.error_code or ErrorCode.INVALID_REQUEST, str(refusal)), True
