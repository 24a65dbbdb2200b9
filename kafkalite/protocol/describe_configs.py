"""describe_configs (API key 32): Effective configs of topics and brokers, and where each value comes from."""

from kafkalite.protocol.message import Int8, Int16, Int32, Message


class DescribeConfigsResource(Message, frozen=True, kw_only=True):
    """One element of `resources`."""

    resource_type: Int8
    resource_name: str
    configuration_keys: list[str] | None = None


class DescribeConfigsRequest(Message, frozen=True, kw_only=True):
    """See the module."""

    resources: list[DescribeConfigsResource]
    include_synonyms: bool = False
    include_documentation: bool = False


class DescribeConfigsResponseSynonym(Message, frozen=True, kw_only=True):
    """One element of `synonyms`."""

    name: str = ""
    value: str | None = None
    source: Int8 = 0


class DescribeConfigsResponseConfig(Message, frozen=True, kw_only=True):
    """One element of `configs`."""

    name: str
    value: str | None = None
    read_only: bool
    config_source: Int8 = -1
    is_sensitive: bool
    synonyms: list[DescribeConfigsResponseSynonym] = []
    config_type: Int8 = 0
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
