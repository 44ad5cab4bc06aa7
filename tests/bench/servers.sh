# tests/bench/servers.sh -- sourced by run: starts what is measured, stops all of it at the end, reads CPU and memory of process
# trees. Everything listens on loopback, on ports that were free a moment ago, with its files below $work.

declare -A pid port
token=bench-$RANDOM$RANDOM$RANDOM

free_port() {
    # bash cannot bind: a number at random that refuses a connection
    local number
    while :; do
        number=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$number") 2>/dev/null || { echo "$number"; return; }
    done
}

wait_until() { # wait_until what command...
    local what=$1 i
    shift
    for ((i = 0; i < 600; i++)); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.05
    done
    echo "bench: $what did not come up" >&2
    exit 1
}

tree() { # the process and everything below it
    local each
    echo "$1"
    for each in $(pgrep -P "$1"); do tree "$each"; done
}

# CPU microseconds that the tree has used (100 ticks a second)
cpu_us() {
    local each
    for each in $(tree "$1"); do
        sed 's/.*) //' "/proc/$each/stat" 2>/dev/null
    done | awk '{ sum += $12 + $13 } END { printf "%d\n", sum * 10000 }'
}

# KiB that the device below $work has been given, by anybody (what a process counts itself, in /proc/PID/io, are whole large folios)
device_kib() {
    sync -f "$work"
    awk '{ print int($7 / 2) }' "/sys/dev/block/$(mountpoint -d "$(stat -c %m "$work")")/stat" 2>/dev/null || echo 0
}

memory_kib() { # memory_kib pid field: without the page cache; VmHWM with it
    local each
    for each in $(tree "$1"); do
        sed -n "s/^$2:[^0-9]*\([0-9]*\).*/\1/p" "/proc/$each/status" 2>/dev/null
    done | awk '{ sum += $1 } END { print sum + 0 }'
}

start_ours() { # start_ours name shards [NAME=value...]
    local name=$1 shards=$2
    shift 2
    port[$name]=$(free_port)
    start_ours_again "$name" "$shards" "$@"
}

start_ours_again() { start_ours_in "$1" "$@"; }

start_ours_in() { # start_ours_in name folder shards [NAME=value...]: on the files of this folder
    local name=$1 folder=$2 shards=$3
    shift 3
    env TOKEN="$token" DB_PATH="$work/$folder" BIND_ADDR="127.0.0.1:${port[$name]}" SHARDS="$shards" LOG_LEVEL=warn "$@" \
        "$bin/kv-storage" >>"$work/$name.log" 2>&1 &
    pid[$name]=$!
    wait_until "kv-storage ($name)" curl -sf "http://127.0.0.1:${port[$name]}/-/ready"
}

start_bare() {
    port[bare]=$(free_port)
    "$bin/kv-bare" "${port[bare]}" 4194304 &
    pid[bare]=$!
    wait_until kv-bare curl -sf -o /dev/null "http://127.0.0.1:${port[bare]}/size/1"
}

start_redis() {
    mkdir -p "$work/redis"
    port[redis]=$(free_port)
    redis-server --port "${port[redis]}" --bind 127.0.0.1 --dir "$work/redis" --appendonly yes --appendfsync always \
        --save '' --loglevel warning >"$work/redis.log" 2>&1 &
    pid[redis]=$!
    wait_until redis-server redis-cli -p "${port[redis]}" ping
}

# One worker, as everything here has one thread that faces the client.
start_nginx() {
    port[nginx]=$(free_port)
    mkdir -p "$work/nginx/files"
    head -c 1024 /dev/urandom >"$work/nginx/files/1024"
    head -c 4194304 /dev/urandom >"$work/nginx/files/4194304"
    cat >"$work/nginx/nginx.conf" <<END
daemon off; worker_processes 1; pid $work/nginx/pid; error_log $work/nginx/error.log;
events { worker_connections 1024; }
http {
    access_log off; open_file_cache max=100; sendfile on; keepalive_requests 1000000000; http2_max_concurrent_streams 256;
    client_body_temp_path $work/nginx/1; proxy_temp_path $work/nginx/2; fastcgi_temp_path $work/nginx/3;
    uwsgi_temp_path $work/nginx/4; scgi_temp_path $work/nginx/5;
    server { listen 127.0.0.1:${port[nginx]} http2; root $work/nginx/files; }
}
END
    chmod 755 "$work" "$work/nginx" "$work/nginx/files"
    nginx -c "$work/nginx/nginx.conf" >"$work/nginx.log" 2>&1 &
    pid[nginx]=$!
    wait_until nginx curl -sf --http2-prior-knowledge -o /dev/null "http://127.0.0.1:${port[nginx]}/1024"
}

stop() { # stop name
    [ -n "${pid[$1]:-}" ] || return 0
    kill "${pid[$1]}" 2>/dev/null
    wait "${pid[$1]}" 2>/dev/null
    unset "pid[$1]"
}

stop_all() {
    local name
    for name in "${!pid[@]}"; do stop "$name"; done
    rm -rf "$work"
}
