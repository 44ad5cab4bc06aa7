/* Goal: a service that may use too little memory for its settings finds that out at its start: every way a limit can be written is read.
 * Method: folders that look like those of the kernel, cgroup 2, cgroup 1 and a container's view of itself. */
#include "memory.h"
#include "temp.h"

#define GIB (1024u * 1024u * 1024u)

TestSuite(memory, .init = temp_setup, .fini = temp_teardown);

static void expect_limit(const char *groups, uint64_t bytes)
{
    uint64_t found = memory_group_limit_bytes(temp_file("groups", groups, 0600), temp);
    cr_expect_eq(found, bytes, "%s: %lu instead of %lu", groups, found, bytes);
}

Test(memory, version_2_the_least_on_the_way_up)
{
    temp_file("memory.max", "5000\n", 0600);
    mkdir(temp_path("system.slice"), 0700);
    mkdir(temp_path("system.slice/kv.service"), 0700);
    temp_file("system.slice/memory.max", "3000\n", 0600);
    temp_file("system.slice/kv.service/memory.max", "max\n", 0600);
    expect_limit("0::/system.slice/kv.service\n", 3000);
    expect_limit("0::/system.slice\n", 3000);
    expect_limit("0::/\n", 5000);
    expect_limit("0::/else\n", 5000);
}

Test(memory, version_1_and_a_container_in_it)
{
    mkdir(temp_path("memory"), 0700);
    temp_file("memory/memory.limit_in_bytes", "1073741824\n", 0600);
    mkdir(temp_path("memory/a"), 0700);
    temp_file("memory/a/memory.limit_in_bytes", "9223372036854771712\n", 0600);
    expect_limit("5:cpu:/a\n4:memory:/a\n0::/\n", GIB);
    expect_limit("4:memory:/docker/0123456789\n", GIB);
}

Test(memory, no_limit)
{
    expect_limit("", UINT64_MAX);
    expect_limit("0::/\n", UINT64_MAX);
    expect_limit("4:memory:/a\n5:cpu:/\nnonsense\n", UINT64_MAX);
    temp_file("memory.max", "max\n", 0600);
    expect_limit("0::/\n", UINT64_MAX);
    cr_expect_eq(memory_group_limit_bytes("/no/such/file", temp), UINT64_MAX);
}

/* Two shards fit into 1 GiB with the defaults, four into 1500 MiB (docker/.env.example). */
Test(memory, what_is_needed)
{
    struct kv_settings settings;
    kv_settings_init(&settings);
    settings.router_threads = 1;
    cr_expect_leq(memory_needed_bytes(&settings, 2), GIB);
    cr_expect_gt(memory_needed_bytes(&settings, 4), GIB);
    cr_expect_leq(memory_needed_bytes(&settings, 4), 1500u * 1024u * 1024u);
    settings.cache_bytes = 0;
    settings.overlay_bytes = 1000;
    cr_expect_eq(memory_needed_bytes(&settings, 1), 1000 + 160000000u + 4194304u + 100000000u);
    kv_settings_free(&settings);
}
