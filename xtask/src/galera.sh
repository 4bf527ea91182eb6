# Three MariaDB nodes of one Galera cluster on 127.0.0.1, as root, until the standard input ends.
# galera.sh DIRECTORY FIRST_PORT prints "ready" once all three are in step. Account qudo, password secret.
set -u
directory=$1 first=$2
pids=()
trap 'kill "${pids[@]}" 2>/dev/null; sleep 2; kill -9 "${pids[@]}" 2>/dev/null' EXIT
chmod 755 "$directory"
for node in 1 2 3; do
    mkdir -p "$directory/$node"
    chown -R mysql "$directory/$node"
    mariadb-install-db --no-defaults --user=mysql --datadir="$directory/$node/data" \
        --auth-root-authentication-method=normal >"$directory/$node/install" 2>&1 || exit 1
done

# start NODE ADDRESS: the second is where the cluster is found, empty for a new one.
start() {
    local port=$((first + $1)) group=$((first + 10 + $1))
    setpriv --reuid=mysql --regid=mysql --clear-groups mariadbd --no-defaults \
        --datadir="$directory/$1/data" --socket="$directory/$1/socket" --port="$port" \
        --bind-address=127.0.0.1 --max-connections=300 --binlog-format=ROW \
        --innodb-autoinc-lock-mode=2 --innodb-flush-log-at-trx-commit=0 \
        --wsrep-on=ON --wsrep-provider=/usr/lib/galera/libgalera_smm.so \
        --wsrep-cluster-name=qudo --wsrep-cluster-address="gcomm://$2" \
        --wsrep-node-name="node$1" --wsrep-node-address="127.0.0.1:$group" \
        --wsrep-sst-method=rsync --wsrep-sst-receive-address="127.0.0.1:$((first + 20 + $1))" \
        --wsrep-provider-options="gmcast.listen_addr=tcp://127.0.0.1:$group;ist.recv_addr=127.0.0.1:$((first + 30 + $1))" \
        >"$directory/$1/log" 2>&1 </dev/null &
    pids+=($!)
}

in_step() {
    for _ in $(seq 90); do
        mariadb --no-defaults -uroot -S "$directory/$1/socket" -Ne \
            "SHOW STATUS LIKE 'wsrep_local_state_comment'" 2>/dev/null | grep -q Synced && return
        sleep 1
    done
    echo "node $1 is not in step:" >&2
    tail -n 20 "$directory/$1/log" >&2
    exit 1
}

start 1 ''
in_step 1
for host in 127.0.0.1 localhost; do
    mariadb --no-defaults -uroot -S "$directory/1/socket" -e \
        "CREATE USER 'qudo'@'$host' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO 'qudo'@'$host'" || exit 1
done
mariadb --no-defaults -uroot -S "$directory/1/socket" -e 'CREATE DATABASE qudo' || exit 1
for node in 2 3; do
    start "$node" "127.0.0.1:$((first + 11))"
    in_step "$node"
done
echo ready
cat >/dev/null
