/* supervisor/identity.c -- DB_PATH/store and DB_PATH/epoch. See identity.h.
 * Promises: a file is either the old or the new one after a power cut: written beside, flushed, renamed, and the
 *           directory flushed.
 * Fails:    KV_INVALID and one sentence that begins with DB_PATH; nothing is repaired by guessing.
 * Tests:    unit/supervisor/test_identity.c. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "identity.h"
#include "kv/log.h"

#define TEXT_BYTES_MAX 256u

struct identity identity_new(unsigned shard_count)
{
    struct identity identity = {.shard_count = shard_count};
    uint8_t random[KV_STORE_ID_BYTES / 2];
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random)) /* never short below 256 bytes */
        kv_fatal("the kernel gives no random bytes: %m");
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(identity.id + 2 * i, 3, "%02x", random[i]);
    return identity;
}

static void identity_print(const struct identity *identity, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "format %u\nshards %u\nid %s\n", IDENTITY_FORMAT, identity->shard_count, identity->id);
}

enum kv_err identity_parse(const char *text, struct identity *out, struct why *why)
{
    unsigned format = 0;
    struct identity identity = {0};
    if (sscanf(text, "format %9u\n", &format) == 1 && format != IDENTITY_FORMAT)
        return why_not(why, "DB_PATH: the store has format %u, this version reads format %u", format, IDENTITY_FORMAT);
    char again[TEXT_BYTES_MAX] = "";
    if (sscanf(text, "format %9u\nshards %9u\nid %32[0-9a-f]\n", &format, &identity.shard_count, identity.id) == 3)
        identity_print(&identity, again, sizeof(again));
    if (strlen(identity.id) != KV_STORE_ID_BYTES || strcmp(text, again) != 0 || identity.shard_count < 1 ||
        identity.shard_count > KV_SHARDS_MAX)
        return why_not(why, "DB_PATH: the file store is damaged");
    *out = identity;
    return KV_OK;
}

/* A whole small file as a string. KV_NOT_FOUND, or KV_INVALID with a sentence. */
static enum kv_err read_text(int dir_fd, const char *name, char out[TEXT_BYTES_MAX], struct why *why)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return KV_NOT_FOUND;
    if (fd < 0)
        return why_not(why, "DB_PATH: the file %s cannot be opened: %s", name, strerror(errno));
    char text[TEXT_BYTES_MAX] = "";
    ssize_t bytes = read(fd, text, sizeof(text) - 1);
    int saved = errno;
    close(fd);
    if (bytes < 0)
        return why_not(why, "DB_PATH: the file %s cannot be read: %s", name, strerror(saved));
    if (strlen(text) != (size_t)bytes)
        return why_not(why, "DB_PATH: the file %s is damaged", name);
    memcpy(out, text, sizeof(text));
    return KV_OK;
}

static bool write_and_flush(int fd, const char *text)
{
    size_t bytes = strlen(text);
    return write(fd, text, bytes) == (ssize_t)bytes && fsync(fd) == 0;
}

static enum kv_err write_text(int dir_fd, const char *name, const char *text, struct why *why)
{
    char beside[32];
    snprintf(beside, sizeof(beside), "%s.tmp", name);
    int fd = openat(dir_fd, beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool done = fd >= 0 && write_and_flush(fd, text);           /* 1. the bytes are on disk under another name */
    done = done && renameat(dir_fd, beside, dir_fd, name) == 0; /* 2. one name, old or new */
    done = done && fsync(dir_fd) == 0;                          /* 3. the name is on disk */
    int saved = errno;
    if (fd >= 0)
        close(fd);
    if (done)
        return KV_OK;
    unlinkat(dir_fd, beside, 0);
    enum kv_err err = why_not(why, "DB_PATH: the file %s cannot be written: %s", name, strerror(saved));
    errno = saved;
    return err;
}

/* For a disk that has no block left for a file beside: a few bytes lie in one sector, which is old or new. */
static bool overwrite_text(int dir_fd, const char *name, const char *text)
{
    int fd = openat(dir_fd, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    bool done = fd >= 0 && write_and_flush(fd, text);
    if (fd >= 0)
        close(fd);
    return done;
}

enum kv_err identity_read(int dir_fd, struct identity *out, struct why *why)
{
    char text[TEXT_BYTES_MAX];
    enum kv_err err = read_text(dir_fd, "store", text, why);
    return err != KV_OK ? err : identity_parse(text, out, why);
}

enum kv_err identity_write(int dir_fd, const struct identity *identity, struct why *why)
{
    char text[TEXT_BYTES_MAX];
    identity_print(identity, text, sizeof(text));
    return write_text(dir_fd, "store", text, why);
}

enum kv_err epoch_read(int dir_fd, uint64_t *out, struct why *why)
{
    char text[TEXT_BYTES_MAX], again[TEXT_BYTES_MAX];
    uint64_t epoch = 0;
    enum kv_err err = read_text(dir_fd, "epoch", text, why);
    if (err == KV_NOT_FOUND)
        return why_not(why, "DB_PATH: the file epoch is missing");
    if (err != KV_OK)
        return err;
    bool cut = strchr(text, '\n') == NULL; /* overwritten by a longer one, whose last byte was not on the disk yet */
    int fields = sscanf(text, "%9" SCNu64, &epoch);
    snprintf(again, sizeof(again), "%" PRIu64 "%s", epoch, cut ? "" : "\n");
    if (fields != 1 || strcmp(text, again) != 0 || epoch > KV_EPOCH_MAX)
        return why_not(why, "DB_PATH: the file epoch is damaged");
    *out = epoch;
    return KV_OK;
}

enum kv_err epoch_write(int dir_fd, uint64_t epoch, struct why *why)
{
    char text[TEXT_BYTES_MAX];
    if (epoch > KV_EPOCH_MAX)
        return why_not(why, "DB_PATH: the router was started %u times, the most that a store allows", KV_EPOCH_MAX);
    snprintf(text, sizeof(text), "%" PRIu64 "\n", epoch);
    enum kv_err err = write_text(dir_fd, "epoch", text, why);
    if (err != KV_OK && (errno == ENOSPC || errno == EDQUOT) && overwrite_text(dir_fd, "epoch", text))
        return KV_OK;
    return err;
}
