/* router/json_flat.c -- see json_flat.h. */
#include "json_flat.h"

#include "key.h"

struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

#define EACH_BYTE 0x0101010101010101u
#define HIGH_BITS 0x8080808080808080u

/* High bits of bytes that equal `byte`; above the lowest such byte there may be false ones. */
static uint64_t bytes_equal(uint64_t word, uint8_t byte)
{
    uint64_t zeros = word ^ EACH_BYTE * byte;
    return (zeros - EACH_BYTE) & ~zeros & HIGH_BITS;
}

/* High bits of bytes that end a run of plain ASCII: quote, backslash, control characters, bytes above 0x7f. The lowest is right. */
static uint64_t bytes_special(uint64_t word)
{
    uint64_t control = (word - EACH_BYTE * 0x20) & ~word & HIGH_BITS;
    return control | (word & HIGH_BITS) | bytes_equal(word, '"') | bytes_equal(word, '\\');
}

static void skip_plain(struct cursor *in)
{
    uint64_t word;
    while ((size_t)(in->end - in->at) >= sizeof word) {
        memcpy(&word, in->at, sizeof word);
        uint64_t special = bytes_special(word);
        if (special != 0) {
            in->at += (unsigned)__builtin_ctzll(special) / 8;
            return;
        }
        in->at += sizeof word;
    }
    while (in->at < in->end && bytes_special(*in->at | EACH_BYTE * ' ' << 8) == 0)
        in->at++;
}

static void skip_space(struct cursor *in)
{
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r'))
        in->at++;
}

static bool take(struct cursor *in, uint8_t byte)
{
    skip_space(in);
    if (in->at == in->end || *in->at != byte)
        return false;
    in->at++;
    return true;
}

/* A string up to and with its closing quote, as it stands. */
static bool take_string(struct cursor *in, struct kv_slice *out, bool *escaped)
{
    bool ascii = true;
    if (!take(in, '"'))
        return false;
    const uint8_t *begin = in->at;
    for (*escaped = false;;) {
        skip_plain(in);
        if (in->at == in->end || *in->at < 0x20)
            return false;
        if (*in->at == '"')
            break;
        if (*in->at == '\\') {
            *escaped = true;
            if (++in->at == in->end)
                return false;
        } else {
            ascii = false;
        }
        in->at++;
    }
    *out = kv_slice(begin, (size_t)(in->at++ - begin));
    return ascii || key_is_utf8(*out);
}

/* What the letter behind a backslash means; 0 for `u` and what JSON does not know. */
static uint8_t meaning_of(uint8_t letter)
{
    switch (letter) {
    case '"':
    case '\\':
    case '/':
        return letter;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return 0;
    }
}

/* `text` came from take_string: a byte follows each backslash. */
static bool unescape(struct kv_slice text, struct kv_buf *out)
{
    out->bytes = 0;
    uint8_t *to = kv_buf_reserve(out, text.bytes);
    for (const uint8_t *at = text.data, *end = at + text.bytes; at < end; at++) {
        const uint8_t *slash = memchr(at, '\\', (size_t)(end - at));
        size_t plain = (size_t)((slash != NULL ? slash : end) - at);
        memcpy(to + out->bytes, at, plain);
        out->bytes += plain;
        at += plain;
        if (slash == NULL)
            break;
        to[out->bytes] = meaning_of(*++at);
        if (to[out->bytes++] == 0)
            return false;
    }
    return true;
}

static bool take_member(struct cursor *in, struct json_flat_member *member)
{
    bool escaped;
    if (!take_string(in, &member->name, &escaped) || escaped || !take(in, ':') ||
        !take_string(in, &member->value, &escaped))
        return false;
    if (!escaped)
        return true;
    if (!unescape(member->value, &member->unescaped))
        return false;
    member->value = kv_buf_peek(&member->unescaped);
    return true;
}

bool json_flat_read(struct json_flat *flat, struct kv_slice text, size_t *used)
{
    struct cursor in = {text.data, text.data + text.bytes};
    flat->count = 0;
    if (!take(&in, '{'))
        return false;
    do {
        if (flat->count == JSON_FLAT_MEMBERS_MAX || !take_member(&in, &flat->members[flat->count]))
            return false;
        flat->count++;
    } while (take(&in, ','));
    if (!take(&in, '}'))
        return false;
    *used = (size_t)(in.at - text.data);
    return true;
}

void json_flat_free(struct json_flat *flat)
{
    for (size_t i = 0; i < JSON_FLAT_MEMBERS_MAX; i++)
        kv_buf_free(&flat->members[i].unescaped);
    flat->count = 0;
}
