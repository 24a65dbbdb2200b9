"""`kafka-console-producer`: lines of stdin become records, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec

from kafkalite.cli.client_options import (
    COMMON_PROPERTIES,
    Properties,
    boolean,
    bootstrap_option,
    bootstrap_servers,
    client_arguments,
    read_properties,
    refused,
    run,
)
from kafkalite.cli.outcome import ExitCode, Failed
from kafkalite.client.admin import AdminClient
from kafkalite.client.delivery import Delivery
from kafkalite.client.producer import Producer

PRODUCER_PROPERTIES: Final[Properties] = {
    **COMMON_PROPERTIES,
    "acks": ("acks", str),
    "enable.idempotence": ("enable_idempotence", boolean),
    "compression.type": ("compression_type", str),
    "batch.size": ("max_batch_size", int),
    "linger.ms": ("linger_ms", float),
    "max.request.size": ("max_request_size", int),
    "buffer.memory": ("buffer_memory", int),
    "max.block.ms": ("max_block_ms", int),
    "delivery.timeout.ms": ("delivery_timeout_ms", int),
}

TOPIC_PATIENCE_S: Final = 5.0
"""How long a topic may take to appear: it may have been created a moment ago."""
_CHUNK: Final = 1 << 16
_MAX_PENDING: Final = 100_000
"""Outcomes not looked at yet; reading stdin waits when there are more."""


class Line(NamedTuple):
    """One line of input, taken apart."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None


class BadLine(Exception):
    """A line lacks a separator that the properties ask for."""


class LineReader(msgspec.Struct, frozen=True):
    """How lines become records: Kafka's reader properties. Pure."""

    parse_key: bool = False
    key_separator: bytes = b"\t"
    ignore_error: bool = False
    parse_headers: bool = False
    headers_delimiter: bytes = b"\t"
    headers_separator: bytes = b","
    headers_key_separator: bytes = b":"
    null_marker: bytes | None = None

    @classmethod
    def from_properties(cls, properties: Mapping[str, str]) -> LineReader:
        """Raises click.UsageError for a property that there is not."""
        arguments: dict[str, Any] = {}
        for name, text in properties.items():
            field = name.replace(".", "_")
            if field not in cls.__struct_fields__:
                raise click.UsageError(f"--property {name}: there is no such property")
            if field in ("parse_key", "ignore_error", "parse_headers"):
                try:
                    arguments[field] = boolean(text)
                except ValueError as error:
                    raise click.UsageError(f"--property {name}={text}: {error}") from error
            elif not text:
                raise click.UsageError(f"--property {name}: must not be empty")
            else:
                arguments[field] = os.fsencode(text)
        return cls(**arguments)

    def parse(self, line: bytes, number: int) -> Line:
        """Take line ``number`` (from 1) apart. Raises BadLine."""
        rest, key, headers = line, None, None
        if self.parse_headers:
            text, rest = self._split(rest, self.headers_delimiter, "headers delimiter", number)
            if text is not None and text != self.null_marker:
                headers = [self._header(part, number) for part in text.split(self.headers_separator)]
        if self.parse_key:
            key, rest = self._split(rest, self.key_separator, "key separator", number)
        return Line(self._nullable(key), self._nullable(rest), headers)

    def _split(self, line: bytes, separator: bytes, what: str, number: int) -> tuple[bytes | None, bytes]:
        before, found, after = line.partition(separator)
        if found:
            return before, after
        if self.ignore_error:
            return None, line
        raise BadLine(f"No {what} found on line number {number}: '{line.decode(errors='replace')}'")

    def _header(self, text: bytes, number: int) -> tuple[str, bytes | None]:
        name, found, value = text.partition(self.headers_key_separator)
        if not found:
            if self.ignore_error:
                return name.decode(errors="replace"), None
            raise BadLine(
                f"No header key separator found in pair '{text.decode(errors='replace')}' "
                f"on line number {number}"
            )
        return name.decode(errors="replace"), self._nullable(value)

    def _nullable(self, value: bytes | None) -> bytes | None:
        return None if value is None or value == self.null_marker else value


class LineSplitter:
    """Cuts a stream of bytes at each newline; the newline goes, everything else stays. Pure."""

    def __init__(self) -> None:
        self._carry: list[bytes] = []
        """The beginning of a line whose end has not come yet, in pieces."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that ``chunk`` ends."""
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            if self._carry:
                self._carry.append(line)
                yield b"".join(self._carry)
                self._carry.clear()
            else:
                yield line
        if rest:
            self._carry.append(rest)

    def end(self) -> Iterator[bytes]:
        """Yield the last line, where it has no newline."""
        if self._carry:
            yield b"".join(self._carry)
            self._carry.clear()


async def read_chunks(descriptor: int) -> AsyncIterator[bytes]:
    """What comes in on ``descriptor``, as it comes; the loop runs on meanwhile.

    A thread reads, because a regular file cannot be waited for otherwise. It is a daemon, so that
    Ctrl-C need not wait for a terminal's next line. Raises OSError.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | OSError] = asyncio.Queue(16)  # Full: the thread waits, and stdin with it.

    def pump() -> None:
        with contextlib.suppress(RuntimeError):  # The loop has ended; nobody wants the rest.
            while True:
                found: bytes | OSError
                try:
                    found = os.read(descriptor, _CHUNK)
                except OSError as error:
                    found = error
                asyncio.run_coroutine_threadsafe(queue.put(found), loop).result()
                if not found or isinstance(found, OSError):
                    return

    threading.Thread(target=pump, name="stdin", daemon=True).start()
    while chunk := await queue.get():
        if isinstance(chunk, OSError):
            raise chunk
        yield chunk


@click.command("kafka-console-producer")
@bootstrap_option
@click.option("--topic", required=True)
@click.option("--sync", is_flag=True, help="Wait for each record before the next one.")
@click.option(
    "--compression-codec",
    is_flag=False,
    flag_value="gzip",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    help="gzip where no value is given.",
)
@click.option("--batch-size", type=int, default=16_384, show_default=True, help="Bytes of a batch.")
@click.option("--max-partition-memory-bytes", type=int, help="The older name of --batch-size.")
@click.option("--retry-backoff-ms", type=int, default=100, show_default=True)
@click.option("--timeout", "linger_ms", type=float, default=1000, show_default=True, help="Linger, in ms.")
@click.option("--request-required-acks", default="-1", show_default=True, help="0, 1 or -1 (all).")
@click.option("--request-timeout-ms", type=int, default=1500, show_default=True)
@click.option("--metadata-expiry-ms", type=int, default=300_000, show_default=True)
@click.option("--max-block-ms", type=int, default=60_000, show_default=True)
@click.option("--max-memory-bytes", type=int, default=33_554_432, show_default=True)
@click.option("--producer-property", multiple=True, metavar="K=V", help="A property of the producer.")
@click.option(
    "--producer.config",
    "--command-config",
    "config_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file of such properties; the flags count before it.",
)
@click.option(
    "--property",
    "--reader-property",
    "reader_properties",
    multiple=True,
    metavar="K=V",
    help="parse.key, key.separator, ignore.error, parse.headers, headers.delimiter, headers.separator, "
    "headers.key.separator, null.marker.",
)
@refused(
    "--message-send-max-retries",
    because="the producer retries until delivery.timeout.ms; set that with --producer-property",
)
@refused("--socket-buffer-size", because="the producer leaves socket buffers to the system")
@refused(
    "--line-reader",
    "--reader-config",
    because="readers are Java classes in Kafka; here is only the one for lines",
)
def console_producer(
    bootstrap: str | None,
    topic: str,
    sync: bool,
    compression_codec: str | None,
    batch_size: int,
    max_partition_memory_bytes: int | None,
    retry_backoff_ms: int,
    linger_ms: float,
    request_required_acks: str,
    request_timeout_ms: int,
    metadata_expiry_ms: int,
    max_block_ms: int,
    max_memory_bytes: int,
    producer_property: tuple[str, ...],
    config_file: Path | None,
    reader_properties: tuple[str, ...],
) -> None:
    """Send each line of stdin as a record. The bytes of a line are kept as they are.

    \b
    kafka-console-producer --bootstrap-server localhost:9092 --topic t < file
    echo 'k:v' | kafka-console-producer --topic t --property parse.key=true --property key.separator=:
    """
    reader = LineReader.from_properties(read_properties(None, reader_properties))
    properties = read_properties(config_file, producer_property)
    arguments: dict[str, Any] = {
        "client_id": "console-producer",
        "acks": request_required_acks,
        "compression_type": compression_codec,
        "max_batch_size": max_partition_memory_bytes or batch_size,
        "linger_ms": linger_ms,
        "buffer_memory": max_memory_bytes,
        "max_block_ms": max_block_ms,
        "request_timeout_ms": request_timeout_ms,
        "retry_backoff_ms": retry_backoff_ms,
        "metadata_max_age_ms": metadata_expiry_ms,
    }
    # A property counts where its flag was not given, as in Kafka.
    context = click.get_current_context()
    source = click.core.ParameterSource.COMMANDLINE
    flags = {
        "acks": "request_required_acks",
        "compression_type": "compression_codec",
        "max_batch_size": "batch_size",
        "buffer_memory": "max_memory_bytes",
        "metadata_max_age_ms": "metadata_expiry_ms",
    }
    for name, value in client_arguments(properties, PRODUCER_PROPERTIES).items():
        if context.get_parameter_source(flags.get(name, name)) is not source:
            arguments[name] = value
    arguments["bootstrap_servers"] = bootstrap_servers(bootstrap, properties)
    failed = run(_produce(arguments, topic, reader, sync=sync))
    if failed:
        raise Failed(f"{failed} records were not acknowledged")


async def _produce(arguments: dict[str, Any], topic: str, reader: LineReader, *, sync: bool) -> int:
    """Send stdin; return how many records were not acknowledged."""
    prompt = sys.stdin.isatty()
    failed = 0

    def look(delivery: Delivery) -> None:
        nonlocal failed
        error = delivery.exception()
        if error is not None:
            failed += 1
            if failed == 1:
                click.echo(f"ERROR Error when sending message to topic {topic} with error: {error}", err=True)

    async with Producer(**arguments) as producer:
        await _topic_exists(producer, arguments, topic)
        pending: deque[Delivery] = deque()
        splitter = LineSplitter()
        number = 0

        async def send(lines: Iterator[bytes]) -> None:
            nonlocal number
            for line in lines:
                number += 1
                try:
                    key, value, headers = reader.parse(line, number)
                except BadLine as error:
                    raise Failed(str(error)) from error
                delivery = await producer.send(topic, value, key=key, headers=headers)
                pending.append(delivery)
                if sync or len(pending) > _MAX_PENDING:
                    await asyncio.wait([asyncio.ensure_future(_settled(delivery))])
                while pending and pending[0].done():
                    look(pending.popleft())

        if prompt:
            _print_prompt()
        async for chunk in read_chunks(sys.stdin.fileno()):
            await send(splitter.feed(chunk))
            if prompt:
                _print_prompt()
        await send(splitter.end())
        await producer.flush()
        for delivery in pending:
            look(delivery)
    return failed


async def _settled(delivery: Delivery) -> None:
    """Wait for the outcome, whatever it is."""
    with contextlib.suppress(Exception):  # It is looked at where it is counted.
        await delivery


async def _topic_exists(producer: Producer, arguments: dict[str, Any], topic: str) -> None:
    """Wait a little for ``topic``; end the command where it does not exist."""
    try:
        async with asyncio.timeout(min(TOPIC_PATIENCE_S, arguments["max_block_ms"] / 1000)):
            await producer.partitions_for(topic)
    except TimeoutError:
        async with AdminClient(bootstrap_servers=arguments["bootstrap_servers"]) as admin:
            if topic not in await admin.list_topics():
                raise Failed(
                    f"topic {topic!r} does not exist: make it with kafka-topics --create --topic {topic} "
                    "(auto.create.topics.enable is off by default)",
                    ExitCode.NOT_FOUND,
                ) from None


def _print_prompt() -> None:
    sys.stdout.write(">")
    sys.stdout.flush()
