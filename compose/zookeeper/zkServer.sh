#!/usr/bin/env bash
# Writes zoo.cfg from ZOO_… variables, named as in the official image, and runs the server in the foreground.
set -euo pipefail
{
    echo "dataDir=/data"
    echo "dataLogDir=/datalog"
    echo "tickTime=${ZOO_TICK_TIME:-2000}"
    echo "initLimit=${ZOO_INIT_LIMIT:-5}"
    echo "syncLimit=${ZOO_SYNC_LIMIT:-2}"
    echo "maxClientCnxns=${ZOO_MAX_CLIENT_CNXNS:-60}"
    echo "admin.enableServer=${ZOO_ADMINSERVER_ENABLED:-true}"
    echo "autopurge.snapRetainCount=${ZOO_AUTOPURGE_SNAPRETAINCOUNT:-3}"
    echo "autopurge.purgeInterval=${ZOO_AUTOPURGE_PURGEINTERVAL:-0}"
    echo "4lw.commands.whitelist=${ZOO_4LW_COMMANDS_WHITELIST:-srvr}"
    printf '%s\n' ${ZOO_CFG_EXTRA:-}
    case ${ZOO_SERVERS:-} in
        *server.*server.*) printf '%s\n' $ZOO_SERVERS ;;
        *) echo "clientPort=2181" ;;  # Alone: no quorum to agree with.
    esac
} > /conf/zoo.cfg
echo "${ZOO_MY_ID:-1}" > /data/myid
exec java ${SERVER_JVMFLAGS:-} ${JVMFLAGS:-} \
    -Dorg.slf4j.simpleLogger.showDateTime=true -Dzookeeper.jmx.log4j.disable=true -Djava.net.preferIPv4Stack=true \
    -cp /usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar:/conf \
    org.apache.zookeeper.server.quorum.QuorumPeerMain /conf/zoo.cfg
