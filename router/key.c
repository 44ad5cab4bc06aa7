/* router/key.c -- see key.h. Pure; every byte of it faces strangers. */
#include "key.h"

#include "digits.h"
#include "kv/utf8.h"

static const char why_percent[] = "holds a '%' that is not followed by two hex digits";
static const char why_utf8[] = "is not valid UTF-8";
static const char why_zero[] = "holds the character U+0000";

/* `scheme://authority` in front of the path is dropped; a bare `scheme://authority` means "/". */
static enum kv_err skip_authority(struct kv_slice *target)
{
    static const uint8_t slash[] = "/";
    const uint8_t *end = target->data + target->bytes;
    const uint8_t *mark = memmem(target->data, target->bytes, "://", 3);
    if (mark == NULL || mark == target->data)
        return KV_INVALID;
    for (const uint8_t *at = target->data; at < mark; at++)
        if (!((*at | 0x20) >= 'a' && (*at | 0x20) <= 'z') && !(*at >= '0' && *at <= '9') && *at != '+' && *at != '-' &&
            *at != '.')
            return KV_INVALID;
    const uint8_t *path = mark + 3;
    while (path < end && *path != '/' && *path != '?')
        path++;
    if (path == mark + 3)
        return KV_INVALID; /* no authority */
    *target = path < end && *path == '/' ? kv_slice(path, (size_t)(end - path)) : kv_slice(slash, 1);
    return KV_OK;
}

enum kv_err key_target(struct kv_slice request_target, struct key_target *out)
{
    if (request_target.bytes == 0)
        return KV_INVALID;
    if (request_target.data[0] != '/') {
        enum kv_err err = skip_authority(&request_target);
        if (err != KV_OK)
            return err;
    }
    const uint8_t *mark = memchr(request_target.data, '?', request_target.bytes);
    size_t path_bytes = mark == NULL ? request_target.bytes : (size_t)(mark - request_target.data);
    out->path = kv_slice(request_target.data, path_bytes);
    out->query = mark == NULL ? kv_slice(NULL, 0) : kv_slice(mark + 1, request_target.bytes - path_bytes - 1);
    return KV_OK;
}

enum kv_err key_unescape(struct kv_slice encoded, uint8_t *space, size_t space_bytes, struct kv_slice *out)
{
    size_t used = 0;
    for (size_t i = 0; i < encoded.bytes; i++) {
        uint8_t byte = encoded.data[i];
        if (byte == '%') {
            int high = i + 2 < encoded.bytes ? digits_hex_value(encoded.data[i + 1]) : -1;
            int low = high >= 0 ? digits_hex_value(encoded.data[i + 2]) : -1;
            if (low < 0)
                return KV_INVALID;
            byte = (uint8_t)(high << 4 | low);
            i += 2;
        }
        if (used == space_bytes)
            return KV_TOO_LARGE;
        space[used++] = byte;
    }
    *out = kv_slice(space, used);
    return KV_OK;
}

bool key_is_utf8(struct kv_slice bytes)
{
    for (size_t at = 0; at < bytes.bytes;) {
        size_t length = kv_utf8_bytes(bytes.data + at, bytes.bytes - at);
        if (length == 0)
            return false;
        at += length;
    }
    return true;
}

enum kv_err key_check(struct kv_slice key, const char **why)
{
    if (key.bytes == 0)
        return KV_NOT_FOUND;
    if (key.bytes > KV_KEY_BYTES_MAX)
        return KV_TOO_LARGE;
    if (memchr(key.data, 0, key.bytes) != NULL) {
        *why = why_zero;
        return KV_INVALID;
    }
    if (!key_is_utf8(key)) {
        *why = why_utf8;
        return KV_INVALID;
    }
    return KV_OK;
}

enum kv_err key_decode(struct kv_slice path, uint8_t *space, size_t space_bytes, struct kv_slice *out, const char **why)
{
    struct kv_slice key;
    enum kv_err err = key_unescape(kv_slice(path.data + 1, path.bytes - 1), space, space_bytes, &key);
    if (err == KV_INVALID)
        *why = why_percent;
    if (err == KV_OK)
        err = key_check(key, why);
    if (err == KV_OK)
        *out = key;
    return err;
}
