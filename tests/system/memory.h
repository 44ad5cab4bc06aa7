/* tests/system/memory.h -- how much memory the processes of a store have in use, from /proc. */
#ifndef KV_SYSTEM_MEMORY_H
#define KV_SYSTEM_MEMORY_H

#include "harness.h"

struct memory {
    uint64_t peak; /* VmHWM: everything that was ever resident at once, mapped files too */
    uint64_t anon; /* RssAnon now */
    uint64_t file; /* RssFile and RssShmem now */
    uint64_t own;  /* all but the page cache now: RssAnon and RssShmem */
};

struct memory memory_of(pid_t pid);
/* The router's, and the largest of the shards'. */
struct memory memory_of_router(const struct server *server);
struct memory memory_of_shards(const struct server *server);

/* Whether the processes carry a sanitizer, whose shadow and quarantine make every figure meaningless. */
bool memory_is_sanitized(pid_t pid);

#endif
