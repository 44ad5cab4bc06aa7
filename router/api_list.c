/* router/api_list.c -- GET /keys: one page of the keys, in byte order.
 * Does:     checks the parameters, asks the backend for the page, writes it as JSON.
 * Decides:  parameters are decoded once, as forms are: `+` is a space, which is what `curl -G --data-urlencode` and every
 *           library's query builder make of one; a plus is `%2B`. (In a path `+` is a plus.) Empty `prefix` and `after` are
 *           as good as none; an empty piece between two `&` is passed over; an unknown or repeated parameter is 400. Keys
 *           and shared prefixes count alike for `limit` and `offset`. `next` is the greatest of what the page holds.
 * Tests:    http/test_http_list.c, system/test_list.c. */
#include "admit.h"
#include "answer.h"
#include "api.h"
#include "h2o_guard.h"
#include "json.h"
#include "key.h"
#include "kv/log.h"
#include "list.h"
#include "printable.h"
#include "thread.h"

#define LIMIT_DEFAULT 100u
#define OFFSET_MAX ((uint64_t)1 << 53)        /* what JSON numbers hold everywhere */
#define ENTRY_BYTES (KV_KEY_BYTES_MAX + 512u) /* of a page in memory; JSON may take more for keys that nobody has */

struct listing {
    struct exchange *exchange;
    struct guard_share share;  /* of the memory that answers may take: of a full page until its size is known */
    struct backend_list asked; /* slices live in the exchange */
    bool has_delimiter;
};

/* Each returns NULL or why the value is refused, to follow the name of the parameter. */
typedef const char *(*parameter_read)(struct listing *listing, struct kv_slice value);

/* ---- parameters --------------------------------------------------------------------------------------------------- */

static bool read_number(struct kv_slice text, uint64_t max, uint64_t *out)
{
    uint64_t number = 0;
    for (size_t i = 0; i < text.bytes; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || number > max)
            return false;
        number = 10 * number + (uint64_t)(text.data[i] - '0');
    }
    *out = number;
    return text.bytes > 0 && number <= max;
}

static const char *read_limit(struct listing *listing, struct kv_slice value)
{
    bool good = read_number(value, KV_LIST_LIMIT_MAX, &listing->asked.limit) && listing->asked.limit >= 1;
    return good ? NULL : "is not a number from 1 to 1000";
}

static const char *read_offset(struct listing *listing, struct kv_slice value)
{
    return read_number(value, OFFSET_MAX, &listing->asked.offset) ? NULL : "is not a number from 0 to 2^53";
}

/* Part of a key, which may be empty. */
static const char *read_text(struct kv_slice value, struct kv_slice *out)
{
    if (value.bytes > KV_KEY_BYTES_MAX)
        return "is longer than 4096 bytes";
    if (!key_is_utf8(value) || (value.bytes > 0 && memchr(value.data, 0, value.bytes) != NULL))
        return "is not UTF-8, or holds U+0000";
    *out = value;
    return NULL;
}

static const char *read_prefix(struct listing *listing, struct kv_slice value)
{
    return read_text(value, &listing->asked.prefix);
}

static const char *read_after(struct listing *listing, struct kv_slice value)
{
    return read_text(value, &listing->asked.after);
}

static const char *read_delimiter(struct listing *listing, struct kv_slice value)
{
    size_t characters = 0;
    for (size_t i = 0; i < value.bytes; i++)
        characters += (value.data[i] & 0xc0) != 0x80; /* all bytes but the continuations of a UTF-8 sequence */
    const char *why = read_text(value, &listing->asked.delimiter);
    listing->has_delimiter = true;
    return why == NULL && characters != 1 ? "is not one character" : why;
}

static const struct parameter {
    const char *name;
    parameter_read read;
} parameters[] = {{"limit", read_limit},
                  {"offset", read_offset},
                  {"prefix", read_prefix},
                  {"after", read_after},
                  {"delimiter", read_delimiter}};

enum { PARAMETER_COUNT = sizeof(parameters) / sizeof(parameters[0]) };

static void refuse(struct exchange *exchange, struct kv_slice name, const char *why)
{
    char shown[PRINTABLE_NAME_BYTES];
    printable_copy(name, shown, sizeof(shown));
    answer_error(exchange, 400, "invalid_request", "The parameter \"%s\" %s.", shown, why);
}

static struct kv_slice unescape(struct exchange *exchange, struct kv_slice encoded, bool *good)
{
    struct kv_slice out = {NULL, 0};
    uint8_t *spaced = http_alloc(exchange, encoded.bytes + 1);
    for (size_t i = 0; i < encoded.bytes; i++)
        spaced[i] = encoded.data[i] == '+' ? ' ' : encoded.data[i];
    *good = key_unescape(kv_slice(spaced, encoded.bytes), http_alloc(exchange, encoded.bytes + 1), encoded.bytes,
                         &out) == KV_OK;
    return out;
}

/* Answers and returns false when the parameter is not what it should be. `seen`: one flag for each. */
static bool take_parameter(struct listing *listing, struct kv_slice encoded, bool *seen)
{
    struct exchange *exchange = listing->exchange;
    const uint8_t *mark = encoded.bytes == 0 ? NULL : memchr(encoded.data, '=', encoded.bytes);
    size_t name_bytes = mark == NULL ? encoded.bytes : (size_t)(mark - encoded.data);
    struct kv_slice rest = mark == NULL ? kv_slice(NULL, 0) : kv_slice(mark + 1, encoded.bytes - name_bytes - 1);
    bool good_name, good_value;
    struct kv_slice name = unescape(exchange, kv_slice(encoded.data, name_bytes), &good_name);
    struct kv_slice value = unescape(exchange, rest, &good_value);
    const char *why = "does not exist: there are limit, offset, prefix, after and delimiter";
    size_t i = 0;
    while (i < PARAMETER_COUNT && !(good_name && kv_slice_equal(name, kv_slice_text(parameters[i].name))))
        i++;
    if (i < PARAMETER_COUNT && seen[i])
        why = "comes twice";
    else if (i < PARAMETER_COUNT)
        why = good_value ? parameters[i].read(listing, value) : "holds a '%' that is not followed by two hex digits";
    if (i < PARAMETER_COUNT)
        seen[i] = true;
    if (why != NULL)
        refuse(exchange, good_name ? name : kv_slice(encoded.data, name_bytes), why);
    return why == NULL;
}

static bool take_parameters(struct listing *listing)
{
    bool seen[PARAMETER_COUNT] = {false};
    struct kv_slice rest = listing->exchange->query;
    while (rest.bytes > 0) {
        const uint8_t *mark = memchr(rest.data, '&', rest.bytes);
        size_t piece_bytes = mark == NULL ? rest.bytes : (size_t)(mark - rest.data);
        if (piece_bytes > 0 && !take_parameter(listing, kv_slice(rest.data, piece_bytes), seen))
            return false;
        size_t passed = mark == NULL ? piece_bytes : piece_bytes + 1;
        rest = kv_slice(rest.data + passed, rest.bytes - passed);
    }
    return true;
}

/* ---- the page ----------------------------------------------------------------------------------------------------- */

static void write_key(struct kv_buf *out, const struct backend_list_entry *entry, bool with_refs)
{
    json_raw(out, "{\"key\":");
    json_text(out, entry->key);
    json_raw(out, ",\"size\":");
    json_number(out, entry->row.size);
    json_raw(out, ",\"hash\":");
    json_hash(out, &entry->row.hash);
    json_raw(out, ",\"hash_algorithm\":\"sha256\"");
    if (with_refs) {
        json_raw(out, ",\"refs\":");
        json_number(out, entry->refs);
    }
    json_raw(out, ",\"created_at\":");
    json_number(out, entry->row.created_s);
    json_raw(out, ",\"content_type\":");
    json_header_text(out, entry->row.content_type);
    json_raw(out, "}");
}

static void on_room(struct guard_share *share);

/* The entries of one kind, in order. */
static void write_entries(struct kv_buf *out, const struct listing *listing, const struct backend_list_entry *entries,
                          size_t count, bool prefixes)
{
    bool first = true;
    json_raw(out, "[");
    for (size_t i = 0; i < count; i++) {
        if (entries[i].is_prefix != prefixes)
            continue;
        if (!first)
            json_raw(out, ",");
        first = false;
        if (prefixes)
            json_text(out, entries[i].key);
        else
            write_key(out, &entries[i], grant_sees_all(&listing->exchange->grant));
    }
    json_raw(out, "]");
}

static void on_list(void *arg, enum kv_err err, const struct backend_list_entry *entries, size_t count, bool more,
                    uint64_t total)
{
    struct listing *listing = arg;
    struct exchange *exchange = listing->exchange;
    struct kv_buf out = {0};
    exchange->call = NULL;
    if (err != KV_OK) {
        answer_failure(exchange, err);
        return;
    }
    json_raw(&out, "{\"keys\":");
    write_entries(&out, listing, entries, count, false);
    if (listing->has_delimiter) {
        json_raw(&out, ",\"prefixes\":");
        write_entries(&out, listing, entries, count, true);
    }
    if (listing->asked.prefix.bytes == 0) {
        json_raw(&out, ",\"total\":");
        json_number(&out, total);
    }
    if (more) {
        kv_assert(count > 0);
        json_raw(&out, ",\"next\":");
        json_text(&out, entries[count - 1].key);
    }
    json_raw(&out, "}");
    if (out.bytes < listing->share.bytes)
        h2o_guard_share_change(&listing->share, out.bytes, on_room);
    answer_body(exchange, 200, "application/json", kv_buf_peek(&out));
    kv_buf_free(&out);
}

/* A token for a part of the keys lists that part, and asks for it: a page that silently left the others out would say that
 * there are none. */
static bool is_within_prefix(const struct listing *listing)
{
    struct exchange *exchange = listing->exchange;
    bool within = kv_slice_starts_with(listing->asked.prefix, exchange->grant.prefix);
    if (!within)
        admit_forbid(exchange,
                     "This token lists keys with its own prefix only: the parameter prefix must begin with it.");
    return within;
}

static void on_room(struct guard_share *share)
{
    struct listing *listing = H2O_STRUCT_FROM_MEMBER(struct listing, share, share);
    struct exchange *exchange = listing->exchange;
    exchange->call = backend_list(exchange->thread->backend, &listing->asked, on_list, listing);
}

static void on_gone(void *state)
{
    struct listing *listing = state;
    h2o_guard_share_end(&listing->share);
}

void api_list(struct exchange *exchange)
{
    struct listing *listing = http_alloc(exchange, sizeof(*listing));
    *listing = (struct listing){.exchange = exchange, .asked = {.limit = LIMIT_DEFAULT}};
    exchange->state = listing;
    exchange->on_gone = on_gone;
    if (take_parameters(listing) && is_within_prefix(listing))
        h2o_guard_share_take(&listing->share, exchange->req, listing->asked.limit * ENTRY_BYTES, on_room);
}
