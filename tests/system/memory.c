/* tests/system/memory.c -- see memory.h. */
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t field(const struct kv_buf *status, const char *name)
{
    const char *line = strstr((const char *)status->data, name);
    return line == NULL ? 0 : strtoull(line + strlen(name), NULL, 10) * 1024;
}

static struct kv_buf read_proc(pid_t pid, const char *file)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    struct kv_buf text = read_file(path);
    kv_buf_append(&text, kv_slice("", 1));
    return text;
}

struct memory memory_of(pid_t pid)
{
    struct kv_buf status = read_proc(pid, "status");
    struct memory memory = {.peak = field(&status, "VmHWM:"),
                            .anon = field(&status, "RssAnon:"),
                            .file = field(&status, "RssFile:") + field(&status, "RssShmem:"),
                            .own = field(&status, "RssAnon:") + field(&status, "RssShmem:")};
    kv_buf_free(&status);
    return memory;
}

struct memory memory_of_router(const struct server *server)
{
    return memory_of(server_child(server, "kv-router", -1));
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

struct memory memory_of_shards(const struct server *server)
{
    struct memory largest = {0};
    struct child children[CHILDREN_MAX];
    size_t count = server_children(server, children);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(children[i].name, "kv-shard") != 0)
            continue;
        struct memory memory = memory_of(children[i].pid);
        largest.peak = larger(largest.peak, memory.peak);
        largest.anon = larger(largest.anon, memory.anon);
        largest.file = larger(largest.file, memory.file);
    }
    return largest;
}

bool memory_is_sanitized(pid_t pid)
{
    struct kv_buf maps = read_proc(pid, "maps");
    bool found =
        strstr((const char *)maps.data, "libasan") != NULL || strstr((const char *)maps.data, "libtsan") != NULL;
    kv_buf_free(&maps);
    return found;
}
