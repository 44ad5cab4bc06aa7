/* A whole shard in the test's own thread: real journal, LMDB, applier and sockets below a temporary directory, and a
 * client that speaks frames. The loop turns only while the client waits. Shared by test_serve.c, test_serve_order.c and test_check.c. */
#ifndef KV_TEST_SHARD_RIG_H
#define KV_TEST_SHARD_RIG_H

#include <criterion/criterion.h>

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kv/clock.h"
#include "kv/settings.h"
#include "loop.h"
#include "serve.h"
#include "wire/messages.h"

#define RIG_WAIT_MS_MAX 60000
#define RIG_STORE_ID "0123456789abcdef0123456789abcdef"

struct rig {
    char db_path[40];
    char path[64];
    int listen_fd;
    int fd; /* the client's */
    struct serve *serve;
    struct kv_buf got;
    uint64_t request_id;
    struct store_identity identity;
    struct serve_options options;
};

static inline struct rig *rig_new(unsigned shard_count)
{
    struct rig *rig = kv_alloc_zero(1, sizeof(*rig));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    signal(SIGPIPE, SIG_IGN);
    strcpy(rig->db_path, "/tmp/kv-serve-XXXXXX");
    cr_assert_not_null(mkdtemp(rig->db_path));
    snprintf(rig->path, sizeof(rig->path), "%s/shard-0", rig->db_path);
    cr_assert_eq(mkdir(rig->path, 0700), 0);
    char store_path[64];
    snprintf(store_path, sizeof(store_path), "%s/store", rig->db_path);
    FILE *store = fopen(store_path, "w");
    fprintf(store, "format 1\nshards %u\nid %s\n", shard_count, RIG_STORE_ID);
    fclose(store);
    rig->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(rig->listen_fd, (struct sockaddr *)&address, sizeof(sa_family_t)), 0); /* an abstract name */
    cr_assert_eq(listen(rig->listen_fd, 8), 0);
    rig->fd = -1;
    rig->identity = (struct store_identity){.shard_count = shard_count, .store_id = RIG_STORE_ID};
    rig->options = (struct serve_options){
        .recover = {.path = rig->path,
                    .identity = &rig->identity,
                    .map_bytes = KV_GIB,
                    .core = {.shard_count = shard_count, .overlay_bytes_max = 64 * KV_MIB},
                    .flush = true},
        .listen_fd = rig->listen_fd,
        .shard_wait_ms = 10000,
    };
    return rig;
}

static inline void rig_open(struct rig *rig)
{
    char why[256] = "";
    enum kv_err err = serve_open(&rig->options, why, sizeof(why), &rig->serve);
    cr_assert_eq(err, KV_OK, "%s: %s", kv_err_text(err), why);
}

/* Without a stop: what is in memory is lost, as in a crash. */
static inline void rig_drop(struct rig *rig)
{
    if (rig->fd >= 0)
        close(rig->fd);
    rig->fd = -1;
    rig->got.bytes = 0;
    serve_close(&rig->serve);
}

static inline void rig_stop(struct rig *rig)
{
    serve_stop(rig->serve);
    serve_run(rig->serve);
    rig_drop(rig);
}

static inline int rig_remove_one(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    (void)status, (void)type, (void)ftw;
    return remove(path);
}

static inline void rig_free(struct rig *rig)
{
    rig_drop(rig);
    close(rig->listen_fd);
    cr_expect_eq(nftw(rig->db_path, rig_remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
    kv_buf_free(&rig->got);
    free(rig);
}

/* ---- the client ----------------------------------------------------------------------------------------------- */

/* Begins a request in `buf`; rig_send ends it. */
static inline size_t rig_begin(struct rig *rig, struct kv_buf *buf, enum kv_msg type)
{
    return kv_frame_begin(buf, type, ++rig->request_id);
}

/* Sends and frees `buf`; the shard's loop turns whenever the socket is full. */
static inline void rig_send(struct rig *rig, struct kv_buf *buf, size_t begin)
{
    uint64_t end = kv_clock_ms() + RIG_WAIT_MS_MAX;
    kv_frame_end(buf, begin);
    for (size_t sent = 0; sent < buf->bytes;) {
        ssize_t n = send(rig->fd, buf->data + sent, buf->bytes - sent, MSG_DONTWAIT);
        cr_assert(n > 0 || errno == EAGAIN);
        cr_assert_lt(kv_clock_ms(), end);
        sent += n > 0 ? (size_t)n : 0;
        loop_turn(serve_loop(rig->serve), 0);
    }
    kv_buf_free(buf);
}

/* The next answer; its body stays valid until the next call. */
static inline struct kv_frame rig_answer(struct rig *rig, enum kv_msg type)
{
    static struct kv_buf body;
    struct kv_frame frame;
    size_t used;
    uint64_t end = kv_clock_ms() + RIG_WAIT_MS_MAX;
    while (kv_frame_peek(kv_buf_peek(&rig->got), KV_ROLE_SHARD, &frame, &used) != KV_OK) {
        cr_assert_lt(kv_clock_ms(), end, "no answer");
        ssize_t got = recv(rig->fd, kv_buf_reserve(&rig->got, 1 << 20), 1 << 20, MSG_DONTWAIT);
        cr_assert_neq(got, 0, "the shard hung up");
        rig->got.bytes += got > 0 ? (size_t)got : 0;
        if (got < 0)
            loop_turn(serve_loop(rig->serve), 1);
    }
    cr_assert_eq(frame.type, type, "%s came instead of %s", kv_msg_name(frame.type), kv_msg_name(type));
    kv_buf_free(&body);
    kv_buf_append(&body, frame.body);
    frame.body = kv_buf_peek(&body);
    kv_buf_consume(&rig->got, used);
    return frame;
}

static inline void rig_connect(struct rig *rig, uint64_t epoch)
{
    struct sockaddr_un address;
    socklen_t bytes = sizeof(address);
    struct kv_buf buf = {0};
    struct kv_msg_hello hello;
    rig->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(getsockname(rig->listen_fd, (struct sockaddr *)&address, &bytes), 0);
    cr_assert_eq(connect(rig->fd, (struct sockaddr *)&address, bytes), 0);
    size_t begin = rig_begin(rig, &buf, KV_MSG_HELLO);
    kv_put_hello(&buf, &(struct kv_msg_hello){.version = KV_WIRE_VERSION,
                                              .role = KV_ROLE_ROUTER,
                                              .shard_count = rig->identity.shard_count,
                                              .epoch = epoch});
    rig_send(rig, &buf, begin);
    cr_assert_eq(kv_get_hello(rig_answer(rig, KV_MSG_HELLO).body, &hello), KV_OK);
    cr_assert_eq(hello.epoch, epoch);
}

static inline struct kv_hash rig_hash(uint64_t number)
{
    struct kv_hash hash = {{0}};
    memcpy(hash.bytes, &number, sizeof(number)); /* shards do not hash: any 32 bytes are a content's name */
    return hash;
}

/* A key row and its content, both of this shard, in one transaction; `size` bytes of content, inline, or staged as `object_id`.
 * Begins at what is returned; rig_send ends it. */
static inline size_t rig_begin_put(struct rig *rig, struct kv_buf *buf, enum kv_msg type, uint64_t txn_id,
                                   kv_shard_set participants, uint64_t number, size_t size, uint64_t object_id)
{
    char key[32];
    uint8_t *content = kv_alloc(size);
    memset(content, (int)(number & 0xff), size);
    snprintf(key, sizeof(key), "key-%08llu", (unsigned long long)number);
    struct kv_op set = {
        .kind = KV_OP_SET,
        .key = kv_slice_text(key),
        .row = {.hash = rig_hash(number), .size = size, .created_s = 1, .content_type = kv_slice_text("t")}};
    struct kv_op add = {.kind = KV_OP_ADD,
                        .hash = rig_hash(number),
                        .count = 1,
                        .size = size,
                        .codec = KV_CODEC_RAW,
                        .object_id = object_id,
                        .stored_bytes = size,
                        .has_bytes = object_id == 0,
                        .bytes = kv_slice(content, size)};
    size_t begin = rig_begin(rig, buf, type);
    kv_put_prepare_begin(buf, txn_id, participants, 2);
    kv_put_op(buf, &set);
    kv_put_op(buf, &add);
    free(content);
    return begin;
}

static inline void rig_send_put(struct rig *rig, enum kv_msg type, uint64_t txn_id, kv_shard_set participants,
                                uint64_t number, size_t size, uint64_t object_id)
{
    struct kv_buf buf = {0};
    size_t begin = rig_begin_put(rig, &buf, type, txn_id, participants, number, size, object_id);
    rig_send(rig, &buf, begin);
}

static inline enum kv_err rig_vote(struct rig *rig)
{
    struct kv_list existed;
    enum kv_err err;
    cr_assert_eq(kv_get_vote(rig_answer(rig, KV_MSG_VOTE).body, &err, &existed), KV_OK);
    return err;
}

static inline enum kv_err rig_put(struct rig *rig, uint64_t txn_id, uint64_t number, size_t size)
{
    rig_send_put(rig, KV_MSG_APPLY, txn_id, kv_shard_bit(0), number, size, 0);
    return rig_vote(rig);
}

static inline struct kv_msg_row rig_read(struct rig *rig, uint64_t number, uint64_t bytes_max)
{
    char key[32];
    struct kv_buf buf = {0};
    struct kv_msg_row row;
    snprintf(key, sizeof(key), "key-%08llu", (unsigned long long)number);
    size_t begin = rig_begin(rig, &buf, KV_MSG_READ);
    kv_put_read(&buf, &(struct kv_msg_read){.key = kv_slice_text(key), .bytes_max = bytes_max});
    rig_send(rig, &buf, begin);
    cr_assert_eq(kv_get_row(rig_answer(rig, KV_MSG_ROW).body, &row), KV_OK);
    return row;
}

/* The content of key `number`; into the slot that begins with this unit, unless that is below 0. */
static inline struct kv_msg_object rig_look(struct rig *rig, uint64_t number, uint64_t bytes_max, int unit)
{
    struct kv_buf buf = {0};
    struct kv_msg_object object;
    size_t begin = rig_begin(rig, &buf, KV_MSG_OPEN);
    kv_put_open(&buf, &(struct kv_msg_open){rig_hash(number), bytes_max, {unit >= 0, unit >= 0 ? (uint64_t)unit : 0}});
    rig_send(rig, &buf, begin);
    cr_assert_eq(kv_get_object(rig_answer(rig, KV_MSG_OBJECT).body, &object), KV_OK);
    return object;
}

/* Whether key `number` is there with all its bytes, as rig_send_put made them (on a shard that owns everything). */
static inline bool rig_has(struct rig *rig, uint64_t number, size_t size)
{
    struct kv_msg_row row = rig_read(rig, number, KV_PIECE_BYTES_MAX);
    if (row.err != KV_OK || !row.has_row || !row.has_object || row.object.bytes.bytes != size)
        return false;
    for (size_t i = 0; i < size; i++)
        if (row.object.bytes.data[i] != (number & 0xff))
            return false;
    return true;
}

static inline uint64_t rig_counter(struct rig *rig, const char *wanted)
{
    struct kv_buf buf = {0};
    struct kv_list pairs;
    struct kv_slice name;
    uint64_t value;
    size_t begin = rig_begin(rig, &buf, KV_MSG_STATS);
    kv_put_empty(&buf);
    rig_send(rig, &buf, begin);
    cr_assert_eq(kv_get_counters(rig_answer(rig, KV_MSG_COUNTERS).body, &pairs), KV_OK);
    while (kv_next_counter(&pairs, &name, &value))
        if (kv_slice_equal(name, kv_slice_text(wanted)))
            return value;
    cr_assert_fail("no counter %s", wanted);
    return 0;
}

static inline void rig_ask_id(struct rig *rig, enum kv_msg type, uint64_t id)
{
    struct kv_buf buf = {0};
    size_t begin = rig_begin(rig, &buf, type);
    kv_put_id(&buf, id);
    rig_send(rig, &buf, begin);
}

static inline enum kv_err rig_done(struct rig *rig)
{
    enum kv_err err;
    cr_assert_eq(kv_get_done(rig_answer(rig, KV_MSG_DONE).body, &err), KV_OK);
    return err;
}

/* Stages content `number` of `size` bytes in pieces and returns its object id. */
static inline uint64_t rig_stage(struct rig *rig, uint64_t number, size_t size)
{
    enum { PIECE = KV_BLOB_ROW_BYTES * 16 };
    struct kv_buf buf = {0};
    struct kv_msg_staged staged;
    uint8_t *content = kv_alloc(size);
    memset(content, (int)(number & 0xff), size);
    size_t begin = rig_begin(rig, &buf, KV_MSG_STAGE);
    kv_put_stage(&buf, &(struct kv_msg_stage){.hash = rig_hash(number), .size = size, .stored_bytes = size});
    rig_send(rig, &buf, begin);
    cr_assert_eq(kv_get_staged(rig_answer(rig, KV_MSG_STAGED).body, &staged), KV_OK);
    cr_assert_eq(staged.err, KV_OK);
    cr_assert_not(staged.existed);
    for (size_t offset = 0; offset < size; offset += PIECE) {
        size_t bytes = size - offset < PIECE ? size - offset : PIECE;
        begin = rig_begin(rig, &buf, KV_MSG_STAGE_DATA);
        kv_put_stage_data(&buf, &(struct kv_msg_stage_data){.object_id = staged.object_id,
                                                            .offset = offset,
                                                            .bytes = kv_slice(content + offset, bytes)});
        rig_send(rig, &buf, begin);
    }
    for (size_t offset = 0; offset < size; offset += PIECE)
        cr_assert_eq(rig_done(rig), KV_OK);
    free(content);
    return staged.object_id;
}

#endif
