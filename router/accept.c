/* router/accept.c -- see accept.h. Qualities are counted in thousandths. */
#include "accept.h"

#include "list.h"

enum { QUALITY_FULL = 1000 };

/* `0`, `0.5`, `1.000`: -1 when it is anything else. */
static int parse_quality(struct kv_slice text)
{
    if (text.bytes == 0 || text.bytes > 5 || text.data[0] < '0' || text.data[0] > '1')
        return -1;
    int quality = (text.data[0] - '0') * QUALITY_FULL;
    if (text.bytes > 1 && text.data[1] != '.')
        return -1;
    int unit = QUALITY_FULL / 10;
    for (size_t i = 2; i < text.bytes; i++, unit /= 10) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return -1;
        quality += (text.data[i] - '0') * unit;
    }
    return quality <= QUALITY_FULL ? quality : -1;
}

/* Splits `name;a=b;q=0.5` into the name and its quality; -1: malformed. */
static int split_quality(struct kv_slice element, struct kv_slice *name)
{
    int quality = QUALITY_FULL;
    struct kv_slice parameter;
    if (!list_next(&element, ';', name) || name->bytes == 0)
        return -1;
    while (list_next(&element, ';', &parameter))
        if (parameter.bytes >= 2 && (parameter.data[0] | 0x20) == 'q' && parameter.data[1] == '=')
            quality = parse_quality(kv_slice(parameter.data + 2, parameter.bytes - 2));
    return quality;
}

struct preference {
    int quality;
    int exactness; /* 0: not acceptable, 1: any type, 2: any subtype, 3: named */
};

static void prefer(struct preference *preference, int quality, int exactness)
{
    if (exactness > preference->exactness)
        *preference = (struct preference){quality, exactness};
}

bool accept_prefers_json(struct kv_slice accept)
{
    struct preference json = {0, 0};
    struct preference text = {0, 0};
    struct kv_slice element, name;
    while (list_next(&accept, ',', &element)) {
        int quality = split_quality(element, &name);
        if (quality < 0)
            continue;
        if (list_is(name, "*/*")) {
            prefer(&json, quality, 1);
            prefer(&text, quality, 1);
        } else if (list_is(name, "application/*") || list_is(name, "application/json")) {
            prefer(&json, quality, list_is(name, "application/json") ? 3 : 2);
        } else if (list_is(name, "text/*") || list_is(name, "text/plain")) {
            prefer(&text, quality, list_is(name, "text/plain") ? 3 : 2);
        }
    }
    if (json.quality != text.quality)
        return json.quality > text.quality;
    return json.quality > 0 && json.exactness > 1;
}

bool accept_prefers_zstd(struct kv_slice accept_encoding)
{
    int zstd = 0;
    int identity = 0; /* unless named, identity is what is left over */
    struct kv_slice element, name;
    while (list_next(&accept_encoding, ',', &element)) {
        int quality = split_quality(element, &name);
        if (quality >= 0 && list_is(name, "zstd"))
            zstd = quality;
        if (quality >= 0 && list_is(name, "identity"))
            identity = quality;
    }
    return zstd > 0 && zstd >= identity;
}
