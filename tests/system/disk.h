/* tests/system/disk.h -- a small disk of a server's own, and somebody who fills it.
 * Does:     mounts a filesystem of 64 MiB below the server's folder, in a mount namespace that ends with the test, and puts DB_PATH there.
 * Fails:    where mounting is not allowed: false, and the caller says SKIPPED. */
#ifndef KV_SYSTEM_DISK_H
#define KV_SYSTEM_DISK_H

#include "harness.h"

/* Kind: "tmpfs" or "ext4". Before the server is spawned. */
bool disk_mount(struct server *server, const char *kind);
void disk_unmount(const struct server *server);
/* Takes all that the disk has left, to the last block but for `leave_bytes`. More than once: what has come free since. */
void disk_fill(const struct server *server, off_t leave_bytes);
/* Gives back what disk_fill took. */
void disk_empty(const struct server *server);

#endif
