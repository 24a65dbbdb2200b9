"""The base of all messages: frozen structs whose field names are Kafka's in snake_case.

A field without a default is required: those are the fields that stand in version 0 of Kafka's
schema, have no default and are not nullable. Everything else may be absent and then takes its
default, and unknown fields are ignored, so that the protocol grows by addition.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Int8 = Annotated[int, msgspec.Meta(ge=-(2**7), le=2**7 - 1)]
Int16 = Annotated[int, msgspec.Meta(ge=-(2**15), le=2**15 - 1)]
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Message(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """A request, a response, or a struct inside one."""
