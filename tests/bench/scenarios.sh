# tests/bench/scenarios.sh -- sourced by run: what is measured, one function per row of the table. Each prints lines of
# name=value pairs into $results: `scenario` and `system` first, then what the tool said, then the server's CPU per request.

note() { echo "round=$round $*" >>"$results"; }

# load scenario system server kv-load-options...: one measurement
load() {
    local scenario=$1 system=$2 server=$3 before after line
    shift 3
    before=$(cpu_us "${pid[$server]}")
    if ! line=$("$bin/kv-load" --port "${port[$server]}" --token "$token" --seconds "$seconds" "$@"); then
        failed=1
        line=${line:-kind=none requests=0 errors=1}
    fi
    after=$(cpu_us "${pid[$server]}")
    note "scenario=$scenario system=$system $line server_cpu_us=$((after - before))"
}

fill() { # fill server prefix keys value-bytes: before anything is measured
    "$bin/kv-load" --port "${port[$1]}" --token "$token" --kind fill --prefix "$2" --keys "$3" --value-bytes "$4" \
        >/dev/null || failed=1
}

is_applied() { # is_applied server: no row waits in memory any more
    curl -sf -H "Authorization: Bearer $token" "http://127.0.0.1:${port[$1]}/metrics" |
        awk '/^kv_storage_shard_overlay_rows/ { sum += $2 } END { exit sum > 0 }'
}

# A store that has been up for a while has its cache filled, or the pages of its files in memory, and what the scenario before wrote is
# where it belongs: neither is part of what is measured.
warm() { # warm server [kv-load-options...]
    local server=$1
    shift
    wait_until "the applier" is_applied "$server"
    "$bin/kv-load" --port "${port[$server]}" --token "$token" --kind get --keys "$keys" --seconds "$warm_seconds" "$@" >/dev/null || failed=1
}

redis() { # redis system options...: Redis's own benchmark, as the issue names it
    local system=$1 line before after
    shift
    before=$(cpu_us "${pid[redis]}")
    line=$(redis-benchmark -h 127.0.0.1 -p "${port[redis]}" -d 1024 -r 100000 -n "$redis_requests" -t set --csv "$@" |
        awk -F '[",]+' '$2 == "SET" { printf "per_s=%d ops_per_s=%d p50_us=%.1f p99_us=%.1f", $3, $3, $6 * 1000, $8 * 1000 }')
    after=$(cpu_us "${pid[redis]}")
    [ -n "$line" ] || failed=1
    note "scenario=put system=$system requests=$redis_requests errors=0 $line server_cpu_us=$((after - before))"
}

flush() { # flush scenario system record-bytes records
    note "scenario=$1 system=$2 $("$bin/kv-flush" "$work" "$3" "$4" "$seconds")"
}

# disk scenario system fio-options...: what two writers get that do nothing else, through the page cache, as LMDB writes
disk() {
    local scenario=$1 system=$2
    shift 2
    note "scenario=$scenario system=$system errors=0 mib_per_s=$(fio --name=disk --ioengine=psync --numjobs=2 \
        --group_reporting --runtime="$steady_seconds" --output-format=terse --terse-version=3 "$@" 2>/dev/null |
        awk -F ';' '{ printf "%.1f", $48 / 1024 }')"
    rm -f "$work"/disk.*
}

sha256() { # one core's SHA-256 in the unit of the table
    openssl speed -seconds 1 -bytes 4194304 -evp sha256 2>/dev/null |
        awk '/^sha256/ { sub(/k$/, "", $NF); printf "%.1f\n", $NF * 1000 / 1048576 }'
}

# ---- the rows -----------------------------------------------------------------------------------------------------------

scenario_get() {
    warm ours
    load get ours ours --kind get --keys "$keys"
    load get bare bare --kind fixed --path /size/1024
    load get bare-with-our-headers bare --kind fixed --path /like-ours/1024
    load get bare-of-150-MiB bare --kind fixed --path /spread/1024
    load get nginx nginx --kind fixed --path /1024
}

scenario_put() {
    load put ours ours --kind put
    redis redis-P32-c8 -P 32 -c 8
    redis redis-P1-c256 -P 1 -c 256
    load put bare bare --kind put
    flush put raw-journal-64 1100 64
}

scenario_overwrite() { load overwrite ours ours --kind overwrite --keys "$keys"; }
scenario_duplicate() { load duplicate ours ours --kind duplicate; }
scenario_mix() {
    warm ours
    load mix-80-20 ours ours --kind mix --keys "$keys"
    load mix-80-20 bare bare --kind fixed --path /size/1024
}
scenario_list() { load list-100 ours ours --kind list --keys "$keys"; }

scenario_latency() {
    load unloaded-get ours ours --kind get --keys "$keys" --connections 1 --streams 1
    load unloaded-get bare bare --kind fixed --path /size/1024 --connections 1 --streams 1
    load unloaded-put ours ours --kind put --connections 1 --streams 1
    flush unloaded-put raw-journal-1 1100 1
}

# Each kind begins with the same store: the more keys there are, the more pages each put changes. "grown" is the store that all other
# scenarios fill as well.
scenario_batch() {
    batches batch-100-json batch
    batches batch-100-msgpack msgpack
}

batches() { # batches scenario kind
    local options="--kind $2 --value-bytes 100 --connections 4 --streams 4"
    start_ours fresh 2
    fill fresh k "$keys" 100
    load "$1" ours fresh $options
    stop fresh
    rm -rf "$work/fresh"
    load "$1" ours-grown ours $options
}

# GETs of 500 values of 64 KiB and of 20 of 4 MiB, at random: 31 and 80 MiB, which the router's cache holds; without a cache each byte
# comes from a shard. The rivals send one and the same value.
scenario_large() {
    local large="--prefix large --keys 500 --value-bytes 65536 --streams 4" four="--connections 2 --streams 2"
    local huge="--prefix huge --keys 20 --value-bytes 4194304 $four"
    warm ours $large
    load get-64k ours ours --kind get $large
    warm cacheless $large
    load get-64k ours-uncached cacheless --kind get $large
    load get-64k bare bare --kind fixed --path /size/65536 --streams 4
    load put-64k ours ours --kind put --value-bytes 65536 --streams 4
    warm ours $huge
    load get-4m ours ours --kind get $huge
    warm cacheless $huge
    load get-4m ours-uncached cacheless --kind get $huge
    load get-4m bare bare --kind fixed --path /size/4194304 $four
    load get-4m nginx nginx --kind fixed --path /4194304 $four
    load put-4m ours ours --kind put --value-bytes 4194304 --connections 2 --streams 2
    load put-4m bare bare --kind put --value-bytes 4194304 --connections 2 --streams 2
    note "scenario=put-4m system=sha256 errors=0 mib_per_s=$(sha256)"
    disk put-4m disk-4m-flushed --directory="$work" --rw=write --bs=4m --fdatasync=1 --size=512m
}

scenario_shards() {
    local each
    for each in $shard_counts; do
        [ -n "${pid[ours-$each]:-}" ] || { start_ours "ours-$each" "$each"; fill "ours-$each" k "$keys" 1024; }
        warm "ours-$each"
        load "get" "ours-$each-shards" "ours-$each" --kind get --keys "$keys"
        load "put" "ours-$each-shards" "ours-$each" --kind put
    done
}

# Values of 100 bytes, so that ten million keys fit: the same store grows from count to count. Each round asks for other keys. The files
# are read once before GETs are measured: many a host takes pages of files away that were not used for seconds, and then the
# first GETs measure its disk (10 million keys, all of it cold: a fifteenth). With and without the router's cache, which holds
# all of the smallest store and nearly nothing of the largest. Overwrites go on until the applier sets their pace, and stand beside
# what the disk takes of LMDB's pages, in those very files: one at each random place, and a flush for as many as a piece has rows.
scenario_keys() {
    local each name
    for each in $key_counts; do
        for name in grown uncached; do
            start_keys "$name"
            [ "$name" = uncached ] || fill grown k "$each" 100
            wait_until "the applier" is_applied "$name"
            cat "$work"/grown/shard-*/data.mdb >/dev/null
            load "get-100-bytes-$name" "ours-$each-keys" "$name" --kind get --keys "$each" --value-bytes 100 --seed "$round$each"
            [ "$name" = uncached ] || overwrite "$each"
            stop "$name"
        done
    done
    disk overwrite-100-bytes disk-4k-pages --rw=randwrite --bs=4k --fdatasync=8192 --time_based \
        --filename="$work/grown/shard-0/data.mdb:$work/grown/shard-1/data.mdb"
    rm -rf "$work/grown"
}

overwrite() { # overwrite keys
    local before
    before=$(device_kib)
    load overwrite-100-bytes "ours-$1-keys" grown --kind overwrite --keys "$1" --value-bytes 100 --seed "$round$1" \
        --seconds "$steady_seconds"
    note "scenario=overwrite-100-bytes system=ours-$1-keys errors=0 device_kib=$(($(device_kib) - before))"
}

start_keys() { # start_keys grown|uncached: the same files, with a cache and without
    port[$1]=$(free_port)
    if [ "$1" = grown ]; then start_ours_in grown grown 2; else start_ours_in uncached grown 2 CACHE_BYTES=0; fi
}

# Everything dies with the supervisor, in the midst of writes; rows in memory come back from the journal.
scenario_restart() {
    local begin_ms ready_ms
    start_ours crashed 2 OVERLAY_BYTES=1G
    "$bin/kv-load" --port "${port[crashed]}" --token "$token" --kind put --requests "$restart_requests" >/dev/null || failed=1
    kill -9 "${pid[crashed]}"
    wait "${pid[crashed]}" 2>/dev/null
    begin_ms=$(date +%s%3N)
    start_ours_again crashed 2 OVERLAY_BYTES=1G
    ready_ms=$(date +%s%3N)
    note "scenario=restart system=ours errors=0 journal_mib=$(du -sm "$work"/crashed/shard-*/journal | awk '{ sum += $1 } END { print sum }')" \
        "ready_ms=$((ready_ms - begin_ms))"
    stop crashed
    rm -rf "$work/crashed"
}

# What a store of $keys values of 1 KiB takes: memory without the page cache, when empty, at its peak under load, at rest after it.
scenario_space() {
    local empty loaded disk
    start_ours space 2
    empty=$(memory_kib "${pid[space]}" RssAnon)
    fill space k "$keys" 1024
    load space ours space --kind mix --keys "$keys"
    loaded=$(memory_kib "${pid[space]}" RssAnon)
    sleep "$rest_seconds" # twice SERVE_REST_MS and REST_MS
    disk=$(du -sk "$work"/space/shard-*/data.mdb | awk '{ sum += $1 } END { print sum }')
    note "scenario=space system=ours errors=0 anon_empty_kib=$empty anon_loaded_kib=$loaded" \
        "anon_rest_kib=$(memory_kib "${pid[space]}" RssAnon) rss_peak_kib=$(memory_kib "${pid[space]}" VmHWM)" \
        "disk_bytes_per_byte=$(awk -v disk="$disk" -v keys="$keys" 'BEGIN { printf "%.2f", disk / keys }')"
    stop space
    rm -rf "$work/space"
}
