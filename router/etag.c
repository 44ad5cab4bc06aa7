/* router/etag.c -- see etag.h. */
#include "etag.h"

#include "digest.h"
#include "list.h"

static const char zstd_suffix[] = "-zstd";

size_t etag_write(const struct kv_hash *hash, bool zstd, char out[ETAG_BYTES_MAX])
{
    size_t bytes = 1 + DIGEST_HEX_BYTES;
    out[0] = '"';
    digest_hex(hash, out + 1);
    if (zstd) {
        memcpy(out + bytes, zstd_suffix, sizeof(zstd_suffix) - 1);
        bytes += sizeof(zstd_suffix) - 1;
    }
    out[bytes++] = '"';
    return bytes;
}

static void skip(struct kv_slice *rest, size_t bytes)
{
    *rest = kv_slice(rest->data + bytes, rest->bytes - bytes);
}

/* Elements of a list may be empty: `, ,"a"` is one tag. */
static void skip_commas(struct kv_slice *rest)
{
    while (rest->bytes > 0 && (rest->data[0] == ',' || rest->data[0] == ' ' || rest->data[0] == '\t'))
        skip(rest, 1);
}

enum kv_err etag_next(struct kv_slice *rest, struct etag *out)
{
    skip_commas(rest);
    if (rest->bytes == 0)
        return KV_END;
    bool weak = rest->bytes >= 2 && rest->data[0] == 'W' && rest->data[1] == '/';
    if (weak)
        skip(rest, 2);
    if (rest->bytes < 2 || rest->data[0] != '"')
        return KV_INVALID;
    const uint8_t *end = memchr(rest->data + 1, '"', rest->bytes - 1);
    if (end == NULL)
        return KV_INVALID;
    *out = (struct etag){weak, kv_slice(rest->data + 1, (size_t)(end - rest->data) - 1)};
    skip(rest, (size_t)(end - rest->data) + 1);
    struct kv_slice behind = list_trim(*rest);
    return behind.bytes == 0 || behind.data[0] == ',' ? KV_OK : KV_INVALID;
}

enum kv_err etag_list_parse(struct kv_slice value, struct etag_list *out)
{
    struct kv_slice tags = list_trim(value);
    struct etag tag;
    struct kv_slice rest = tags;
    size_t count = 0;
    if (tags.bytes == 1 && tags.data[0] == '*') {
        *out = (struct etag_list){.present = true, .any = true};
        return KV_OK;
    }
    enum kv_err err;
    while ((err = etag_next(&rest, &tag)) == KV_OK)
        count++;
    if (err != KV_END || count == 0)
        return KV_INVALID;
    *out = (struct etag_list){.present = true, .tags = tags};
    return KV_OK;
}

/* The content that an opaque part names, in either form. */
static enum kv_err named_hash(struct kv_slice opaque, struct kv_hash *out)
{
    const size_t suffix_bytes = sizeof(zstd_suffix) - 1;
    if (opaque.bytes == DIGEST_HEX_BYTES + suffix_bytes &&
        memcmp(opaque.data + DIGEST_HEX_BYTES, zstd_suffix, suffix_bytes) == 0)
        opaque.bytes = DIGEST_HEX_BYTES;
    for (size_t i = 0; i < opaque.bytes; i++)
        if (opaque.data[i] >= 'A' && opaque.data[i] <= 'F')
            return KV_INVALID; /* tags are compared byte by byte: ours are in lower case */
    return digest_parse(opaque, out);
}

bool etag_names(struct kv_slice opaque, const struct kv_hash *hash)
{
    struct kv_hash named;
    return named_hash(opaque, &named) == KV_OK && kv_hash_equal(&named, hash);
}

bool etag_list_matches(const struct etag_list *list, const struct kv_hash *hash, bool strong)
{
    struct kv_slice rest = list->tags;
    struct etag tag;
    if (list->any)
        return true;
    while (etag_next(&rest, &tag) == KV_OK)
        if (!(strong && tag.weak) && etag_names(tag.opaque, hash))
            return true;
    return false;
}

enum kv_err etag_list_only(const struct etag_list *list, struct kv_hash *out)
{
    struct kv_slice rest = list->tags;
    struct kv_hash found, named;
    struct etag tag;
    size_t count = 0;
    while (etag_next(&rest, &tag) == KV_OK) {
        if (tag.weak || named_hash(tag.opaque, &named) != KV_OK || (count > 0 && kv_hash_equal(&named, &found)))
            continue;
        found = named;
        count++;
    }
    if (count == 1)
        *out = found;
    return count == 0 ? KV_NOT_FOUND : count == 1 ? KV_OK : KV_TOO_LARGE;
}
