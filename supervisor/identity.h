/* supervisor/identity.h -- the two small text files that say what a store is: DB_PATH/store and DB_PATH/epoch.
 * `store` is written once: three lines `format 1`, `shards N`, `id <32 hex digits>`. `epoch` is one number, raised
 * before every start of the router. */
#ifndef KV_IDENTITY_H
#define KV_IDENTITY_H

#include <stdint.h>

#include "kv/limits.h"
#include "why.h"

#define IDENTITY_FORMAT 1u

struct identity {
    unsigned shard_count;
    char id[KV_STORE_ID_BYTES + 1];
};

/* A new store: random id. */
struct identity identity_new(unsigned shard_count);

/* Strict: exactly what identity_write writes. Another format version is refused by its number. */
enum kv_err identity_parse(const char *text, struct identity *out, struct why *why);

/* KV_NOT_FOUND (why untouched) when the directory holds no file `store`; KV_INVALID when it is damaged. */
enum kv_err identity_read(int dir_fd, struct identity *out, struct why *why);
/* Atomic and durable. */
enum kv_err identity_write(int dir_fd, const struct identity *identity, struct why *why);

enum kv_err epoch_read(int dir_fd, uint64_t *out, struct why *why);
/* Durable when it returns, on a full disk as well. KV_INVALID at KV_EPOCH_MAX and on trouble with the disk. */
enum kv_err epoch_write(int dir_fd, uint64_t epoch, struct why *why);

#endif
