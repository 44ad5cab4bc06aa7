/* shard/writeback.h -- a commit's pages on their way to the disk while LMDB still hands them to the page cache.
 * Why:      LMDB writes all pages of a transaction, tens of MiB, and flushes at the end: the disk gets them in one burst, and while it
 *           lasts each flush of the journal takes milliseconds instead of tenths of one.
 * Does:     between begin and end its thread, "kv-writeback", asks the kernel every WRITEBACK_MS to start writing what is dirty.
 * Owns:     the thread, begun with the first commit; it waits as long as there is none.
 * Promises: nothing: LMDB's own flush says what is durable, and hears of every error, since nothing here waits for a write. After
 *           writeback_end nothing touches the descriptor.
 * Threads:  begin and end belong to whoever commits: [applier], or the start.
 * Tests:    unit/shard/test_writeback.c. */
#ifndef KV_SHARD_WRITEBACK_H
#define KV_SHARD_WRITEBACK_H

#define WRITEBACK_MS 4u

struct writeback;

/* `start_writing`: sync_file_range in the shard, a twin in tests; NULL: the former. */
struct writeback *writeback_new(void (*start_writing)(int fd));
void writeback_free(struct writeback **writeback);
void writeback_begin(struct writeback *writeback, int fd);
void writeback_end(struct writeback *writeback);

#endif
