"""What a broker config is: its name, type and range, and what this version does with it.

Types, defaults and ranges are Kafka's. Where Kafka states no range but breaks on a value (no
fetcher threads, a time limit of zero), ours does.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final, TypeAlias

Value: TypeAlias = bool | int | float | str | tuple[str, ...] | None

INT_MAX: Final = 2**31 - 1
LONG_MAX: Final = 2**63 - 1


class ConfigError(Exception):
    """The configuration cannot be used. One line: which setting, why, and what is allowed."""


class ConfigType(enum.Enum):
    """Kafka's types of config values; the number is `describe_configs`' own."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class Standing(enum.Enum):
    """What this version does with a config that Kafka knows."""

    HONOURED = "honoured"
    DORMANT = "dormant"
    """It belongs to a feature that this version lacks as a whole (consumer groups, transactions).
    The value is checked and shown; it takes effect once the feature exists, and until then there
    is nothing that it could be wrong about: whoever uses the feature gets an error."""
    NOT_HONOURED = "not honoured"
    """Only the default is accepted: a setting without effect would be a lie."""


class UpdateMode(enum.Enum):
    """Whether Kafka lets a config be changed while the broker runs."""

    READ_ONLY = "read-only"
    PER_BROKER = "per-broker"
    CLUSTER_WIDE = "cluster-wide"


class Source(enum.IntEnum):
    """Where a value comes from; the numbers are `describe_configs`' own."""

    DYNAMIC_TOPIC = 1
    DYNAMIC_BROKER = 2
    DYNAMIC_DEFAULT_BROKER = 3
    STATIC_BROKER = 4
    DEFAULT = 5


_BITS: Final = {ConfigType.SHORT: 16, ConfigType.INT: 32, ConfigType.LONG: 64}


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """One broker config."""

    name: str
    type: ConfigType
    default: Value
    doc: str
    at_least: float | None = None
    """Smallest value, inclusive."""
    at_most: float | None = None
    """Largest value, inclusive."""
    one_of: tuple[str, ...] = ()
    """The values there are; empty for any."""
    same_as_default: tuple[str, ...] = ()
    """Other spellings of the default."""
    standing: Standing = Standing.HONOURED
    update_mode: UpdateMode = UpdateMode.READ_ONLY

    @property
    def is_sensitive(self) -> bool:
        """Whether the value is never shown."""
        return self.type is ConfigType.PASSWORD

    def parse(self, text: str) -> Value:
        """Read a value as Kafka does (surrounding blanks ignored).

        Raises ValueError with the reason in words, without the name. A value that this version
        does not honour is none of this method's business: see :meth:`is_accepted`.
        """
        text = text.strip()
        value = self._typed(text)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            below = self.at_least is not None and value < self.at_least
            above = self.at_most is not None and value > self.at_most
            if below or above:
                raise ValueError(f"must be {self._range()}")
        if self.one_of and isinstance(value, str) and value not in self.one_of:
            raise ValueError(f"must be one of {', '.join(self.one_of)}")
        return value

    def is_accepted(self, value: Value) -> bool:
        """Tell whether this version starts with ``value``."""
        if self.standing is not Standing.NOT_HONOURED or value == self.default:
            return True
        # An empty text is as good as none for what has no default.
        return (self.default is None and value in ("", ())) or value in self.same_as_default

    def _typed(self, text: str) -> Value:
        match self.type:
            case ConfigType.BOOLEAN:
                if text.lower() not in ("true", "false"):
                    raise ValueError("must be true or false")
                return text.lower() == "true"
            case ConfigType.SHORT | ConfigType.INT | ConfigType.LONG:
                bits = _BITS[self.type]
                digits = text[1:] if text[:1] in ("+", "-") else text
                if not (digits.isascii() and digits.isdigit()):
                    raise ValueError(f"must be a whole number, {self._range()}")
                number = int(text)
                if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
                    raise ValueError(f"must fit {bits} bits, {self._range()}")
                return number
            case ConfigType.DOUBLE:
                try:
                    real = float(text)
                except ValueError:
                    real = math.nan
                if math.isnan(real):
                    raise ValueError(f"must be a number, {self._range()}")
                return real
            case ConfigType.LIST:
                return tuple(item.strip() for item in text.split(",")) if text else ()
            case ConfigType.STRING | ConfigType.CLASS | ConfigType.PASSWORD:
                return text

    def _range(self) -> str:
        low, high = self.at_least, self.at_most
        if low is not None and high is not None:
            return f"from {low:g} to {high:g}" if isinstance(high, float) else f"from {low} to {high}"
        if low is not None:
            return f"at least {low}"
        if high is not None:
            return f"at most {high}"
        return "of any size"


def format_value(value: Value) -> str | None:
    """Write a value as Kafka's tools print it; None where there is none."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)
