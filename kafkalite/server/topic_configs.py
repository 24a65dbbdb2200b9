"""Topic configs from ZooKeeper, live.

A topic's configs stand in `/config/topics/<topic>`. Whoever changes them also leaves a
notification below `/config/changes` that names the entity and no values; every broker watches
for those and reads the entity anew. All configs are read when a session begins, so a purged
notification is never needed. A value in a znode cannot be refused any more: what this version
does not honour is left out and told in a loud event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from kafkalite.common import INTERNAL_TOPICS
from kafkalite.edge import Clock
from kafkalite.journal import Journal
from kafkalite.log.config import LogConfig
from zk import paths
from zk.client import SessionExpired, WatchEvent
from zk.store import BadRecord, Store

_logger = logging.getLogger(__name__)

NOTIFICATION_LIFETIME_MS: Final = 15 * 60 * 1000
"""How long a notification stays for other brokers to see, as in Kafka."""


class TopicConfigs:
    """The effective configuration of every topic: its own settings over the broker's defaults."""

    def __init__(
        self,
        defaults: LogConfig,
        *,
        clock: Clock,
        journal: Journal,
        on_change: Callable[[str, LogConfig], None],
    ) -> None:
        """``on_change`` is called with each topic whose effective configuration changed."""
        self.defaults = defaults
        self._clock = clock
        self._journal = journal
        self._on_change = on_change
        self._overrides: dict[str, dict[str, str]] = {}
        self._effective: dict[str, LogConfig] = {}
        self._news = asyncio.Event()
        self._store: Store | None = None
        self._last_processed = -1

    def config(self, topic: str) -> LogConfig:
        """What holds for ``topic``; the broker's defaults where nothing is set."""
        return self._effective.get(topic, self.defaults)

    def all(self) -> Mapping[str, LogConfig]:
        """The topics that have settings of their own, with what holds for them."""
        return self._effective

    def overrides(self, topic: str) -> Mapping[str, str]:
        """What is set for ``topic`` itself, as it stands in ZooKeeper."""
        return self._overrides.get(topic, {})

    async def load(self, store: Store) -> None:
        """Read everything under a (new) session; later changes follow through :meth:`run`."""
        self._store = store
        changes = await store.config_changes(watch=self._on_notification)
        self._last_processed = max((paths.sequence_number(path) for path in changes), default=-1)
        topics = await store.config_entities("topics")
        await asyncio.gather(*(self._read(store, topic) for topic in topics))
        for topic in sorted(self._overrides.keys() - set(topics)):
            self._apply(topic, {})

    async def read(self, store: Store, topics: Iterable[str]) -> None:
        """Read some topics now: of a creation there is no notification."""
        await asyncio.gather(*(self._read(store, topic) for topic in topics))

    async def run(self) -> None:
        """Follow the notifications until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            store = self._store
            assert store is not None
            try:
                await self._process(store)
            except SessionExpired:
                continue  # The next session reads everything anew.

    def _on_notification(self, path: str, event: WatchEvent) -> None:
        self._news.set()

    async def _process(self, store: Store) -> None:
        changes = await store.config_changes(watch=self._on_notification)
        for path, change in changes.items():
            number = paths.sequence_number(path)
            if number <= self._last_processed:
                continue
            self._last_processed = number
            if isinstance(change, BadRecord):
                _logger.error("a config change notification cannot be read: %s", change)
                continue
            kind, _, name = change.entity_path.partition("/")
            if kind == "topics" and name:
                cause = self._journal.record("ZnodeChanged", path=path)
                with self._journal.because(cause):
                    await self._read(store, name)
        await self._purge(store, list(changes))

    async def _purge(self, store: Store, notifications: list[str]) -> None:
        stats = await asyncio.gather(*(store.exists(path) for path in notifications))
        oldest_kept = self._clock.wall_ms() - NOTIFICATION_LIFETIME_MS
        await store.delete_notifications(
            path
            for path, stat in zip(notifications, stats, strict=True)
            if stat is not None and stat.ctime_ms < oldest_kept
        )

    async def _read(self, store: Store, topic: str) -> None:
        try:
            self._apply(topic, await store.topic_config(topic))
        except BadRecord as error:
            self._journal.record("TopicConfigIgnored", topic=topic, reason=str(error))
            _logger.error("the configs of topic %s cannot be read and stay as they were: %s", topic, error)

    def _apply(self, topic: str, overrides: dict[str, str]) -> None:
        if overrides == self._overrides.get(topic, {}):
            return
        before = self._overrides.pop(topic, {})
        self._effective.pop(topic, None)
        if overrides:
            self._overrides[topic] = overrides
            self._effective[topic], problems = LogConfig.parse_leniently(
                overrides, self.defaults, is_internal=topic in INTERNAL_TOPICS
            )
            for problem in problems:
                self._journal.record("TopicConfigIgnored", topic=topic, reason=problem)
                _logger.error("a config of topic %s in ZooKeeper is not honoured: %s", topic, problem)
        self._journal.record("TopicConfigChanged", topic=topic, before=before, after=overrides)
        self._on_change(topic, self.config(topic))
