"""What the commands that talk to a cluster share: where it is, its properties, how its errors end.

A flag of Kafka's that this version cannot honour is refused by name (:func:`refused`); none is
accepted and ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

import click

from kafkalite.cli.outcome import ExitCode, Failed
from kafkalite.cli.place import cluster_directory
from kafkalite.client.errors import BrokerError, ClientError, ClientTimeoutError, ClusterUnreachableError
from kafkalite.cluster import layout as layouts
from kafkalite.protocol.errors import ErrorCode
from kafkalite.transport.rpc import RequestRefused

Function = TypeVar("Function", bound=Callable[..., Any])
Properties: TypeAlias = Mapping[str, tuple[str, Callable[[str], Any]]]
"""Kafka's client properties: the argument of ours that each one sets, and how its text is read."""
T = TypeVar("T")

EXIT_CODES: Final[Mapping[ErrorCode, ExitCode]] = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ExitCode.NOT_FOUND,
    ErrorCode.UNKNOWN_TOPIC_ID: ExitCode.NOT_FOUND,
    ErrorCode.TOPIC_ALREADY_EXISTS: ExitCode.ALREADY_EXISTS,
    ErrorCode.REQUEST_TIMED_OUT: ExitCode.TIMED_OUT,
    ErrorCode.POLICY_VIOLATION: ExitCode.REFUSED,
    ErrorCode.NETWORK_EXCEPTION: ExitCode.NO_CONNECTION,
    ErrorCode.BROKER_NOT_AVAILABLE: ExitCode.NO_CONNECTION,
    ErrorCode.TOPIC_AUTHORIZATION_FAILED: ExitCode.NOT_AUTHORISED,
    ErrorCode.GROUP_AUTHORIZATION_FAILED: ExitCode.NOT_AUTHORISED,
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED: ExitCode.NOT_AUTHORISED,
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: ExitCode.NOT_AUTHORISED,
    ErrorCode.SASL_AUTHENTICATION_FAILED: ExitCode.NOT_AUTHORISED,
}


def bootstrap_option(function: Function) -> Function:
    """`--bootstrap-server`, and the older tools' `--broker-list`."""
    return click.option(
        "--bootstrap-server",
        "--broker-list",
        "bootstrap",
        metavar="HOST:PORT,…",
        help="Brokers to begin with; unless given, those of the local cluster (kafkalite cluster).",
    )(function)


def output_option(function: Function) -> Function:
    """`--output text|json`"""
    return click.option(
        "--output", type=click.Choice(["text", "json"]), default="text", help="json: one document on stdout."
    )(function)


def refused(*flags: str, because: str, takes_value: bool = True) -> Callable[[Function], Function]:
    """Accept none of ``flags``: each ends the command with a line that says why."""

    def decorate(function: Function) -> Function:
        for flag in flags:

            def refuse(
                context: click.Context, option: click.Parameter, value: object, flag: str = flag
            ) -> None:
                if value not in (None, False):
                    raise click.UsageError(f"{flag}: {because}", ctx=context)

            # A value of its own is optional, so that the refusal, not a missing argument, is the answer.
            extra: dict[str, Any] = (
                {"default": None, "is_flag": False, "flag_value": ""} if takes_value else {"is_flag": True}
            )
            function = click.option(flag, hidden=True, expose_value=False, callback=refuse, **extra)(function)
        return function

    return decorate


def bootstrap_servers(given: str | None, properties: Mapping[str, str]) -> str:
    """Where to begin: the flag, the properties, or the local cluster. Raises click.UsageError."""
    found = given or properties.get("bootstrap.servers")
    if found:
        return found
    try:
        return layouts.load(cluster_directory(None)).bootstrap_servers
    except layouts.NoCluster:
        raise click.UsageError("Missing required argument --bootstrap-server host:port") from None


def read_properties(path: Path | None, pairs: tuple[str, ...] = ()) -> dict[str, str]:
    """Client properties: a file's, then `k=v` arguments. Raises click.UsageError."""
    found: dict[str, str] = {}
    if path is not None:
        import javaproperties  # Costs as much to import as the rest of a small tool.

        with open(path, encoding="utf-8") as file:
            found.update(javaproperties.load(file))
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise click.UsageError(f"{pair!r} is not of the form name=value")
        found[name.strip()] = value.strip()
    return found


def client_arguments(properties: Mapping[str, str], known: Properties) -> dict[str, Any]:
    """Turn Kafka's client properties into the client's arguments by ``known``.

    Raises click.UsageError for one that this version does not honour, or whose value is wrong.
    """
    arguments = {}
    for name, text in properties.items():
        if name == "bootstrap.servers":
            continue
        if name not in known:
            raise click.UsageError(f"property {name}: not honoured by this version of kafkalite")
        argument, convert = known[name]
        try:
            arguments[argument] = convert(text)
        except ValueError as error:
            raise click.UsageError(f"property {name}={text}: {error}") from error
    return arguments


def boolean(text: str) -> bool:
    """`true` or `false`. Raises ValueError."""
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


COMMON_PROPERTIES: Final[Properties] = {
    "client.id": ("client_id", str),
    "request.timeout.ms": ("request_timeout_ms", int),
    "retry.backoff.ms": ("retry_backoff_ms", int),
    "retry.backoff.max.ms": ("retry_backoff_max_ms", int),
    "metadata.max.age.ms": ("metadata_max_age_ms", int),
}
ADMIN_PROPERTIES: Final[Properties] = {
    **COMMON_PROPERTIES,
    "default.api.timeout.ms": ("default_api_timeout_ms", int),
}


def run(work: Coroutine[Any, Any, T], *, prefix: str = "") -> T:
    """Run ``work`` on a loop; what it raises becomes a line (after ``prefix``) and an exit code."""
    with outcomes(prefix):
        return asyncio.run(work)


@contextlib.contextmanager
def outcomes(prefix: str = "") -> Iterator[None]:
    """Turn the errors of clients into :class:`Failed`."""
    try:
        yield
    except ExceptionGroup as group:
        _fail(next(_leaves(group)), prefix)
    except (BrokerError, ClientError, RequestRefused, ValueError) as error:
        _fail(error, prefix)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _fail(error: BaseException, prefix: str) -> NoReturn:
    match error:
        case ClusterUnreachableError():
            code = ExitCode.NO_CONNECTION
        case ClientTimeoutError():
            code = ExitCode.TIMED_OUT
        case BrokerError():
            code = EXIT_CODES.get(error.code, ExitCode.ERROR)
        case ValueError():
            code = ExitCode.USAGE
        case ClientError() | RequestRefused():
            code = ExitCode.ERROR
        case _:
            raise error
    # A broker error's own words say it all where there are any; its name is for programs.
    message = error.message if isinstance(error, BrokerError) and error.message else str(error)
    raise Failed(f"{prefix}{message}", code) from error
