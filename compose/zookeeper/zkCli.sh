#!/usr/bin/env bash
# ZooKeeper's own shell, as in the official image: zkCli.sh [-server HOST:PORT] [COMMAND …]
exec java -Xmx64m ${CLIENT_JVMFLAGS:-} -Dorg.slf4j.simpleLogger.defaultLogLevel=error \
    -cp /usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar \
    org.apache.zookeeper.ZooKeeperMain "$@"
