/* shard/space.c -- see space.h. */
#include "space.h"

#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "serve.h"
#include "touch.h"

#define DISK_NEAR_BYTES (1u << 30) /* with less left, the disk is asked each time */

/* Two system calls about a mounted file system: no disk is waited for. */
static void read_disk(struct space *space)
{
    struct statvfs disk;
    struct stat file;
    char path[PATH_MAX];
    bool known = statvfs(space->path, &disk) == 0;
    snprintf(path, sizeof path, "%s/data.mdb", space->path);
    space->file_bytes = stat(path, &file) == 0 ? (uint64_t)file.st_blocks * 512 : 0;
    space->disk_bytes = known ? (uint64_t)disk.f_blocks * disk.f_frsize : 0;
    space->disk_free_bytes = known ? (uint64_t)disk.f_bavail * disk.f_frsize : 0;
}

/* What is left alone on the disk: room for the pages that deletes rewrite before they free others. */
static uint64_t disk_reserve(const struct space *space)
{
    uint64_t share = space->disk_bytes / 100 * (100 - SERVE_FULL_PERCENT);
    return share < SERVE_DISK_RESERVE_MAX ? share : SERVE_DISK_RESERVE_MAX;
}

/* Within the map, and in its file's free pages and what the disk has left. */
bool space_has_room(const struct space *space, uint64_t bytes)
{
    uint64_t used = space->usage.used_bytes, limit = space->usage.map_bytes / 100 * SERVE_FULL_PERCENT;
    uint64_t more = space->waiting_bytes + space->queued_bytes + space->staged_bytes + 2 * bytes;
    uint64_t disk = space->disk_free_bytes + (space->file_bytes > used ? space->file_bytes - used : 0);
    return used + more <= limit && (space->disk_bytes == 0 || more + space->redo_bytes + disk_reserve(space) <= disk);
}

bool space_has_room_now(struct space *space, uint64_t bytes)
{
    if (space->disk_free_bytes < DISK_NEAR_BYTES)
        read_disk(space);
    return space_has_room(space, bytes);
}

/* What rows in memory may come to take in LMDB: twice their bytes (pages are half full at worst after splits) and a copy of every
 * page they touch, at most one per row and never more than there are. */
void space_read_waiting(struct space *space, const struct core *core)
{
    uint64_t rows, bytes;
    core_waiting(core, &rows, &bytes);
    uint64_t touched = rows * LMDB_PAGE_BYTES;
    if (touched > space->usage.used_bytes)
        touched = space->usage.used_bytes;
    space->waiting_bytes = 2 * bytes + touched;
    space->redo_bytes = bytes;
}

enum kv_err space_read(struct space *space, struct store *store, uint64_t now_ms)
{
    enum kv_err err = store_usage(store, &space->usage);
    if (err != KV_OK)
        return err;
    space->usage_ms = now_ms;
    space->staged_bytes = 0;
    read_disk(space);
    return KV_OK;
}
