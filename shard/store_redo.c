/* shard/store_redo.c -- see store_redo.h. */
#include "store_redo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "bytes.h"
#include "kv/log.h"

#define REDO_MAGIC 0x31304f444552564bu /* "KVREDO01" */
#define REDO_NAME "redo"
#define REDO_MODE 0600
#define NUMBER_BYTES 8u
#define HEAD_NUMBERS 8u /* behind magic and store id */
#define HEAD_BYTES (NUMBER_BYTES + KV_STORE_ID_BYTES + HEAD_NUMBERS * NUMBER_BYTES)
#define ROW_HEAD_BYTES 8u
#define WRITE_BYTES (256u * 1024)

static void put_u64(struct kv_buf *out, uint64_t number)
{
    bytes_put_u64(kv_buf_reserve(out, sizeof number), number);
    out->bytes += sizeof number;
}

static int open_folder(const char *path)
{
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static enum kv_err err_of(int number)
{
    return number == ENOSPC || number == EDQUOT ? KV_NO_SPACE : KV_IO;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

struct writer {
    int fd;
    struct kv_buf waiting; /* to be written */
    XXH3_state_t *sum;
    enum kv_err err; /* the first; nothing is written behind it */
};

static void flush_waiting(struct writer *writer)
{
    const uint8_t *at = writer->waiting.data;
    size_t left = writer->waiting.bytes;
    XXH3_64bits_update(writer->sum, at, left);
    while (left > 0 && writer->err == KV_OK) {
        ssize_t written = write(writer->fd, at, left);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            writer->err = err_of(errno);
            break;
        }
        at += written;
        left -= (size_t)written;
    }
    writer->waiting.bytes = 0;
}

static void put_head(struct kv_buf *out, const struct store_identity *identity, const struct overlay *generation,
                     const struct store_meta *meta)
{
    kv_assert(strlen(identity->store_id) == KV_STORE_ID_BYTES);
    put_u64(out, REDO_MAGIC);
    kv_buf_append(out, kv_slice(identity->store_id, KV_STORE_ID_BYTES));
    const uint64_t numbers[HEAD_NUMBERS] = {
        identity->shard_index, meta->position,     meta->object_id_next, meta->keys,
        meta->objects,         meta->stored_bytes, meta->intents.bytes,  overlay_rows(generation)};
    for (size_t i = 0; i < HEAD_NUMBERS; i++)
        put_u64(out, numbers[i]);
    kv_buf_append(out, meta->intents);
}

static void put_row(struct kv_buf *out, enum overlay_table table, const struct overlay_row *row)
{
    struct kv_slice key = overlay_key(row), value = overlay_value(row);
    uint16_t key_bytes = htole16((uint16_t)key.bytes);
    uint8_t head[ROW_HEAD_BYTES];
    kv_assert(value.bytes <= UINT32_MAX && key.bytes <= UINT16_MAX);
    bytes_put_u32(head, (uint32_t)value.bytes);
    memcpy(head + 4, &key_bytes, sizeof key_bytes);
    head[6] = (uint8_t)table;
    head[7] = row->tombstone;
    kv_buf_append(out, kv_slice(head, sizeof head));
    kv_buf_append(out, key);
    kv_buf_append(out, value);
}

static void write_rows(struct writer *writer, const struct overlay *generation)
{
    for (enum overlay_table table = OVERLAY_KEYS; table < OVERLAY_TABLES && writer->err == KV_OK; table++) {
        size_t count;
        const struct overlay_row **rows = overlay_unsorted(generation, table, &count);
        for (size_t i = 0; i < count && writer->err == KV_OK; i++) {
            put_row(&writer->waiting, table, rows[i]);
            if (writer->waiting.bytes >= WRITE_BYTES)
                flush_waiting(writer);
        }
        free((void *)rows);
    }
}

static enum kv_err write_file(int fd, const struct store_identity *identity, const struct overlay *generation,
                              const struct store_meta *meta)
{
    struct writer writer = {.fd = fd, .sum = XXH3_createState()};
    XXH3_64bits_reset(writer.sum);
    put_head(&writer.waiting, identity, generation, meta);
    write_rows(&writer, generation);
    flush_waiting(&writer);
    put_u64(&writer.waiting, XXH3_64bits_digest(writer.sum));
    flush_waiting(&writer);
    if (writer.err == KV_OK && fdatasync(fd) != 0)
        writer.err = err_of(errno);
    XXH3_freeState(writer.sum);
    kv_buf_free(&writer.waiting);
    return writer.err;
}

enum kv_err redo_write(const char *path, const struct store_identity *identity, const struct overlay *generation,
                       const struct store_meta *meta)
{
    int folder = open_folder(path);
    int fd = folder < 0 ? -1 : openat(folder, REDO_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, REDO_MODE);
    enum kv_err err = fd < 0 ? err_of(errno) : write_file(fd, identity, generation, meta);
    if (err == KV_OK && fsync(folder) != 0)
        err = KV_IO;
    if (fd >= 0)
        close(fd);
    if (folder >= 0)
        close(folder);
    if (err == KV_IO)
        kv_error("redo: cannot be written: %m");
    if (err != KV_OK)
        redo_remove(path); /* it would keep what room there is */
    return err;
}

void redo_remove(const char *path)
{
    int folder = open_folder(path);
    if (folder >= 0 && unlinkat(folder, REDO_NAME, 0) != 0 && errno != ENOENT)
        kv_warn("redo: cannot be removed: %m");
    if (folder >= 0)
        close(folder);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static bool take(struct kv_slice *from, size_t bytes, struct kv_slice *out)
{
    if (bytes > from->bytes)
        return false;
    *out = kv_slice(from->data, bytes);
    *from = kv_slice(from->data + bytes, from->bytes - bytes);
    return true;
}

static bool is_key(enum overlay_table table, struct kv_slice key)
{
    static const size_t bytes[OVERLAY_TABLES] = {[OVERLAY_OBJECTS] = KV_HASH_BYTES, [OVERLAY_BLOBS] = NUMBER_BYTES};
    return table == OVERLAY_KEYS ? key.bytes >= 1 && key.bytes <= KV_KEY_BYTES_MAX : key.bytes == bytes[table];
}

static bool take_row(struct kv_slice *from, struct overlay *rows)
{
    struct kv_slice head, key, value;
    uint16_t key_bytes;
    if (!take(from, ROW_HEAD_BYTES, &head) || head.data[6] >= OVERLAY_TABLES || head.data[7] > 1)
        return false;
    memcpy(&key_bytes, head.data + 4, sizeof key_bytes);
    enum overlay_table table = (enum overlay_table)head.data[6];
    if (!take(from, le16toh(key_bytes), &key) || !take(from, bytes_get_u32(head.data), &value) || !is_key(table, key))
        return false;
    if (head.data[7])
        overlay_tombstone(rows, table, key, 0);
    else
        overlay_put(rows, table, key, value, 0);
    return true;
}

static bool take_rows(struct kv_slice *from, uint64_t count, struct overlay *rows)
{
    for (uint64_t i = 0; i < count; i++)
        if (!take_row(from, rows))
            return false;
    return from->bytes == 0 && overlay_rows(rows) == count;
}

enum kv_err redo_decode(struct kv_slice file, const struct store_identity *identity, struct store_redo *out)
{
    struct kv_slice head, intents;
    uint64_t numbers[HEAD_NUMBERS];
    struct store_redo redo = {0};
    if (!take(&file, HEAD_BYTES, &head) || bytes_get_u64(head.data) != REDO_MAGIC)
        return KV_CORRUPT;
    for (size_t i = 0; i < HEAD_NUMBERS; i++)
        numbers[i] = bytes_get_u64(head.data + NUMBER_BYTES + KV_STORE_ID_BYTES + i * NUMBER_BYTES);
    if (memcmp(head.data + NUMBER_BYTES, identity->store_id, KV_STORE_ID_BYTES) != 0 ||
        numbers[0] != identity->shard_index || !take(&file, numbers[6], &intents))
        return KV_CORRUPT;
    redo.rows = overlay_new();
    if (!take_rows(&file, numbers[7], redo.rows)) {
        overlay_free(&redo.rows);
        return KV_CORRUPT;
    }
    kv_buf_append(&redo.intents, intents);
    redo.meta =
        (struct store_meta){numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], kv_buf_peek(&redo.intents)};
    *out = redo;
    return KV_OK;
}

static enum kv_err read_all(int fd, struct kv_buf *out)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return KV_IO;
    kv_buf_reserve(out, (size_t)status.st_size);
    while (out->bytes < (size_t)status.st_size) {
        ssize_t got = pread(fd, out->data + out->bytes, (size_t)status.st_size - out->bytes, (off_t)out->bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return KV_IO;
        out->bytes += (size_t)got;
    }
    return KV_OK;
}

static enum kv_err check_and_decode(struct kv_slice file, const struct store_identity *identity, uint64_t position,
                                    struct store_redo *out)
{
    if (file.bytes < HEAD_BYTES + NUMBER_BYTES)
        return KV_CORRUPT;
    struct kv_slice summed = kv_slice(file.data, file.bytes - NUMBER_BYTES);
    if (XXH3_64bits(summed.data, summed.bytes) != bytes_get_u64(file.data + summed.bytes))
        return KV_CORRUPT;
    enum kv_err err = redo_decode(summed, identity, out);
    if (err != KV_OK || out->meta.position == position)
        return err;
    store_redo_free(out);
    return KV_CORRUPT;
}

enum kv_err redo_read(const char *path, const struct store_identity *identity, uint64_t position, char *why,
                      size_t why_bytes, struct store_redo *out)
{
    struct kv_buf file = {0};
    int folder = open_folder(path);
    int fd = folder < 0 ? -1 : openat(folder, REDO_NAME, O_RDONLY | O_CLOEXEC);
    enum kv_err err = fd >= 0 ? read_all(fd, &file) : errno == ENOENT ? KV_CORRUPT : KV_IO;
    if (err == KV_OK)
        err = check_and_decode(kv_buf_peek(&file), identity, position, out);
    if (err == KV_CORRUPT)
        snprintf(why, why_bytes, "data.mdb is half changed and redo, which has the rest, is %s",
                 fd < 0 ? "missing" : "damaged");
    else if (err != KV_OK)
        snprintf(why, why_bytes, "redo cannot be read: %s", kv_err_text(err));
    if (fd >= 0)
        close(fd);
    if (folder >= 0)
        close(folder);
    kv_buf_free(&file);
    return err;
}
