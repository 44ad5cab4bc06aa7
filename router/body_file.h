/* router/body_file.h -- the files without a name in which large request bodies wait, and the sum of them all.
 * Owns:     the descriptors, counted: a connection fills a file, the one who stores the body takes it along.
 * Does:     what takes long is done by a thread of its own, `kv-spool` (body_spool.c): files on the disk grow ahead of what
 *           comes, files end. Those in memory are kept a while for the next bodies.
 * Promises: what was extended is on the disk, so that no write into a mapping of it can fail (SIGBUS). The sum is what the
 *           files were extended by, less what was forgotten.
 * Limits:   on the disk UPLOAD_BYTES_MAX together; new files up to three quarters of it, so that those under way can end.
 * Threads:  any; a file is extended and mapped by one at a time. Tests: http/test_http_bodies.c, unit/router/test_body_file.c. */
#ifndef KV_ROUTER_BODY_FILE_H
#define KV_ROUTER_BODY_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/err.h"

#define BODY_FILE_MEMORY_MAX 8388608u      /* of one body; beyond it moves to the disk */
#define BODY_FILE_MEMORY_SUM_MAX 67108864u /* 64 MiB */
#define BODY_FILE_SPARE_SUM_MAX 33554432u  /* 32 MiB that wait for the next bodies */

struct body_file;

/* Once, before any thread: the folder is $TMPDIR or /tmp. */
void body_files_init(uint64_t bytes_max);
/* `named`: files there have a name for a moment, since the file system has no others (O_TMPFILE). */
const char *body_files_folder(bool *named);

/* For `expected` bytes, SIZE_MAX when nobody knows. A spare one has at least `bytes` already, others have none. NULL: the folder or the
 * process is full. */
struct body_file *body_file_new(uint64_t expected, size_t bytes);
/* One in memory with this descriptor, from now on its own, that no body comes into: for whoever has something else to send to a shard. */
struct body_file *body_file_of(int fd);
bool body_file_is_in_memory(const struct body_file *file);
/* One in memory that may grow to `bytes` there. */
bool body_file_fits_memory(const struct body_file *file, uint64_t bytes);
struct body_file *body_file_hold(struct body_file *file);
/* Sets NULL; the last holder's call ends the file. */
void body_file_free(struct body_file **file);

/* What waits for the next bodies goes back to the system. */
void body_files_trim(void);

int body_file_fd(const struct body_file *file);
/* The file becomes `bytes` long if it is shorter; one in memory only as far as it fits. KV_OVERLOADED: UPLOAD_BYTES_MAX;
 * KV_NO_SPACE: the disk. */
enum kv_err body_file_extend(struct body_file *file, size_t bytes, bool is_new);
/* The same for one on the disk, soon, as long as there is room for new files, and with its pages in memory: who fills them does
 * not wait. */
void body_file_extend_soon(struct body_file *file, uint64_t bytes);
/* That is still going on. */
bool body_file_grows(const struct body_file *file);
size_t body_file_length(const struct body_file *file);
/* The first `bytes` of it, valid until more are mapped, or it ends; on the disk they may be more than it has, for later.
 * NULL: no room, the mapping is the one before. */
void *body_file_map(struct body_file *file, size_t bytes);
/* What lies there, of a file in memory that is mapped; else NULL: a disk that cannot be read is no reason to die of SIGBUS. */
uint8_t *body_file_peek(const struct body_file *file, uint64_t offset, size_t bytes);
/* A shard may read it from now on, and has read: in between the file cannot hold another body. */
void body_file_lend(struct body_file *file);
void body_file_take_back(struct body_file *file);
/* Exactly `bytes`: KV_OK or KV_IO. */
enum kv_err body_file_read(const struct body_file *file, uint64_t offset, uint8_t *out, size_t bytes);
enum kv_err body_file_write(const struct body_file *file, uint64_t offset, const uint8_t *data, size_t bytes);
/* Gives the disk back what lies within: nobody will read it again. Memory stays. */
void body_file_forget(struct body_file *file, uint64_t offset, uint64_t bytes);

#ifdef KV_TESTS
/* Whether files grow and end for now. */
void body_files_stall(bool stalled);
#endif

/* The sum, of both kinds, without those that wait for the next bodies. */
uint64_t body_file_bytes(void);

#endif
