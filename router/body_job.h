/* router/body_job.h -- the value of a PUT is hashed and encoded (work.h) while it still arrives.
 * Does:     begins the job when a body of known length moves into a file in memory, tells the worker how far it has come, gives it up with
 *           the body. The handler takes the job (body_take_job) and tells of the end: no job is through before somebody has it.
 * Why:      when it is complete only the last chunk is left to be hashed; 4 MiB take 3.2 of the 11 ms that a lone PUT of them takes.
 * Owns:     jobs that nobody has taken, with a hold of their file.
 * Threads:  a loop's. Tests: http/test_http_bodies.c, unit/router/test_work.c. */
#ifndef KV_ROUTER_BODY_JOB_H
#define KV_ROUTER_BODY_JOB_H

#include "work.h"

/* On a loop's thread, before all others: who works, and where the results go. */
void body_job_thread_init(struct work *work, h2o_multithread_receiver_t *receiver);
/* For a content of `bytes` that comes into the file from `offset` on. NULL: the worker has too much to do. */
struct work_job *body_job_new(struct body_file *file, uint64_t offset, size_t bytes);
/* So much has come; what is behind its end does not count, nor, yet, its last byte. */
void body_job_arrived(struct work_job *job, size_t bytes);
/* Nobody has taken it. Sets NULL, which is accepted. */
void body_job_free(struct work_job **job);

#endif
