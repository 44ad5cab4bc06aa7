/* router/h2o_guard_chunk.c -- see h2o_guard.h. This file: bodies in chunks, in HTTP/1.
 * libh2o's decoder passes over everything between a chunk's size and the next line feed: `0x3` is the size 0 to it and 3 to others,
 * and a line feed alone ends a line for it, but not for others. Whoever stands in front may so see other borders between requests
 * than we do. Here is a decoder that takes what RFC 9112, 7.1 has and nothing else: lines end with CR LF, what follows a size is an
 * extension (`;`, maybe behind blanks). It works in place and in pieces, as the library's does. */
#include <string.h>

#include "digits.h"
#include "h2o_guard_internal.h"

enum { SIZE_DIGITS_MAX = 16 };

enum state {
    IN_SIZE,
    IN_EXTENSION,
    IN_DATA, /* the library has the same number for it */
    BEHIND_SIZE,
    BEHIND_DATA,
    BEHIND_DATA_CR,
    BEFORE_TRAILER,
    IN_TRAILER,
    BEHIND_TRAILER,
    BEFORE_END,
    AT_END,
    IS_MALFORMED,
};

static bool is_text(uint8_t byte)
{
    return (byte >= ' ' && byte != 0x7f) || byte == '\t';
}

static enum state size_goes_on(struct guard_chunks *chunks, uint8_t byte)
{
    int digit = digits_hex_value(byte);
    if (digit >= 0 && chunks->digits < SIZE_DIGITS_MAX) {
        chunks->left = chunks->left << 4 | (size_t)digit;
        chunks->digits++;
        return IN_SIZE;
    }
    if (digit >= 0 || chunks->digits == 0)
        return IS_MALFORMED;
    return byte == '\r' ? BEHIND_SIZE : byte == ';' || byte == ' ' || byte == '\t' ? IN_EXTENSION : IS_MALFORMED;
}

static enum state size_is_over(struct guard_chunks *chunks)
{
    chunks->digits = 0;
    return chunks->left > 0 ? IN_DATA : chunks->consume_trailer != 0 ? BEFORE_TRAILER : AT_END;
}

/* Of a line that goes on until CR LF. */
static enum state line_goes_on(enum state in_line, enum state behind_cr, uint8_t byte)
{
    return byte == '\r' ? behind_cr : is_text(byte) ? in_line : IS_MALFORMED;
}

static enum state next(struct guard_chunks *chunks, uint8_t byte)
{
    switch ((enum state)chunks->state) {
    case IN_SIZE:
        return size_goes_on(chunks, byte);
    case IN_EXTENSION:
        return line_goes_on(IN_EXTENSION, BEHIND_SIZE, byte);
    case BEHIND_SIZE:
        return byte == '\n' ? size_is_over(chunks) : IS_MALFORMED;
    case BEHIND_DATA:
        return byte == '\r' ? BEHIND_DATA_CR : IS_MALFORMED;
    case BEHIND_DATA_CR:
        return byte == '\n' ? IN_SIZE : IS_MALFORMED;
    case BEFORE_TRAILER:
        return line_goes_on(IN_TRAILER, BEFORE_END, byte);
    case IN_TRAILER:
        return line_goes_on(IN_TRAILER, BEHIND_TRAILER, byte);
    case BEHIND_TRAILER:
        return byte == '\n' ? BEFORE_TRAILER : IS_MALFORMED;
    case BEFORE_END:
        return byte == '\n' ? AT_END : IS_MALFORMED;
    case IN_DATA:
    case AT_END:
    case IS_MALFORMED:
        break;
    }
    return IS_MALFORMED;
}

/* Moves data to where the body goes on; returns how many bytes. */
static size_t take_data(struct guard_chunks *chunks, char *to, const char *from, size_t bytes)
{
    size_t taken = bytes < chunks->left ? bytes : chunks->left;
    if (to != from)
        memmove(to, from, taken);
    chunks->left -= taken;
    if (chunks->left == 0)
        chunks->state = BEHIND_DATA;
    return taken;
}

static ssize_t decode(struct guard_chunks *chunks, char *buf, size_t *bytes)
{
    size_t from = 0, to = 0;
    while (from < *bytes && chunks->state < AT_END) {
        if (chunks->state == IN_DATA) {
            size_t taken = take_data(chunks, buf + to, buf + from, *bytes - from);
            from += taken;
            to += taken;
        } else {
            chunks->state = (char)next(chunks, (uint8_t)buf[from++]);
        }
    }
    size_t behind = *bytes - from;
    memmove(buf + to, buf + from, behind);
    *bytes = to;
    return chunks->state == AT_END ? (ssize_t)behind : chunks->state == IS_MALFORMED ? -1 : -2;
}

/* How many bytes are left behind the body; -1: malformed; -2: it goes on. `*bytes`: in, what came; out, what of it is body. */
ssize_t phr_decode_chunked(struct guard_chunks *chunks, char *buf, size_t *bytes)
{
    bool ours = guard_own_thread() != NULL && h2o_guard_is_on();
    return ours ? decode(chunks, buf, bytes) : guard_head_library.decode_chunked(chunks, buf, bytes);
}
