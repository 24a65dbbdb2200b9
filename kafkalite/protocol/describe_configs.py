"""describe_configs (API key 32): Effective configuration of topics and brokers, with where each value comes from."""

from kafkalite.protocol.message import Int8, Int16, Int32, Message


class DescribeConfigsResource(Message):
    """One element of `resources`."""

    resource_type: Int8
    resource_name: str
    configuration_keys: list[str] | None = None


class DescribeConfigsRequest(Message):
    """See the module."""

    resources: list[DescribeConfigsResource]
    include_synonyms: bool = False
    include_documentation: bool = False


class DescribeConfigsResponseSynonym(Message):
    """One element of `synonyms`."""

    name: str = ""
    value: str | None = None
    source: Int8 = 0


class DescribeConfigsResponseConfig(Message):
    """One element of `configs`."""

    name: str
    value: str | None = None
    read_only: bool
    config_source: Int8 = -1
    is_sensitive: bool
    synonyms: list[DescribeConfigsResponseSynonym] = []
    config_type: Int8 = 0
    documentation: str | None = None


class DescribeConfigsResponseResult(Message):
    """One element of `results`."""

    error_code: Int16
    error_message: str | None = None
    resource_type: Int8
    resource_name: str
    configs: list[DescribeConfigsResponseConfig]


class DescribeConfigsResponse(Message):
    """The answer; see the module."""

    throttle_time_ms: Int32
    results: list[DescribeConfigsResponseResult]
