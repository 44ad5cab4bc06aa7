# tests/bench/report.awk -- the table: per scenario and system the median of the rounds, and ratios to the first system's rivals.
# GNU awk, for asort.

function rounded(number) {
    return number == "" ? "" : sprintf("%.2f", number)
}

function median(list,    copy, count) {
    count = asort(list, copy)
    return count == 0 ? "" : (copy[int((count + 1) / 2)] + copy[int(count / 2) + 1]) / 2
}

function values(field, key,    found, i) {
    delete found
    for (i = 1; i <= runs[key]; i++)
        if ((key, i, field) in value)
            found[i] = value[key, i, field] + 0
    return median(found)
}

{
    delete pair
    for (i = 1; i <= NF; i++) {
        at = index($i, "=")
        pair[substr($i, 1, at - 1)] = substr($i, at + 1)
    }
    key = pair["scenario"] SUBSEP pair["system"]
    if (!(key in runs)) {
        order[++keys] = key
        if (!(pair["scenario"] in seen))
            scenarios[++scenario_count] = pair["scenario"]
        seen[pair["scenario"]] = 1
    }
    run = ++runs[key]
    for (name in pair)
        value[key, run, name] = pair[name]
    if (pair["requests"] > 0 && "server_cpu_us" in pair)
        value[key, run, "cpu_per_request"] = pair["server_cpu_us"] / pair["requests"]
    if (pair["requests"] > 0 && "client_cpu_us" in pair)
        value[key, run, "client_cpu_per_request"] = pair["client_cpu_us"] / pair["requests"]
}

END {
    row = "%-20s %-24s %11s %11s %9s %10s %10s %11s %11s\n"
    printf row, "scenario", "system", "requests/s", "ops/s", "MiB/s", "p50 us", "p99 us", "cpu us/req", "load us/req"
    for (s = 1; s <= scenario_count; s++)
        for (k = 1; k <= keys; k++) {
            split(order[k], part, SUBSEP)
            if (part[1] != scenarios[s])
                continue
            printf row, part[1], part[2], values("per_s", order[k]), values("ops_per_s", order[k]),
                values("mib_per_s", order[k]), values("p50_us", order[k]), values("p99_us", order[k]),
                rounded(values("cpu_per_request", order[k])), rounded(values("client_cpu_per_request", order[k]))
            for (field in wanted)
                if ((order[k], 1, field) in value)
                    printf "    %s %s\n", field, values(field, order[k])
        }
    print ""
    ratio("get", "ours", "bare", "per_s", 0.60, 1)
    ratio("get", "ours", "bare", "cpu_per_request", 0, -1)
    ratio("get", "ours", "bare-with-our-headers", "per_s", 0, 1)
    ratio("get", "bare-of-150-MiB", "bare", "per_s", 0, 1)
    ratio("get", "ours", "nginx", "per_s", 0, 1)
    ratio("put", "ours", "redis-P32-c8", "per_s", 0.70, 1)
    ratio("put", "ours", "redis-P1-c256", "per_s", 1.00, 1)
    ratio("put", "ours", "raw-journal-64", "ops_per_s", 0, 1)
    ratio("mix-80-20", "ours", "bare", "per_s", 0.45, 1)
    ratio("mix-80-20", "ours", "bare", "cpu_per_request", 0, -1)
    ratio("unloaded-get", "ours", "bare", "p50_us", 2.00, -1)
    unloaded_put()
    least("batch-100-json", "ops_per_s", 200000)
    least("batch-100-msgpack", "ops_per_s", 200000)
    ratio("get-64k", "ours", "bare", "mib_per_s", 0, 1)
    ratio("get-64k", "ours-uncached", "bare", "mib_per_s", 0, 1)
    ratio("get-4m", "ours", "bare", "mib_per_s", 0.50, 1)
    ratio("get-4m", "ours-uncached", "bare", "mib_per_s", 0.50, 1)
    ratio("get-4m", "ours-uncached", "nginx", "mib_per_s", 0, 1)
    ratio("put-4m", "ours", "sha256", "mib_per_s", 0.70, 1)
    ratio("put-4m", "ours", "bare", "mib_per_s", 0, 1)
    ratio("put-4m", "ours", "disk-4m-flushed", "mib_per_s", 0, 1)
    of_fewest_keys("get-100-bytes-uncached", 0.67)
    of_fewest_keys("overwrite-100-bytes", 0.67)
    of_disk("overwrite-100-bytes")
}

BEGIN {
    split("journal_mib ready_ms anon_empty_kib anon_loaded_kib anon_rest_kib rss_peak_kib disk_bytes_per_byte", list, " ")
    for (i in list)
        wanted[list[i]] = 1
}

function verdict(what, number, target, direction) {
    if (target == 0)
        printf "ratio %-60s %7.2f\n", what, number
    else
        printf "ratio %-60s %7.2f  target %s %.2f  %s\n", what, number, (direction > 0 ? "at least" : "at most"), target,
            ((number - target) * direction >= 0 ? "met" : "MISSED")
}

function ratio(scenario, ours, rival, field, target, direction,    a, b) {
    a = values(field, scenario SUBSEP ours)
    b = values(field, scenario SUBSEP rival)
    if (a != "" && b != "" && b > 0)
        verdict(scenario "." field " " ours " / " rival, a / b, target, direction)
}

function least(scenario, field, target,    a) {
    a = values(field, scenario SUBSEP "ours")
    if (a != "")
        verdict(scenario "." field " / " target, a / target, 1, 1)
}

# The rate among the most keys to that among the fewest; systems are in the order in which they were measured.
function of_fewest_keys(scenario, target,    k, part, fewest, most) {
    for (k = 1; k <= keys; k++) {
        split(order[k], part, SUBSEP)
        if (part[1] != scenario || part[2] !~ /-keys$/)
            continue
        most = part[2]
        if (fewest == "")
            fewest = most
    }
    if (most != fewest)
        ratio(scenario, most, fewest, "per_s", target, 1)
}

# What a scenario's requests made the disk write, to what it takes at most.
function of_disk(scenario,    k, part, kib, disk) {
    disk = values("mib_per_s", scenario SUBSEP "disk-4k-pages")
    for (k = 1; k <= keys && disk > 0; k++) {
        split(order[k], part, SUBSEP)
        if (part[1] != scenario || part[2] !~ /-keys$/)
            continue
        kib = values("device_kib", order[k]) / values("requests", order[k])
        printf "      %-60s %7.2f KiB\n", scenario " " part[2] " written for a request", kib
        verdict(scenario " " part[2] " MiB/s written / disk-4k-pages", kib * values("per_s", order[k]) / 1024 / disk, 0, 1)
    }
}

function unloaded_put(    put, flushed, get) {
    put = values("p50_us", "unloaded-put" SUBSEP "ours")
    flushed = values("p50_us", "unloaded-put" SUBSEP "raw-journal-1")
    get = values("p50_us", "unloaded-get" SUBSEP "bare")
    if (put != "" && flushed + get > 0)
        verdict("unloaded-put.p50_us ours / (one flush + bare GET)", put / (flushed + get), 1.5, -1)
}
