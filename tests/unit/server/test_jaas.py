"""ZooKeeper's credentials are read from the files that Kafka's operators have."""

from __future__ import annotations

from pathlib import Path

import pytest

from kafkalite.server.config import BrokerConfig, ConfigError
from kafkalite.server.config.jaas import parse_jaas

FILE = """
// Kafka's own listeners; nothing for ZooKeeper: }
KafkaServer {
    org.apache.kafka.common.security.plain.PlainLoginModule required username="x" password="};";
};
/* Client { nothing at all }; */
Client {
    org.apache.zookeeper.server.auth.DigestLoginModule required
    username="kafka"
    password="a \\"secret\\" // with }; in it";
};
"""
CREDENTIALS = {
    "mechanism": "DIGEST-MD5",
    "username": "kafka",
    "password": 'a "secret" // with }; in it',
}


def test_the_clients_section_is_found() -> None:
    assert parse_jaas(FILE, "Client") == CREDENTIALS


def test_a_file_for_others_names_nothing() -> None:
    assert parse_jaas(FILE, "ZkClient") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no section"),
        ("Client { com.sun.security.auth.module.Krb5LoginModule required; };", "not honoured"),
        (
            'Client { org.apache.zookeeper.server.auth.DigestLoginModule required username="k"; };',
            "no password",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_jaas(text, "Client")


def test_kafka_opts_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "kafka server.jaas"
    file.write_text(FILE)
    settings = {"zookeeper.connect": "localhost:2181"}
    environ = {"KAFKA_OPTS": f"-Xmx1g '-Djava.security.auth.login.config={file}'"}
    config = BrokerConfig.load(environ=environ, overrides=settings)
    assert config.zookeeper_config().sasl == CREDENTIALS
    assert "secret" not in repr(config)
    assert BrokerConfig.load(overrides=settings).zookeeper_config().sasl is None


def test_a_file_that_is_not_there_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        BrokerConfig.load(
            environ={"KAFKA_OPTS": "-Djava.security.auth.login.config=/nowhere"},
            overrides={"zookeeper.connect": "localhost:2181"},
        )
