"""describe_configs (API key 32): Effective configs of topics and brokers, and where each value comes from."""

from kafkalite.protocol.message import Int8, Int16, Int32, Message


class DescribeConfigsResource(Message, frozen=True, kw_only=True):
    """One element of `resources`."""

    resource_type: Int8
    """2 topic, 4 broker."""
    resource_name: str
    """The topic, or the broker id as text; "" for the dynamic default of all brokers."""
    configuration_keys: list[str] | None = None
    """The names wanted; None for all."""


class DescribeConfigsRequest(Message, frozen=True, kw_only=True):
    """The request; see the module."""

    resources: list[DescribeConfigsResource]
    include_synonyms: bool = False
    """Also every place a value could come from, nearest first."""
    include_documentation: bool = False


class DescribeConfigsResponseSynonym(Message, frozen=True, kw_only=True):
    """One element of `synonyms`."""

    name: str = ""
    value: str | None = None
    source: Int8 = 0
    """Numbered as `config_source`."""


class DescribeConfigsResponseConfig(Message, frozen=True, kw_only=True):
    """One element of `configs`."""

    name: str
    value: str | None = None
    """None for a secret, and for a config that has no value."""
    read_only: bool
    """Cannot be changed while the broker runs."""
    config_source: Int8 = -1
    """1 topic, 2 broker (dynamic), 3 all brokers (dynamic), 4 broker's file, 5 default."""
    is_sensitive: bool
    synonyms: list[DescribeConfigsResponseSynonym] = []
    config_type: Int8 = 0
    """1 boolean, 2 string, 3 int, 4 short, 5 long, 6 double, 7 list, 8 class, 9 password."""
    documentation: str | None = None


class DescribeConfigsResponseResult(Message, frozen=True, kw_only=True):
    """One element of `results`."""

    error_code: Int16
    error_message: str | None = None
    resource_type: Int8
    resource_name: str
    configs: list[DescribeConfigsResponseConfig]


class DescribeConfigsResponse(Message, frozen=True, kw_only=True):
    """The answer; see the module."""

    throttle_time_ms: Int32
    results: list[DescribeConfigsResponseResult]
