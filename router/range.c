/* router/range.c -- see range.h. Numbers that overflow saturate: beyond every size is beyond every size. */
#include "range.h"

#include <strings.h>

#include "list.h"

/* Reads digits off the front of `text`; false when there are none. */
static bool take_number(struct kv_slice *text, uint64_t *out)
{
    uint64_t number = 0;
    size_t digits = 0;
    for (; digits < text->bytes && text->data[digits] >= '0' && text->data[digits] <= '9'; digits++)
        if (__builtin_mul_overflow(number, (uint64_t)10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(text->data[digits] - '0'), &number))
            number = UINT64_MAX;
    *text = kv_slice(text->data + digits, text->bytes - digits);
    *out = number;
    return digits > 0;
}

/* `-500`: the last 500 bytes. */
static enum range_kind parse_suffix(struct kv_slice text, uint64_t size, struct range *out)
{
    uint64_t bytes;
    if (!take_number(&text, &bytes) || text.bytes != 0)
        return RANGE_WHOLE;
    if (bytes == 0)
        return RANGE_UNSATISFIABLE;
    if (size == 0)
        return RANGE_WHOLE; /* satisfiable by RFC 9110, but no Content-Range can say so */
    bytes = bytes < size ? bytes : size;
    *out = (struct range){size - bytes, bytes};
    return RANGE_PART;
}

static enum range_kind parse_one(struct kv_slice text, uint64_t size, struct range *out)
{
    uint64_t first, last = UINT64_MAX;
    if (text.bytes > 0 && text.data[0] == '-')
        return parse_suffix(kv_slice(text.data + 1, text.bytes - 1), size, out);
    if (!take_number(&text, &first) || text.bytes == 0 || text.data[0] != '-')
        return RANGE_WHOLE;
    text = kv_slice(text.data + 1, text.bytes - 1);
    if (text.bytes != 0 && (!take_number(&text, &last) || text.bytes != 0 || last < first))
        return RANGE_WHOLE;
    if (first >= size)
        return RANGE_UNSATISFIABLE;
    last = last < size ? last : size - 1;
    *out = (struct range){first, last - first + 1};
    return RANGE_PART;
}

enum range_kind range_parse(struct kv_slice value, uint64_t size, struct range *out)
{
    static const char unit[] = "bytes=";
    struct kv_slice element, only = {NULL, 0};
    value = list_trim(value);
    if (value.bytes < sizeof(unit) - 1 || strncasecmp((const char *)value.data, unit, sizeof(unit) - 1) != 0)
        return RANGE_WHOLE;
    value = kv_slice(value.data + sizeof(unit) - 1, value.bytes - (sizeof(unit) - 1));
    while (list_next(&value, ',', &element)) {
        if (element.bytes == 0)
            continue;
        if (only.bytes != 0)
            return RANGE_WHOLE;
        only = element;
    }
    return only.bytes == 0 ? RANGE_WHOLE : parse_one(only, size, out);
}
