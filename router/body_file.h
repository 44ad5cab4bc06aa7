/* router/body_file.h -- the files without a name in which large request bodies wait, and the sum of them all.
 * Owns:     the descriptors, counted: a connection fills a file, the one who stores the body takes it along.
 * Promises: what was extended is on the disk, so that no write into a mapping of it can fail (SIGBUS). The sum is what the
 *           files were extended by, less what was forgotten.
 * Limits:   on the disk UPLOAD_BYTES_MAX together; new files up to three quarters of it, so that those under way can end.
 * Threads:  any. Tests: http/test_http_bodies.c. */
#ifndef KV_ROUTER_BODY_FILE_H
#define KV_ROUTER_BODY_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/err.h"

#define BODY_FILE_MEMORY_MAX 8388608u      /* of one body; beyond it moves to the disk */
#define BODY_FILE_MEMORY_SUM_MAX 67108864u /* 64 MiB */

struct body_file;

/* Once, before any thread: the folder is $TMPDIR or /tmp. */
void body_files_init(uint64_t bytes_max);
/* `named`: files there have a name for a moment, since the file system has no others (O_TMPFILE). */
const char *body_files_folder(bool *named);

/* `expected` bytes, SIZE_MAX when nobody knows. NULL: the folder or the process is full. */
struct body_file *body_file_new(uint64_t expected);
bool body_file_is_in_memory(const struct body_file *file);
/* One in memory that may grow to `bytes` there. */
bool body_file_fits_memory(const struct body_file *file, uint64_t bytes);
struct body_file *body_file_hold(struct body_file *file);
/* Sets NULL; the last holder's call ends the file. */
void body_file_free(struct body_file **file);

int body_file_fd(const struct body_file *file);
/* From `bytes` on by `more`; one in memory only as far as it fits. KV_OVERLOADED: UPLOAD_BYTES_MAX; KV_NO_SPACE: the disk. */
enum kv_err body_file_extend(struct body_file *file, size_t bytes, size_t more, bool is_new);
/* Exactly `bytes`: KV_OK or KV_IO. */
enum kv_err body_file_read(const struct body_file *file, uint64_t offset, uint8_t *out, size_t bytes);
enum kv_err body_file_write(const struct body_file *file, uint64_t offset, const uint8_t *data, size_t bytes);
/* Gives the disk back what lies within: nobody will read it again. */
void body_file_forget(struct body_file *file, uint64_t offset, uint64_t bytes);

/* The sum, of both kinds. */
uint64_t body_file_bytes(void);

#endif
