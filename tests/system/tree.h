/* tests/system/tree.h -- real files of this machine as test data: /usr/share/doc and /usr/include, up to 1 MiB each.
 * Taken evenly from all that is there, whatever their sizes, and kept in memory with their SHA-256. Owned by the caller: tree_free. */
#ifndef KV_SYSTEM_TREE_H
#define KV_SYSTEM_TREE_H

#include "harness.h"

#define TREE_FILE_BYTES_MAX 1048576u

struct tree_file {
    char *path;   /* absolute: the key is the path without its first slash */
    char *target; /* the request target of that key */
    struct kv_buf bytes;
    char sha256[65];
};

struct tree {
    struct tree_file *files;
    size_t count;
    uint64_t bytes;
    size_t unique_count; /* different contents, by SHA-256 */
};

/* At least 5,000 files must be there, at most `count_max` are taken. */
struct tree tree_read(size_t count_max);
void tree_free(struct tree *tree);

#endif
