/* tests/sim/file.h -- the twin of the files in which uploads wait: router/body_file.h's hold, free, fd and lend, and the kernel's half.
 * Does:     a client's PUT makes one; its descriptor travels with a frame, and waits with a shard's job until that is done.
 * Promises: bytes are there for as long as anybody has a descriptor: the router, a frame under way, a job. A dead process has none.
 *           One that the router has taken back from all shards holds another body from then on.
 *           One that was closed cannot be sent (sim_fail). At the end of a run nobody has any (sim_files_expect_none).
 * Owns:     the files, on the run's heap. */
#ifndef SIM_FILE_H
#define SIM_FILE_H

#include "body_file.h"
#include "sim.h"

/* `offset` bytes of something else, then `bytes`. */
struct body_file *sim_file_new(struct router *router, uint64_t offset, struct kv_slice bytes);
/* One more descriptor of the file that the router has open as `fd`. */
struct body_file *sim_file_receive(const struct router *router, int fd);
struct body_file *sim_file_keep(struct body_file *file);
/* Sets NULL, accepts NULL. */
void sim_file_let_go(struct body_file **file);
/* Appends exactly so many bytes to `out`; the file has them. */
void sim_file_read(const struct body_file *file, uint64_t offset, uint64_t bytes, struct kv_buf *out);
/* The process has ended. */
void sim_files_close(const struct router *router);
void sim_files_expect_none(const struct sim *sim);
/* Its bytes, where they lie: memory that a shard writes into (arena.c). */
uint8_t *sim_file_data(struct body_file *file);
/* The one whose bytes these are. */
struct body_file *sim_file_find(const uint8_t *data);
/* FAULT_FILE_FORGOTTEN: the place is given back. */
void sim_file_forget(struct body_file *file);

#endif
