# tests/bench/soak.awk -- the table of tests/bench/soak: peaks of each figure in the second and in the last third of the samples. Exit code
# 1 when one has grown. In a short run there is nothing to compare.
{
    last = $1 > last ? $1 : last
    at[NR] = $1; name[NR] = $2
    figure[NR, 1] = $3; figure[NR, 2] = $4; figure[NR, 3] = $5
}
function show(each, column, what, slack,    grown) {
    if (peak[each, 3, column] == "" || peak[each, 3, column] + peak[each, 2, column] == 0)
        return
    grown = !short && peak[each, 3, column] > peak[each, 2, column] * 1.1 + slack
    printf "%-20s %-12s %12d %12d %12d%s\n", each, what, peak[each, 1, column], peak[each, 2, column],
        peak[each, 3, column], grown ? "  GROWS" : ""
    failed = failed || grown
}
END {
    for (i = 1; i <= NR; i++) {
        third = last == 0 ? 3 : 1 + int(at[i] * 3 / (last + 1))
        if (short)
            third = 3
        seen[name[i]] = 1
        for (column = 1; column <= 3; column++)
            if (figure[i, column] > peak[name[i], third, column])
                peak[name[i], third, column] = figure[i, column]
    }
    printf "%-20s %-12s %12s %12s %12s\n", "process", "peak of", "first third", "second", "last"
    count = asorti(seen, names)
    for (i = 1; i <= count; i++) {
        show(names[i], 1, names[i] ~ /-[0-9]+$/ ? "KiB" : "KiB on disk", 4096)
        show(names[i], 2, "descriptors", 4)
        show(names[i], 3, "threads", 0)
    }
    exit failed
}
