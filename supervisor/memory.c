/* supervisor/memory.c -- see memory.h. */
#include "memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kv/log.h"

#define MIB (1024.0 * 1024.0)
#define APPLY_BYTES 160000000u /* of a shard that applies a generation, beside the generation itself */
#define PROCESSES_BYTES 100000000u
#define PATH_BYTES 4096u

uint64_t memory_needed_bytes(const struct kv_settings *settings, uint64_t shard_count)
{
    uint64_t per_shard = settings->overlay_bytes + APPLY_BYTES + settings->router_threads * KV_ARENA_BYTES;
    return shard_count * per_shard + settings->cache_bytes + PROCESSES_BYTES;
}

/* UINT64_MAX: no such file, or "max". */
static uint64_t read_limit(const char *folder, const char *name)
{
    char path[PATH_BYTES + 64];
    uint64_t bytes = UINT64_MAX;
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return UINT64_MAX;
    if (fscanf(file, "%" SCNu64, &bytes) != 1)
        bytes = UINT64_MAX;
    fclose(file);
    return bytes;
}

/* The least from `group` up to the root of the mount. A container sees itself as that root, under cgroup 1 with a path that does
 * not exist in it. */
static uint64_t least_upwards(const char *root, const char *group, const char *name)
{
    char folder[PATH_BYTES];
    size_t root_length = strlen(root);
    uint64_t least = UINT64_MAX;
    if (snprintf(folder, sizeof(folder), "%s%s", root, group) >= (int)sizeof(folder))
        return UINT64_MAX;
    for (;;) {
        uint64_t bytes = read_limit(folder, name);
        least = bytes < least ? bytes : least;
        char *end = strrchr(folder, '/');
        if (end == NULL || (size_t)(end - folder) < root_length)
            return least;
        *end = '\0';
    }
}

/* A line of /proc/self/cgroup: "0::/path" is cgroup 2's, "N:memory:/path" cgroup 1's. */
static uint64_t limit_of_line(char *line, const char *mount)
{
    char root[PATH_BYTES];
    char *controller = strchr(line, ':');
    char *group = controller == NULL ? NULL : strchr(controller + 1, ':');
    if (group == NULL)
        return UINT64_MAX;
    *group++ = '\0';
    group[strcspn(group, "\n")] = '\0';
    if (strcmp(line, "0:") == 0)
        return least_upwards(mount, group, "memory.max");
    if (strcmp(controller, ":memory") != 0)
        return UINT64_MAX;
    snprintf(root, sizeof(root), "%s/memory", mount);
    return least_upwards(root, group, "memory.limit_in_bytes");
}

uint64_t memory_group_limit_bytes(const char *groups, const char *mount)
{
    char line[PATH_BYTES];
    uint64_t least = UINT64_MAX;
    FILE *file = fopen(groups, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        uint64_t bytes = limit_of_line(line, mount);
        least = bytes < least ? bytes : least;
    }
    if (file != NULL)
        fclose(file);
    return least;
}

static uint64_t machine_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    return pages < 1 || page_bytes < 1 ? UINT64_MAX : (uint64_t)pages * (uint64_t)page_bytes;
}

void memory_warn(const struct kv_settings *settings, uint64_t shard_count)
{
    uint64_t needed = memory_needed_bytes(settings, shard_count);
    uint64_t machine = machine_bytes();
    uint64_t group = memory_group_limit_bytes("/proc/self/cgroup", "/sys/fs/cgroup");
    uint64_t limit = group < machine ? group : machine;
    if (needed <= limit)
        return;
    kv_warn("under load %" PRIu64
            " shards with OVERLAY_BYTES, and CACHE_BYTES, may need %.0f MiB, but %s %.0f MiB: raise that "
            "(KV_MEMORY in docker/.env), or lower OVERLAY_BYTES or CACHE_BYTES, lest the kernel kills a shard",
            shard_count, (double)needed / MIB,
            group < machine ? "the memory limit of this service is" : "this machine has", (double)limit / MIB);
}
