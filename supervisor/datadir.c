/* supervisor/datadir.c -- the store's directory. See datadir.h.
 * Promises: a refused start leaves DB_PATH as it was. The file `store` is written last, so a directory has either a
 *           complete store or none; what a power cut leaves of the first start (no `store`, only our own empty things)
 *           is taken over, anything else is foreign and refused.
 * Fails:    KV_INVALID and one sentence that begins with DB_PATH (or SHARDS).
 * Tests:    unit/supervisor/test_datadir.c. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "datadir.h"
#include "kv/limits.h"
#include "kv/log.h"
#include "privilege.h"

#define BACKLOG 128 /* router threads, each with one connection */
#define DIRECTORY_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#define SERVED "served" /* an empty file: all shards have files of their own */

static void shard_name(unsigned shard_index, char out[16])
{
    kv_assert(shard_index < KV_SHARDS_MAX);
    snprintf(out, 16, "shard-%u", shard_index);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- looking -------------------------------------------------------------------------------------------------- */

static bool is_empty_directory(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, DIRECTORY_FLAGS | O_NOFOLLOW);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL) {
        close_fd(&fd);
        return false;
    }
    bool empty = true;
    for (struct dirent *entry; empty && (entry = readdir(dir)) != NULL;)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    closedir(dir);
    return empty;
}

/* What may lie in a directory that gets a new store: a file system's own, and leftovers of a first start cut short. */
static bool is_harmless(int dir_fd, const char *name)
{
    static const char *const known[] = {".", "..", "lost+found", "lock", "epoch", "epoch.tmp", "store.tmp", "sockets"};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(name, known[i]) == 0)
            return true;
    return strncmp(name, "shard-", 6) == 0 && is_empty_directory(dir_fd, name);
}

static enum kv_err check_nothing_foreign(const struct datadir *datadir, struct why *why)
{
    int fd = openat(datadir->fd, ".", DIRECTORY_FLAGS);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL) {
        close_fd(&fd);
        return why_not(why, "DB_PATH: %s cannot be read: %s", datadir->path, strerror(errno));
    }
    enum kv_err err = KV_OK;
    for (struct dirent *entry; err == KV_OK && (entry = readdir(dir)) != NULL;)
        if (!is_harmless(datadir->fd, entry->d_name))
            err = why_not(why, "DB_PATH: %s holds \"%.64s\" and no store: name an empty or a new directory",
                          datadir->path, entry->d_name);
    closedir(dir);
    return err;
}

static bool has_served(const struct datadir *datadir)
{
    return faccessat(datadir->fd, SERVED, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* An empty folder is what a shard begins with, once. Later it is a disk that was not mounted, or half of a backup: begun anew, the
 * shard would have lost its keys and say nothing. */
static enum kv_err check_shard(const struct datadir *datadir, unsigned shard_index, struct why *why)
{
    char name[16], file[32];
    struct stat status;
    shard_name(shard_index, name);
    snprintf(file, sizeof(file), "%s/data.mdb", name);
    if (fstatat(datadir->fd, name, &status, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(status.st_mode))
        return why_not(why, "DB_PATH: %s/%s is missing", datadir->path, name);
    bool has_data = fstatat(datadir->fd, file, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_size > 0;
    if (!has_data && has_served(datadir))
        return why_not(why, "DB_PATH: %s/%s is missing or empty, though this store has served: restore a backup",
                       datadir->path, file);
    return KV_OK;
}

static enum kv_err check_store(struct datadir *datadir, unsigned shards, struct why *why)
{
    if (shards != 0 && shards != datadir->identity.shard_count)
        return why_not(why, "SHARDS: %s was made with %u shards and cannot be started with %u", datadir->path,
                       datadir->identity.shard_count, shards);
    enum kv_err err = KV_OK;
    for (unsigned i = 0; err == KV_OK && i < datadir->identity.shard_count; i++)
        err = check_shard(datadir, i, why);
    return err == KV_OK ? epoch_read(datadir->fd, &datadir->epoch, why) : err;
}

/* `flags` O_CREAT makes the file; without it a missing one is no error, and nothing is locked. */
static enum kv_err take_lock(struct datadir *datadir, int flags, struct why *why)
{
    int fd = openat(datadir->fd, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (fd < 0 && errno == ENOENT)
        return KV_OK;
    if (fd < 0)
        return why_not(why, "DB_PATH: %s/lock cannot be opened: %s", datadir->path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int saved = errno;
        close(fd);
        if (saved == EWOULDBLOCK)
            return why_not(why, "DB_PATH: %s is in use by another kv-storage", datadir->path);
        return why_not(why, "DB_PATH: %s cannot be locked: %s", datadir->path, strerror(saved));
    }
    datadir->lock_fd = fd;
    return KV_OK;
}

static enum kv_err look(struct datadir *datadir, unsigned shards, struct why *why)
{
    enum kv_err err = take_lock(datadir, 0, why);
    if (err != KV_OK)
        return err;
    err = identity_read(datadir->fd, &datadir->identity, why);
    datadir->fresh = err == KV_NOT_FOUND;
    if (datadir->fresh)
        return check_nothing_foreign(datadir, why);
    return err == KV_OK ? check_store(datadir, shards, why) : err;
}

/* A path that cannot be used should be refused before ports are opened and directories made. */
static enum kv_err check_writable(const struct datadir *datadir, struct why *why)
{
    if (faccessat(datadir->fd, ".", W_OK | X_OK, AT_EACCESS) != 0)
        return why_not(why, "DB_PATH: %s cannot be written: %s", datadir->path, strerror(errno));
    return KV_OK;
}

enum kv_err datadir_open(const char *path, unsigned shards, struct datadir *out, struct why *why)
{
    struct datadir datadir = {.path = path, .fd = -1, .lock_fd = -1, .sockets_fd = -1};
    datadir.fd = open(path, DIRECTORY_FLAGS);
    datadir.fresh = datadir.fd < 0 && errno == ENOENT;
    if (datadir.fd < 0 && !datadir.fresh)
        return why_not(why, "DB_PATH: %s cannot be opened: %s", path, strerror(errno));
    enum kv_err err = KV_OK;
    if (datadir.fd >= 0) {
        err = check_writable(&datadir, why);
        if (err == KV_OK)
            err = look(&datadir, shards, why);
    }
    if (err != KV_OK)
        datadir_close(&datadir);
    else
        *out = datadir;
    return err;
}

/* ---- making --------------------------------------------------------------------------------------------------- */

static enum kv_err flush_parent(const char *path, struct why *why)
{
    char parent[4200];
    snprintf(parent, sizeof(parent), "%s/..", path);
    privilege_raise(); /* it may be a folder that RUN_AS cannot read */
    int fd = open(parent, DIRECTORY_FLAGS);
    bool done = fd >= 0 && fsync(fd) == 0;
    close_fd(&fd);
    privilege_lower();
    return done ? KV_OK : why_not(why, "DB_PATH: the directory above %s cannot be flushed: %s", path, strerror(errno));
}

static enum kv_err make_directory(struct datadir *datadir, struct why *why)
{
    if (datadir->fd >= 0)
        return KV_OK;
    datadir->made = privilege_mkdir(datadir->path, 0700) == 0;
    if (!datadir->made && errno != EEXIST)
        return why_not(why, "DB_PATH: %s cannot be made: %s", datadir->path, strerror(errno));
    datadir->fd = open(datadir->path, DIRECTORY_FLAGS);
    if (datadir->fd < 0)
        return why_not(why, "DB_PATH: %s cannot be opened: %s", datadir->path, strerror(errno));
    return datadir->made ? flush_parent(datadir->path, why) : KV_OK;
}

/* Order: 1. the lock, 2. the shards' directories and the epoch, 3. the file `store`, which makes them one. */
static enum kv_err make_store(struct datadir *datadir, unsigned shards_new, struct why *why)
{
    enum kv_err err = make_directory(datadir, why);
    if (err == KV_OK && datadir->lock_fd < 0)
        err = take_lock(datadir, O_CREAT, why);
    if (err != KV_OK)
        return err;
    datadir->fresh = identity_read(datadir->fd, &datadir->identity, why) == KV_NOT_FOUND; /* now under the lock */
    if (!datadir->fresh)
        return why_not(why, "DB_PATH: another kv-storage has just made a store in %s", datadir->path);
    datadir->identity = identity_new(shards_new);
    for (unsigned i = 0; i < shards_new; i++) {
        char name[16];
        shard_name(i, name);
        if (mkdirat(datadir->fd, name, 0700) != 0 && errno != EEXIST)
            return why_not(why, "DB_PATH: %s/%s cannot be made: %s", datadir->path, name, strerror(errno));
    }
    datadir->epoch = 0;
    err = epoch_write(datadir->fd, datadir->epoch, why);
    return err == KV_OK ? identity_write(datadir->fd, &datadir->identity, why) : err;
}

#define TREE_DEPTH_MAX 3u /* shard-<i>/journal/segment */

static void remove_tree(int dir_fd, const char *name, unsigned depth);

/* Removes what is in a directory of ours. */
static void empty_tree(int dir_fd, const char *name, unsigned depth)
{
    int fd = openat(dir_fd, name, DIRECTORY_FLAGS | O_NOFOLLOW);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL) {
        close_fd(&fd);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        bool dots = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
        if (!dots && unlinkat(fd, entry->d_name, 0) != 0 && depth < TREE_DEPTH_MAX)
            remove_tree(fd, entry->d_name, depth + 1);
    }
    closedir(dir);
}

static void remove_tree(int dir_fd, const char *name, unsigned depth)
{
    empty_tree(dir_fd, name, depth);
    unlinkat(dir_fd, name, AT_REMOVEDIR);
}

static bool has_private_sockets(const struct datadir *datadir)
{
    struct stat found;
    return fstatat(datadir->fd, "sockets", &found, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(found.st_mode) &&
           found.st_uid == geteuid() && (found.st_mode & 07777) == 0700;
}

/* The directory stays from start to start: a full disk has no block for a new one, and shall be started on to delete. */
static enum kv_err make_sockets(struct datadir *datadir, struct why *why)
{
    empty_tree(datadir->fd, "sockets", 1);
    if (!has_private_sockets(datadir)) {
        unlinkat(datadir->fd, "sockets", AT_REMOVEDIR);
        if (mkdirat(datadir->fd, "sockets", 0700) != 0)
            return why_not(why, "DB_PATH: %s/sockets cannot be made: %s", datadir->path, strerror(errno));
    }
    datadir->sockets_fd = openat(datadir->fd, "sockets", DIRECTORY_FLAGS | O_NOFOLLOW);
    if (datadir->sockets_fd < 0)
        return why_not(why, "DB_PATH: %s/sockets cannot be opened: %s", datadir->path, strerror(errno));
    return KV_OK;
}

enum kv_err datadir_prepare(struct datadir *datadir, unsigned shards_new, struct why *why)
{
    enum kv_err err = datadir->fresh ? make_store(datadir, shards_new, why) : KV_OK;
    if (err == KV_OK)
        err = make_sockets(datadir, why);
    if (err != KV_OK)
        datadir_undo(datadir);
    return err;
}

enum kv_err datadir_listen(const struct datadir *datadir, unsigned shard_index, int *fd, struct why *why)
{
    char name[16];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    shard_name(shard_index, name);
    /* Through the descriptor: DB_PATH may be longer than the 108 bytes of sun_path. */
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", datadir->sockets_fd, name);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made < 0 || bind(made, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(made, BACKLOG) != 0) {
        enum kv_err err =
            why_not(why, "DB_PATH: the socket %s/sockets/%s cannot be made: %s", datadir->path, name, strerror(errno));
        close_fd(&made);
        return err;
    }
    *fd = made;
    return KV_OK;
}

enum kv_err datadir_open_shard(const struct datadir *datadir, unsigned shard_index, int *fd, struct why *why)
{
    char name[16];
    enum kv_err err = check_shard(datadir, shard_index, why); /* files may go while the store runs */
    if (err != KV_OK)
        return err;
    shard_name(shard_index, name);
    int opened = openat(datadir->fd, name, DIRECTORY_FLAGS | O_NOFOLLOW);
    if (opened < 0)
        return why_not(why, "DB_PATH: %s/%s cannot be opened: %s", datadir->path, name, strerror(errno));
    if (flock(opened, LOCK_EX | LOCK_NB) != 0) {
        why_not(why, "DB_PATH: %s/%s is still in use: %s", datadir->path, name, strerror(errno));
        close(opened);
        return KV_UNAVAILABLE;
    }
    *fd = opened;
    return KV_OK;
}

enum kv_err datadir_raise_epoch(struct datadir *datadir, struct why *why)
{
    enum kv_err err = epoch_write(datadir->fd, datadir->epoch + 1, why);
    if (err == KV_OK)
        datadir->epoch++;
    return err;
}

enum kv_err datadir_note_served(const struct datadir *datadir, struct why *why)
{
    if (has_served(datadir))
        return KV_OK;
    int fd = openat(datadir->fd, SERVED, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool done = fd >= 0 && fsync(datadir->fd) == 0; /* there are no bytes, only the name */
    close_fd(&fd);
    return done ? KV_OK : why_not(why, "DB_PATH: %s/" SERVED " cannot be made: %s", datadir->path, strerror(errno));
}

/* ---- unwinding ------------------------------------------------------------------------------------------------ */

void datadir_undo(struct datadir *datadir)
{
    if (!datadir->fresh || datadir->lock_fd < 0) { /* an older store, or another start holds the lock */
        if (datadir->made)
            privilege_rmdir(datadir->path); /* only succeeds when it is empty */
        return;
    }
    unlinkat(datadir->fd, "store", 0); /* first: from here on it is no store */
    for (unsigned i = 0; i < datadir->identity.shard_count; i++) {
        char name[16];
        shard_name(i, name);
        remove_tree(datadir->fd, name, 1);
    }
    remove_tree(datadir->fd, "sockets", 1);
    unlinkat(datadir->fd, "epoch", 0);
    unlinkat(datadir->fd, "lock", 0);
    if (datadir->made)
        privilege_rmdir(datadir->path);
    datadir->fresh = false;
}

void datadir_close(struct datadir *datadir)
{
    if (datadir->sockets_fd >= 0)
        empty_tree(datadir->fd, "sockets", 1);
    close_fd(&datadir->sockets_fd);
    close_fd(&datadir->lock_fd);
    close_fd(&datadir->fd);
}
