"""A broker's configuration under Kafka's names.

:mod:`.definition` says what a config is, :mod:`.table` lists every one that Kafka knows and what
this version does with it, :mod:`.listeners` reads listeners, and :mod:`.broker` puts together the
:class:`BrokerConfig` that a broker reads. Nothing here is changed after the start; dynamic
settings lie on top of it (see :mod:`kafkalite.server.dynamic_config`).
"""

from kafkalite.server.config.broker import BrokerConfig, ConfigEntry, Setting
from kafkalite.server.config.definition import (
    ConfigError,
    ConfigType,
    Definition,
    Source,
    Standing,
    UpdateMode,
    format_value,
)
from kafkalite.server.config.table import BROKER_CONFIGS, definition_of

__all__ = [
    "BROKER_CONFIGS",
    "BrokerConfig",
    "ConfigEntry",
    "ConfigError",
    "ConfigType",
    "Definition",
    "Setting",
    "Source",
    "Standing",
    "UpdateMode",
    "definition_of",
    "format_value",
]
