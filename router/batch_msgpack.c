/* router/batch_msgpack.c -- the batch in MessagePack. See batch.h.
 * Names, keys and texts are str; a value is bin or str on its way in, always bin on its way out: its type then does not depend on
 * what somebody stored. The reader (wire/pack.h) allocates nothing and checks each count against the bytes that are left. */
#include "batch.h"
#include "digest.h"
#include "json.h"
#include "key.h"
#include "wire/pack.h"

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static struct kv_slice unpack_text(struct kv_unpack *in, enum batch_member member)
{
    if (member == BATCH_VALUE && kv_unpack_peek(in) == KV_UNPACK_BIN)
        return kv_unpack_bin(in, SIZE_MAX);
    return kv_unpack_str(in, SIZE_MAX);
}

static enum kv_err refuse_malformed(const struct batch *batch, struct batch_refusal *refusal)
{
    return batch_refuse(batch, refusal, "invalid_request", "malformed MessagePack.");
}

static enum kv_err read_member(const struct batch *batch, struct kv_unpack *in, struct batch_fields *fields,
                               struct batch_refusal *refusal)
{
    if (kv_unpack_peek(in) != KV_UNPACK_STR && kv_unpack_peek(in) != KV_UNPACK_BAD)
        return batch_refuse(batch, refusal, "invalid_request", "the name of a member is not a str.");
    struct kv_slice name = kv_unpack_str(in, SIZE_MAX);
    if (in->bad || kv_unpack_peek(in) == KV_UNPACK_BAD)
        return refuse_malformed(batch, refusal);
    enum batch_member member = batch_member_of(batch, name);
    if (member == BATCH_MEMBER_COUNT)
        return batch_refuse_unknown(batch, refusal, name);
    if (fields->present[member])
        return batch_refuse(batch, refusal, "invalid_request", "the member \"%s\" comes twice.",
                            batch_member_name(member));
    enum kv_unpack_type type = kv_unpack_peek(in);
    if (type != KV_UNPACK_STR && !(member == BATCH_VALUE && type == KV_UNPACK_BIN))
        return batch_refuse(batch, refusal, "invalid_request", "\"%s\" is not a str%s.", batch_member_name(member),
                            member == BATCH_VALUE ? " or bin" : "");
    bool is_text = type == KV_UNPACK_STR;
    fields->text[member] = unpack_text(in, member);
    fields->present[member] = true;
    if (in->bad)
        return refuse_malformed(batch, refusal);
    if (is_text && !key_is_utf8(fields->text[member]))
        return batch_refuse(batch, refusal, member == BATCH_KEY ? "invalid_key" : "invalid_request",
                            "\"%s\" is a str and not valid UTF-8.", batch_member_name(member));
    return KV_OK;
}

static enum kv_err read_operation(struct batch *batch, struct kv_unpack *in, const struct batch_limits *limits,
                                  struct batch_refusal *refusal)
{
    struct batch_fields fields = {0};
    enum kv_err err = KV_OK;
    if (kv_unpack_peek(in) == KV_UNPACK_BAD)
        return refuse_malformed(batch, refusal);
    if (kv_unpack_peek(in) != KV_UNPACK_MAP)
        return batch_refuse(batch, refusal, "invalid_request", "it is not a map.");
    size_t count = kv_unpack_map(in, BATCH_MEMBERS_MAX);
    if (in->bad)
        return batch_refuse(batch, refusal, "invalid_request",
                            "malformed MessagePack, or a map of more than %u members.", BATCH_MEMBERS_MAX);
    for (size_t i = 0; i < count && err == KV_OK; i++)
        err = read_member(batch, in, &fields, refusal);
    return err == KV_OK ? batch_add(batch, &fields, limits, refusal) : err;
}

/* The count of an array beyond what may be is told apart from one that is cut off. */
static enum kv_err read_count(struct kv_unpack *in, size_t *count, struct batch_refusal *refusal)
{
    if (kv_unpack_peek(in) != KV_UNPACK_ARRAY)
        return batch_refuse_body(refusal, "invalid_request", "The body is not a MessagePack array of operations.");
    *count = kv_unpack_array(in, SIZE_MAX);
    if (in->bad)
        return batch_refuse_body(refusal, "invalid_request", "The array has more elements than the body has bytes.");
    return *count > KV_BATCH_OPS_MAX ? batch_refuse_count(refusal) : KV_OK;
}

enum kv_err batch_read_msgpack(struct batch *batch, struct kv_slice body, const struct batch_limits *limits,
                               struct batch_refusal *refusal)
{
    struct kv_unpack in = kv_unpack_start(body);
    size_t count = 0;
    enum kv_err err = read_count(&in, &count, refusal);
    for (size_t i = 0; i < count && err == KV_OK; i++)
        err = read_operation(batch, &in, limits, refusal);
    if (err == KV_OK && kv_unpack_end(&in) != KV_OK)
        err = batch_refuse_body(refusal, "invalid_request", "Bytes are left over behind the array.");
    return err;
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

static void pack_name(struct kv_buf *out, const char *name)
{
    kv_pack_str(out, kv_slice_text(name));
}

static void pack_hash(struct kv_buf *out, const struct kv_hash *hash)
{
    char hex[DIGEST_HEX_BYTES];
    digest_hex(hash, hex);
    pack_name(out, "hash");
    kv_pack_str(out, kv_slice(hex, sizeof(hex)));
}

static void pack_number(struct kv_buf *out, const char *name, uint64_t number)
{
    pack_name(out, name);
    kv_pack_uint(out, number);
}

static void pack_flag(struct kv_buf *out, const char *name, bool flag)
{
    pack_name(out, name);
    kv_pack_bool(out, flag);
}

static void open_result(struct kv_buf *out, const char *name, const struct backend_op *op, size_t members)
{
    kv_pack_map(out, 1);
    pack_name(out, name);
    kv_pack_map(out, members);
    pack_name(out, "key");
    kv_pack_str(out, op->key);
}

static void pack_get(struct kv_buf *out, const struct backend_op *op, const struct backend_op_result *result)
{
    open_result(out, "get", op, result->found ? 3 : 2);
    if (result->found) {
        pack_name(out, "value");
        kv_pack_bin(out, result->content);
    }
    pack_flag(out, "found", result->found);
}

static void pack_head(struct kv_buf *out, const struct backend_op *op, const struct backend_op_result *result,
                      bool with_refs)
{
    open_result(out, "head", op, !result->found ? 2 : with_refs ? 7 : 6);
    if (result->found) {
        struct kv_buf type = {0};
        json_header_to_utf8(&type, result->row.content_type);
        pack_hash(out, &result->row.hash);
        pack_number(out, "size", result->row.size);
        if (with_refs)
            pack_number(out, "refs", result->refs);
        pack_number(out, "created_at", result->row.created_s);
        pack_name(out, "content_type");
        kv_pack_str(out, kv_buf_peek(&type));
        kv_buf_free(&type);
    }
    pack_flag(out, "found", result->found);
}

static void pack_result(struct kv_buf *out, const struct backend_op *op, const struct backend_op_result *result,
                        bool with_refs)
{
    switch (op->kind) {
    case BACKEND_PUT:
        open_result(out, "put", op, 3);
        pack_hash(out, &op->content->hash);
        pack_flag(out, "created", !result->found);
        break;
    case BACKEND_DELETE:
        open_result(out, "delete", op, 2);
        pack_flag(out, "deleted", result->found);
        break;
    case BACKEND_GET:
        pack_get(out, op, result);
        break;
    case BACKEND_HEAD:
        pack_head(out, op, result, with_refs);
        break;
    }
}

void batch_write_msgpack(const struct batch *batch, const struct backend_op_result *results, struct kv_buf *out)
{
    kv_pack_map(out, 1);
    pack_name(out, "results");
    kv_pack_array(out, batch->count);
    for (size_t i = 0; i < batch->count; i++)
        pack_result(out, &batch->ops[i], &results[i], !batch->hides_refs);
}
