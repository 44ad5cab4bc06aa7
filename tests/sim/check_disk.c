/* tests/sim/check_disk.c -- see check.h. This file: the tables of every shard against the model. */
#include <stdlib.h>

#include "check.h"
#include "client.h"
#include "kv/placement.h"
#include "rows.h"
#include "shard.h"

/* Every row is one of the model's; gives how many there are. */
static uint64_t check_keys(const struct shard *shard, const struct model *model)
{
    size_t count;
    const struct overlay_row **rows = overlay_sorted(shard->disk.rows, OVERLAY_KEYS, &count);
    for (size_t i = 0; i < count; i++) {
        struct kv_row decoded;
        unsigned key = client_key_index(overlay_key(rows[i]));
        if (key == SIM_KEYS_MAX || row_decode_key(overlay_value(rows[i]), &decoded) != KV_OK)
            sim_fail("shard %u holds a key that nobody wrote", shard->index);
        char text[16] = {0};
        memcpy(text, decoded.content_type.data, decoded.content_type.bytes);
        if (strtoul(text, NULL, 10) != model->rows[key].tag)
            sim_fail("key %u holds the row of tag %s instead of %u", key, text, model->rows[key].tag);
        if (client_content_of(&decoded.hash) != (int)model->rows[key].content)
            sim_fail("key %u holds another content", key);
    }
    free(rows);
    return count;
}

static void check_bytes(const struct shard *shard, const struct content *content, const struct kv_object *object)
{
    struct kv_buf bytes = {0};
    kv_buf_append(&bytes, object->bytes);
    if (object->object_id != 0 &&
        disk_get_blob(&shard->disk, object->object_id, 0, object->stored_bytes, &bytes) != KV_OK)
        sim_fail("shard %u has lost the bytes of object %llu", shard->index, (unsigned long long)object->object_id);
    if (!kv_slice_equal(kv_buf_peek(&bytes), kv_buf_peek(&content->stored)))
        sim_fail("shard %u holds wrong bytes of object %llu", shard->index, (unsigned long long)object->object_id);
    kv_buf_free(&bytes);
}

static void check_objects(const struct shard *shard, const uint64_t *refs, unsigned shard_count)
{
    uint64_t stored_bytes = 0, expected = 0, with_blobs = 0;
    size_t objects;
    const struct overlay_row **rows = overlay_sorted(shard->disk.rows, OVERLAY_OBJECTS, &objects);
    for (size_t i = 0; i < objects; i++) {
        struct kv_object object;
        struct kv_hash hash;
        memcpy(hash.bytes, overlay_key(rows[i]).data, KV_HASH_BYTES);
        int content = client_content_of(&hash);
        if (content < 0 || row_decode_object(overlay_value(rows[i]), &object) != KV_OK)
            sim_fail("shard %u holds an object that nobody stored", shard->index);
        if (object.refs != refs[content] || object.refs == 0)
            sim_fail("content %d has %llu references, %llu keys hold it", content, (unsigned long long)object.refs,
                     (unsigned long long)refs[content]);
        check_bytes(shard, &client_contents[content], &object);
        stored_bytes += object.stored_bytes;
        with_blobs += object.object_id != 0;
    }
    free(rows);
    for (unsigned i = 0; i < SIM_CONTENTS_MAX; i++)
        expected +=
            refs[i] > 0 && kv_shard_of(kv_hash_slice(&client_contents[i].given.hash), shard_count) == shard->index;
    const struct store_meta *meta = &shard->disk.meta;
    if (objects != expected || meta->objects != objects || meta->stored_bytes != stored_bytes)
        sim_fail("shard %u: %zu objects of %llu bytes are there, %llu of %llu counted, %llu expected", shard->index,
                 objects, (unsigned long long)stored_bytes, (unsigned long long)meta->objects,
                 (unsigned long long)meta->stored_bytes, (unsigned long long)expected);
    size_t blobs = overlay_rows_of(shard->disk.rows, OVERLAY_BLOBS);
    if (blobs != with_blobs)
        sim_fail("shard %u: %llu objects have bytes elsewhere, but there are the bytes of %zu", shard->index,
                 (unsigned long long)with_blobs, blobs);
}

void check_disks(struct sim *sim, const struct model *model)
{
    uint64_t refs[SIM_CONTENTS_MAX] = {0}, expected = 0, keys = 0;
    for (unsigned key = 0; key < SIM_KEYS_MAX; key++) {
        if (model->rows[key].tag == 0)
            continue;
        refs[model->rows[key].content]++;
        expected++;
    }
    for (unsigned i = 0; i < sim->config.shard_count; i++) {
        struct shard *shard = sim->shards[i];
        uint64_t here = check_keys(shard, model);
        if (shard->disk.staged_count > shard->disk.staged_left)
            sim_fail("shard %u keeps %zu staged contents", i, shard->disk.staged_count);
        while (shard->disk.staged_count > 0)
            disk_unstage(&shard->disk, shard->disk.staged[0]);
        if (shard->disk.meta.keys != here)
            sim_fail("shard %u counts %llu keys, %llu are there", i, (unsigned long long)shard->disk.meta.keys,
                     (unsigned long long)here);
        disk_sweep(&shard->disk, NULL, 0, SIZE_MAX);
        check_objects(shard, refs, sim->config.shard_count);
        keys += here;
    }
    if (keys != expected)
        sim_fail("%llu keys are there, %llu should be", (unsigned long long)keys, (unsigned long long)expected);
}
