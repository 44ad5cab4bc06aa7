/* tests/system/versions.h -- many small keys, each with a value that tells its version, written in batches.
 * Does:     batch after batch goes round all keys and gives each a new value; remembers what was acknowledged; reads all and compares.
 * Owns:     what was acknowledged. The client is the caller's.
 * Fails:    through CHECK, at a value that was not acknowledged last, or a key that is gone. */
#ifndef KV_SYSTEM_VERSIONS_H
#define KV_SYSTEM_VERSIONS_H

#include "batch.h"

#define VERSIONS_BATCH_KEYS 200u
#define VERSIONS_VALUE_BYTES_MAX 1000u

struct versions {
    unsigned *of; /* of each key's value, as acknowledged; 0: never written */
    size_t count; /* of keys, a multiple of VERSIONS_BATCH_KEYS */
    size_t value_bytes;
    size_t next;   /* key of the next batch */
    size_t there;  /* keys that were written */
    unsigned last; /* version that was written last */
};

void versions_init(struct versions *versions, size_t key_count, size_t value_bytes);
void versions_free(struct versions *versions);
/* Writes the next batch. It counts when the answer is 200; any other status is returned for the caller to judge, and then nothing may
 * have happened. */
long versions_write(struct versions *versions, struct client *client);
/* Every key that was written has what was acknowledged last. */
void versions_expect_all(const struct versions *versions, struct client *client);

#endif
