"""The broker's credentials for ZooKeeper, from where Kafka's operators keep them.

Kafka has no config name for them. They stand in the `Client` section of a JAAS file, and
`KAFKA_OPTS=-Djava.security.auth.login.config=FILE` names that file. Both are read here as they are, so
that what is set up for Kafka's brokers works unchanged. Only the login module for digest is known.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kafkalite.server.config.definition import ConfigError

_VARIABLE: Final = "KAFKA_OPTS"
_PROPERTY: Final = "-Djava.security.auth.login.config="
_SECTION_PROPERTY: Final = "-Dzookeeper.sasl.clientconfig="
_DIGEST: Final = "org.apache.zookeeper.server.auth.DigestLoginModule"

_COMMENT: Final = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_SECTION: Final = re.compile(r'\s*([\w.-]+)\s*\{((?:"(?:\\.|[^"\\])*"|[^"}])*)\}\s*;')
_OPTION: Final = re.compile(r'([\w.]+)\s*=\s*(?:"((?:\\.|[^"\\])*)"|([^\s;"]+))')


def zookeeper_sasl(environ: Mapping[str, str]) -> Mapping[str, str] | None:
    """What to authenticate to ZooKeeper with, or None where no JAAS file is named.

    Raises ConfigError where the file cannot be read or its section is not one for digest.
    """
    file, section = None, "Client"
    for word in shlex.split(environ.get(_VARIABLE, "")):
        if word.startswith(_PROPERTY):
            file = word.removeprefix(_PROPERTY)
        elif word.startswith(_SECTION_PROPERTY):
            section = word.removeprefix(_SECTION_PROPERTY)
    if file is None:
        return None
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the JAAS file {file} that {_VARIABLE} names: {error}") from None
    try:
        return parse_jaas(text, section)
    except ValueError as error:
        raise ConfigError(f"JAAS file {file}: {error}") from None


def parse_jaas(text: str, section: str) -> Mapping[str, str] | None:
    """The digest credentials in ``section``, or None where the file has no such section.

    A file without it names credentials for others, Kafka's own listeners say. Raises ValueError.
    """
    plain = _COMMENT.sub(lambda match: match[1] or " ", text)
    sections = {match[1]: match[2] for match in _SECTION.finditer(plain)}
    if not sections:
        raise ValueError("it has no section of the form Name { module required …; };")
    body = sections.get(section)
    if body is None:
        return None
    module, _, rest = body.strip().partition(" ")
    if module.strip() != _DIGEST:
        raise ValueError(
            f"section {section}: {module.strip() or 'no module'} is not honoured, only {_DIGEST} is"
        )
    options = {
        match[1]: re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        for match in _OPTION.finditer(rest)
    }
    missing = [name for name in ("username", "password") if name not in options]
    if missing:
        raise ValueError(f"section {section} has no {missing[0]}")
    return {"mechanism": "DIGEST-MD5", "username": options["username"], "password": options["password"]}
