/* router/task.h -- work on memory of its own that would hold up an event loop: large batches are read and written here.
 * Does:     one thread, `kv-batch`, runs tasks in the order they came; the asking loop then hears of it.
 * Why not work.h: that thread takes one content in pieces that the loop feeds; a batch is parsed as a whole, which may take a
 *           second, and no upload shall wait behind it.
 * Owns:     what waits: TASK_BYTES_MAX of memory that tasks hold together, TASKS_MAX of them, then KV_OVERLOADED.
 * Promises: on_done runs exactly once per submitted task, on the asking loop, never from within task_submit.
 * Tests:    http/test_http_batch.c. */
#ifndef KV_ROUTER_TASK_H
#define KV_ROUTER_TASK_H

#include <h2o/multithread.h>

#include "codec.h"
#include "kv/err.h"

#define TASKS_MAX 1024u
#define TASK_BYTES_MAX ((uint64_t)128 << 20)

struct tasks;

/* Its owner's memory until on_done; touched by nobody else from task_submit until then. */
struct task {
    void (*run)(struct task *task, struct codec *codec); /* on the thread */
    void (*on_done)(struct task *task);
    h2o_multithread_receiver_t *receiver; /* registered with task_on_messages */
    /* ours */
    h2o_multithread_message_t message;
    struct task *next;
};

struct tasks *tasks_new(int compression_level);
/* Before the memory is taken. KV_OVERLOADED: too much is under way; one alone always gets through. */
enum kv_err tasks_reserve(struct tasks *tasks, uint64_t bytes);
void tasks_release(struct tasks *tasks, uint64_t bytes);
/* Reserved now, and by how many. */
uint64_t tasks_load(struct tasks *tasks, uint64_t *bytes);
void task_submit(struct tasks *tasks, struct task *task);

/* The callback for h2o_multithread_register_receiver. */
void task_on_messages(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages);

#endif
