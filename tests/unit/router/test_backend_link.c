/* Goal: what a shard said on a link that is gone means nothing on the next one: an object held then is not let go of now, a content
 * staged then is not dropped now, since both ids may be another request's by then.
 * Method: backend_read.c, backend_fetch.c and backend_stage.c on a backend that is nothing but its calls; the test plays the shards (backend_rig.h). */
#include "backend_rig.h"

Test(backend_link, a_hold_is_closed_on_its_own_link)
{
    struct seen *seen = begin();
    read_held(seen);
    cr_expect_eq(next_message(seen), 0);
    backend_close(&seen->backend, &seen->hold);
    cr_expect_eq(next_message(seen), KV_MSG_CLOSE);
    end(seen);
}

Test(backend_link, a_hold_of_an_older_link_is_not_closed_on_a_newer)
{
    struct seen *seen = begin();
    read_held(seen);
    relink(seen, 0);
    backend_close(&seen->backend, &seen->hold);
    cr_expect_eq(next_message(seen), 0, "the next reader of the same object holds it under the same id");
    end(seen);
}

/* A piece of a held object is asked for behind a new link: the OPEN that follows waits for its answer. */
static struct backend_call *fetch_until_opened_again(struct seen *seen, uint64_t *request_id)
{
    read_held(seen);
    relink(seen, 0);
    struct backend_call *fetch = backend_fetch(&seen->backend, &seen->hold, 64, 100, on_piece, seen);
    answer_piece(seen, KV_STALE);
    cr_assert_eq(txn_rig_take(&seen->rig, 0, request_id), KV_MSG_OPEN);
    return fetch;
}

Test(backend_link, an_object_that_is_opened_again_is_closed_where_it_was_opened)
{
    struct seen *seen = begin();
    uint64_t request_id = 0;
    fetch_until_opened_again(seen, &request_id);
    answer_open(seen, request_id);
    answer_piece(seen, KV_OK);
    cr_expect(seen->pieces == 1 && seen->err == KV_OK);
    backend_close(&seen->backend, &seen->hold);
    cr_expect_eq(next_message(seen), KV_MSG_CLOSE);
    relink(seen, 0);
    backend_close(&seen->backend, &seen->hold);
    cr_expect_eq(next_message(seen), 0);
    end(seen);
}

/* The reader leaves while its object is being opened again: nobody else would let go of it. */
Test(backend_link, an_object_that_is_opened_again_for_nobody_is_closed)
{
    struct seen *seen = begin();
    uint64_t request_id = 0;
    struct backend_call *fetch = fetch_until_opened_again(seen, &request_id);
    backend_cancel(fetch);
    backend_close(&seen->backend, &seen->hold);
    cr_expect_eq(next_message(seen), 0);
    answer_open(seen, request_id);
    cr_expect_eq(next_message(seen), KV_MSG_CLOSE);
    cr_expect_eq(seen->pieces, 0u);
    end(seen);
}

Test(backend_link, an_open_that_nobody_waits_for_is_closed_when_it_is_answered)
{
    struct seen *seen = begin();
    uint64_t request_id = 0;
    struct backend_call *fetch = fetch_until_opened_again(seen, &request_id);
    backend_cancel(fetch);
    fetch->fail(fetch, KV_CANCELLED); /* the tick finds it */
    answer_open(seen, request_id);
    cr_expect_eq(next_message(seen), KV_MSG_CLOSE);
    end(seen);
}

/* ---- staged contents ------------------------------------------------------------------------------------------- */

Test(backend_link, a_staged_content_is_dropped_on_its_own_link)
{
    struct seen *seen = begin();
    struct kv_hash hash = hash_of(0);
    uint64_t generation = calls_link_generation(seen->rig.calls, 0);
    backend_stage_drop(&seen->backend, &hash, OBJECT_ID, generation);
    cr_expect_eq(next_message(seen), KV_MSG_STAGE_DROP);
    backend_stage_drop(&seen->backend, &hash, 0, generation);
    cr_expect_eq(next_message(seen), 0, "it was there already");
    relink(seen, 0);
    backend_stage_drop(&seen->backend, &hash, OBJECT_ID, generation);
    cr_expect_eq(next_message(seen), 0, "the id may be another content's");
    end(seen);
}

struct staged {
    struct backend_call head;
    unsigned count;
    enum kv_err err;
    uint64_t object_id, link_generation;
};

static void on_staged(void *arg, enum kv_err err, uint64_t object_id, uint64_t link_generation)
{
    struct staged *staged = arg;
    staged->count++;
    staged->err = err;
    staged->object_id = object_id;
    staged->link_generation = link_generation;
}

static void on_fail(struct backend_call *call, enum kv_err err)
{
    (void)call;
    (void)err;
}

static void answer_stage(struct seen *seen, uint64_t object_id)
{
    uint64_t request_id = 0;
    struct kv_buf body = {0};
    cr_assert_eq(txn_rig_take(&seen->rig, 0, &request_id), KV_MSG_STAGE);
    kv_put_staged(&body, &(struct kv_msg_staged){.err = KV_OK, .object_id = object_id});
    txn_rig_answer(&seen->rig, 0, KV_MSG_STAGED, request_id, &body);
    kv_buf_free(&body);
}

static uint64_t take_piece(struct seen *seen, uint64_t *request_id)
{
    struct kv_msg_stage_data data;
    cr_assert_eq(txn_rig_take(&seen->rig, 0, request_id), KV_MSG_STAGE_DATA);
    cr_assert_eq(kv_get_stage_data(kv_buf_peek(&seen->rig.taken), &data), KV_OK);
    return data.object_id;
}

struct file_content {
    struct backend_content content; /* index, then what lies in the file behind 10 bytes */
    size_t index_bytes;
};

static enum kv_err read_index(void *arg, uint64_t offset, uint8_t *out, size_t bytes)
{
    const struct file_content *file = arg;
    cr_assert_leq(offset + bytes, file->index_bytes, "of the file only a descriptor travels");
    memset(out, 'i', bytes);
    return KV_OK;
}

/* Takes what is to be staged next, answers that it is, and returns its bytes, as they are in message and file together. */
static uint64_t take_file_piece(struct seen *seen, uint64_t offset, uint64_t index_bytes, uint64_t file_offset)
{
    uint64_t request_id;
    struct kv_msg_stage_file piece;
    cr_assert_eq(txn_rig_take(&seen->rig, 0, &request_id), KV_MSG_STAGE_FILE);
    cr_assert_eq(kv_get_stage_file(kv_buf_peek(&seen->rig.taken), &piece), KV_OK);
    cr_expect_eq(piece.object_id, OBJECT_ID);
    cr_expect_eq(piece.offset, offset);
    cr_expect_eq(piece.bytes.bytes, index_bytes);
    cr_expect_eq(piece.file_offset, file_offset);
    uint64_t bytes = piece.bytes.bytes + piece.file_bytes;
    txn_rig_done(&seen->rig, 0, request_id, KV_OK);
    return bytes;
}

static struct staged *stage_file(struct seen *seen, struct file_content *file, uint64_t bytes)
{
    file->content = (struct backend_content){.hash = hash_of(0),
                                             .size = bytes,
                                             .stored = kv_slice(NULL, bytes),
                                             .read = read_index,
                                             .read_arg = file,
                                             .file = body_file_new(1, 1),
                                             .file_from = file->index_bytes,
                                             .file_offset = 10};
    struct staged *staged = backend_call_new(&seen->backend, sizeof *staged, on_fail);
    stager_new(&staged->head, &file->content, on_staged, staged);
    answer_stage(seen, OBJECT_ID);
    return staged;
}

static void expect_staged(struct seen *seen, struct staged *staged, struct file_content *file)
{
    cr_expect(staged->count == 1 && staged->err == KV_OK && staged->object_id == OBJECT_ID);
    backend_call_end(&staged->head);
    body_file_free(&file->content.file);
    end(seen);
}

Test(backend_link, of_a_content_in_a_file_a_descriptor_travels)
{
    struct seen *seen = begin();
    struct file_content file = {.index_bytes = 100};
    struct staged *staged = stage_file(seen, &file, KV_FILE_PIECE_BYTES_MAX + 1000);
    cr_expect_eq(take_file_piece(seen, 0, 100, 10), KV_FILE_PIECE_BYTES_MAX);
    cr_expect_eq(take_file_piece(seen, KV_FILE_PIECE_BYTES_MAX, 0, 10 + KV_FILE_PIECE_BYTES_MAX - 100), 1000u);
    expect_staged(seen, staged, &file);
}

/* 16 GiB have an index of 768 KiB. */
Test(backend_link, a_large_index_has_pieces_of_its_own)
{
    struct seen *seen = begin();
    struct file_content file = {.index_bytes = 786432};
    struct staged *staged = stage_file(seen, &file, file.index_bytes + 5000);
    uint64_t at = 0, request_id;
    for (int i = 0; i < 3; i++) {
        struct kv_msg_stage_data data;
        cr_assert_eq(take_piece(seen, &request_id), OBJECT_ID);
        cr_assert_eq(kv_get_stage_data(kv_buf_peek(&seen->rig.taken), &data), KV_OK);
        cr_expect_eq(data.offset, at);
        at += data.bytes.bytes;
        txn_rig_done(&seen->rig, 0, request_id, KV_OK);
    }
    cr_expect_eq(take_file_piece(seen, at, file.index_bytes - at, 10), file.index_bytes - at + 5000);
    expect_staged(seen, staged, &file);
}

/* The id that the caller gets belongs to the link that the last piece went over, also when it was begun on another. */
Test(backend_link, a_content_is_staged_again_over_the_next_link)
{
    struct seen *seen = begin();
    uint64_t request_id = 0;
    static uint8_t bytes[KV_INLINE_BYTES_MAX + 1];
    struct backend_content content = {
        .hash = hash_of(0), .size = sizeof bytes, .stored = kv_slice(bytes, sizeof bytes)};
    struct staged *staged = backend_call_new(&seen->backend, sizeof *staged, on_fail);
    stager_new(&staged->head, &content, on_staged, staged);
    answer_stage(seen, OBJECT_ID);
    relink(seen, 0);
    cr_expect_eq(take_piece(seen, &request_id), 0u, "no content has this id");
    txn_rig_done(&seen->rig, 0, request_id, KV_STALE);
    answer_stage(seen, OBJECT_ID + 1);
    cr_expect_eq(take_piece(seen, &request_id), OBJECT_ID + 1);
    txn_rig_done(&seen->rig, 0, request_id, KV_OK);
    cr_expect(staged->count == 1 && staged->err == KV_OK && staged->object_id == OBJECT_ID + 1);
    cr_expect_eq(staged->link_generation, calls_link_generation(seen->rig.calls, 0));
    backend_call_end(&staged->head);
    end(seen);
}
