/* tests/sim/shard_life.h -- what shard.c (turns, sessions) and shard_life.c (start, crash) share. Nobody else. */
#ifndef SIM_SHARD_LIFE_H
#define SIM_SHARD_LIFE_H

#include "shard.h"

void shard_turn_end(struct shard *shard);
void shard_close_session(struct shard *shard, struct link *link);
void shard_do_job(struct shard *shard, const struct stage_job *job);
struct kv_buf *shard_answer_begin(void *ctx, uint64_t session, enum kv_msg type, uint64_t request_id,
                                  uint64_t position);
void shard_answer_end(void *ctx);
uint8_t *shard_slot(void *ctx, uint64_t session, uint64_t number);
uint64_t shard_append(void *ctx, enum core_record type, struct kv_slice body, bool lazy);
bool shard_room(void *ctx, uint64_t bytes, bool frees);
void shard_stage(void *ctx, uint64_t session, uint64_t request_id, const struct store_piece *piece);
void shard_unstage(void *ctx, uint64_t object_id);

#endif
