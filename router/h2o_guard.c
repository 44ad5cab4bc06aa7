/* router/h2o_guard.c -- see h2o_guard.h. This file: functions that win over libh2o's of the same name.
 * The library calls them through its linkage table, which the dynamic linker fills with the executable's own first. Each looks
 * or corrects, and leaves the work to the original. h2o_guard_check makes sure that it is so. */
#include "h2o_guard.h"

#include <dlfcn.h>
#include <elf.h>
#include <h2o/http2.h>
#include <h2o/http2_internal.h>
#include <link.h>
#include <malloc.h>
#include <stdatomic.h>
#include <utlist.h>

#include "h2o_guard_internal.h"
#include "hpack.h"
#include "kv/log.h"
#include "thread.h"

#if H2O_VERSION_MAJOR != 2 || H2O_VERSION_MINOR != 2 || H2O_VERSION_PATCH != 5
#error "The guard knows libh2o 2.2.5 only: look at each of its functions before it stands before another version."
#endif

enum {
    CONTINUATIONS_MAX = 10000, /* complete ones at one place of one buffer, in a row: the library does not move on */
    SETTING_BYTES = 6,         /* RFC 9113, 6.5.1: two of its name, four of its value */
};

static struct {
    void (*send_pending_data)(h2o_http2_conn_t *conn, h2o_http2_stream_t *stream);
    void (*reset)(h2o_http2_conn_t *conn, h2o_http2_stream_t *stream);
    h2o_http2_stream_t *(*open)(h2o_http2_conn_t *conn, uint32_t stream_id, h2o_req_t *src_req,
                                const h2o_http2_priority_t *received_priority);
    void (*close)(h2o_http2_conn_t *conn, h2o_http2_stream_t *stream);
    int (*parse_headers)(h2o_req_t *req, h2o_hpack_header_table_t *table, const uint8_t *src, size_t len, int *exists,
                         size_t *content_length, h2o_cache_digests_t **digests, const char **err_desc);
    ssize_t (*decode_frame)(h2o_http2_frame_t *frame, const uint8_t *src, size_t len,
                            const h2o_http2_settings_t *settings, const char **err_desc);
    int (*update_settings)(h2o_http2_settings_t *settings, const uint8_t *src, size_t len, const char **err_desc);
} library;

static atomic_bool is_off;

static __thread struct {
    struct router_thread *thread; /* NULL: not a loop's */
    const uint8_t *src;           /* of the last CONTINUATION */
    size_t len;
    unsigned repeats;
} own;

bool h2o_guard_is_on(void)
{
    return !atomic_load_explicit(&is_off, memory_order_relaxed);
}

#ifdef KV_TESTS
void h2o_guard_disable(void)
{
    is_off = true;
}
#endif

struct router_thread *guard_own_thread(void)
{
    return own.thread;
}

static void count(enum metrics_counter counter)
{
    if (own.thread != NULL && own.thread->metrics != NULL)
        metrics_add(own.thread->metrics, counter, 1);
}

/* ---- the abort of issue #1951 ------------------------------------------------------------------------------------- */

/* update_stream_output_window asserts that a stream whose window opens is not waiting to be closed already. A window that no
 * update can open never gets there: frames add at most 2^31 each. The stream has nothing left to send. */
static void never_open(h2o_http2_stream_t *stream)
{
    stream->output_window._avail = INT64_MIN / 2;
}

void h2o_http2_stream_send_pending_data(h2o_http2_conn_t *conn, h2o_http2_stream_t *stream)
{
    library.send_pending_data(conn, stream);
    if (stream->state == H2O_HTTP2_STREAM_STATE_END_STREAM && h2o_guard_is_on())
        never_open(stream);
}

/* May free the stream: so it is done before. */
void h2o_http2_stream_reset(h2o_http2_conn_t *conn, h2o_http2_stream_t *stream)
{
    if (h2o_guard_is_on())
        never_open(stream);
    library.reset(conn, stream);
}

/* ---- streams ------------------------------------------------------------------------------------------------------ */

/* NULL: a test without the guard's door, or a connection that is just changing from HTTP/1. */
static struct guarded *guarded_of(const h2o_http2_conn_t *conn)
{
    return own.thread == NULL || conn->sock == NULL ? NULL : conn->sock->on_close.data;
}

h2o_http2_stream_t *h2o_http2_stream_open(h2o_http2_conn_t *conn, uint32_t stream_id, h2o_req_t *src_req,
                                          const h2o_http2_priority_t *received_priority)
{
    struct guarded *guarded = guarded_of(conn);
    if (guarded != NULL)
        h2o_guard_stream_opened(guarded);
    return library.open(conn, stream_id, src_req, received_priority);
}

/* A request that is taken back while it is still arriving never reaches a handler, where the others are charged. */
void h2o_http2_stream_close(h2o_http2_conn_t *conn, h2o_http2_stream_t *stream)
{
    struct guarded *guarded = guarded_of(conn);
    bool unfinished =
        stream->state == H2O_HTTP2_STREAM_STATE_RECV_HEADERS || stream->state == H2O_HTTP2_STREAM_STATE_RECV_BODY;
    if (guarded != NULL)
        h2o_guard_stream_closed(guarded, unfinished && conn->state < H2O_HTTP2_CONN_STATE_IS_CLOSING);
    library.close(conn, stream);
}

/* ---- header blocks ------------------------------------------------------------------------------------------------ */

/* RFC 7541, 5.1. False: it ends too early or is larger than any length can be. */
static bool skip_number(const uint8_t **at, const uint8_t *end, unsigned prefix_bits, size_t *out)
{
    const size_t prefix_max = ((size_t)1 << prefix_bits) - 1;
    if (*at == end)
        return false;
    *out = *(*at)++ & prefix_max;
    if (*out < prefix_max)
        return true;
    for (unsigned shift = 0; *at < end && shift < 28; shift += 7) {
        uint8_t byte = *(*at)++;
        *out += (size_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool skip_string(const uint8_t **at, const uint8_t *end)
{
    size_t bytes;
    if (!skip_number(at, end, 7, &bytes) || bytes > (size_t)(end - *at))
        return false;
    *at += bytes;
    return true;
}

/* RFC 7541, 6: a field or a change of the table's size. */
static bool skip_field(const uint8_t **at, const uint8_t *end)
{
    uint8_t first = **at;
    unsigned prefix_bits = first >= 0x80 ? 7 : first >= 0x40 ? 6 : first >= 0x20 ? 5 : 4;
    size_t index;
    if (!skip_number(at, end, prefix_bits, &index))
        return false;
    if (prefix_bits == 7 || prefix_bits == 5)
        return true;
    return (index != 0 || skip_string(at, end)) && skip_string(at, end);
}

/* What is malformed from some point on has been counted up to there: the library takes no more of it either. */
static bool has_too_many_fields(const uint8_t *src, size_t len)
{
    const uint8_t *end = src + len;
    unsigned fields = 0;
    if (len <= H2O_GUARD_FIELDS_MAX)
        return false; /* a field takes a byte at least */
    while (src < end && fields <= H2O_GUARD_FIELDS_MAX && skip_field(&src, end))
        fields++;
    return fields > H2O_GUARD_FIELDS_MAX;
}

/* One byte of a block may stand for a field that costs the library a hundred. The connection ends, since the block cannot be
 * skipped: the tables of both sides would differ. Cache-Digest is for server push, which is not done here: not decoded.
 * Trailers, for which the library asks without a map, are dropped as in HTTP/1 (RFC 9110, 6.5.1): it would add them to the
 * headers, so that a token or a condition counted that whoever stands in front of us never saw. */
int h2o_hpack_parse_headers(h2o_req_t *req, h2o_hpack_header_table_t *header_table, const uint8_t *src, size_t len,
                            int *pseudo_header_exists_map, size_t *content_length, h2o_cache_digests_t **digests,
                            const char **err_desc)
{
    if (!h2o_guard_is_on())
        return library.parse_headers(req, header_table, src, len, pseudo_header_exists_map, content_length, digests,
                                     err_desc);
    struct guarded *guarded = h2o_guard_of(req);
    if (guarded != NULL && guarded->cut) { /* a burst that came before its end was seen: none of it is begun */
        *err_desc = "a budget is used up";
        return H2O_HTTP2_ERROR_ENHANCE_YOUR_CALM;
    }
    if (guarded != NULL && len > H2O_GUARD_BLOCK_BYTES_FREE && !h2o_guard_headers_taken(guarded, req, len)) {
        *err_desc = "too many large header blocks";
        return H2O_HTTP2_ERROR_ENHANCE_YOUR_CALM;
    }
    if (own.thread != NULL && (len > own.thread->server->settings->header_bytes_max || has_too_many_fields(src, len))) {
        count(METRICS_HEADER_BLOCKS_REFUSED);
        *err_desc = "header block too large";
        return H2O_HTTP2_ERROR_ENHANCE_YOUR_CALM;
    }
    const size_t headers = req->headers.size;
    int result =
        library.parse_headers(req, header_table, src, len, pseudo_header_exists_map, content_length, NULL, err_desc);
    if (pseudo_header_exists_map == NULL)
        req->headers.size = headers;
    return result;
}

/* ---- frames ------------------------------------------------------------------------------------------------------- */

/* The library prints a line for each frame of an unknown type, which RFC 9113, 5.5 wants ignored: it sees a PING's answer
 * instead, which it passes over in silence. */
static void make_ignored(h2o_http2_frame_t *frame)
{
    static const uint8_t nothing[8];
    *frame = (h2o_http2_frame_t){.length = sizeof(nothing),
                                 .type = H2O_HTTP2_FRAME_TYPE_PING,
                                 .flags = H2O_HTTP2_FRAME_FLAG_ACK,
                                 .payload = nothing};
}

/* After GOAWAY the library takes the same CONTINUATION again and again, without end; and it takes any number of empty ones. */
static bool is_endless(const h2o_http2_frame_t *frame, const uint8_t *src, size_t len)
{
    bool again = own.src == src && own.len == len;
    own.repeats = again ? own.repeats + 1 : 0;
    own.src = src;
    own.len = len;
    return own.repeats > CONTINUATIONS_MAX ||
           (frame->length == 0 && (frame->flags & H2O_HTTP2_FRAME_FLAG_END_HEADERS) == 0);
}

ssize_t h2o_http2_decode_frame(h2o_http2_frame_t *frame, const uint8_t *src, size_t len,
                               const h2o_http2_settings_t *settings, const char **err_desc)
{
    ssize_t result = library.decode_frame(frame, src, len, settings, err_desc);
    if (result < 0 || frame->type < H2O_HTTP2_FRAME_TYPE_CONTINUATION || !h2o_guard_is_on())
        return result;
    if (frame->type > H2O_HTTP2_FRAME_TYPE_CONTINUATION) {
        count(METRICS_FRAMES_IGNORED);
        make_ignored(frame);
    } else if (is_endless(frame, src, len)) {
        count(METRICS_CONTINUATIONS_REFUSED);
        own.src = NULL;
        *err_desc = "endless CONTINUATION";
        return H2O_HTTP2_ERROR_PROTOCOL;
    }
    return result;
}

/* The library keeps the last size of the client's table only, hpack.c wants all. Both of its calls come with a connection's
 * settings. A size that is followed by a mistake does no harm: the connection ends. */
int h2o_http2_update_peer_settings(h2o_http2_settings_t *settings, const uint8_t *src, size_t len,
                                   const char **err_desc)
{
    h2o_http2_conn_t *conn = H2O_STRUCT_FROM_MEMBER(h2o_http2_conn_t, peer_settings, settings);
    for (size_t at = 0; at + SETTING_BYTES <= len; at += SETTING_BYTES)
        if ((src[at] << 8 | src[at + 1]) == H2O_HTTP2_SETTINGS_HEADER_TABLE_SIZE)
            hpack_resized(&conn->_output_header_table, h2o_http2_decode32u(src + at + 2));
    return library.update_settings(settings, src, len, err_desc);
}

/* ---- is it so ----------------------------------------------------------------------------------------------------- */

static const struct hook {
    const char *symbol;
    const void *ours;
    void **original;
} hooks[] = {
#define HOOK(symbol, member)                                                                                           \
    {                                                                                                                  \
#symbol, (const void *)(symbol), (void **)&member                                                              \
    }
    HOOK(h2o_http2_stream_send_pending_data, library.send_pending_data),
    HOOK(h2o_http2_stream_reset, library.reset),
    HOOK(h2o_http2_stream_open, library.open),
    HOOK(h2o_http2_stream_close, library.close),
    HOOK(h2o_hpack_parse_headers, library.parse_headers),
    HOOK(h2o_http2_decode_frame, library.decode_frame),
    HOOK(h2o_http2_update_peer_settings, library.update_settings),
    HOOK(phr_parse_request, guard_head_library.parse_request),
    HOOK(phr_decode_chunked, guard_head_library.decode_chunked),
    HOOK(h2o_send_error_generic, guard_head_library.send_error),
#undef HOOK
};
enum { HOOK_COUNT = sizeof(hooks) / sizeof(hooks[0]) };

/* Before main: a program that never calls h2o_guard_check (a test of something else) must not jump to nowhere. */
__attribute__((constructor)) static void find_originals(void)
{
    for (size_t i = 0; i < HOOK_COUNT; i++)
        *hooks[i].original = dlsym(RTLD_NEXT, hooks[i].symbol);
}

/* A dynamic table by its tag; glibc has made addresses absolute already. */
static ElfW(Addr) dynamic(const struct link_map *map, ElfW(Sxword) tag)
{
    for (const ElfW(Dyn) *entry = map->l_ld; entry->d_tag != DT_NULL; entry++)
        if (entry->d_tag == tag)
            return entry->d_un.d_ptr;
    return 0;
}

/* Whether a library leaves its calls to `symbol` to the dynamic linker: a relocation of its linkage table names it. */
static bool calls_through_table(const struct link_map *map, const char *symbol)
{
    const ElfW(Rela) *relocations = (const ElfW(Rela) *)dynamic(map, DT_JMPREL);
    const ElfW(Sym) *symbols = (const ElfW(Sym) *)dynamic(map, DT_SYMTAB);
    const char *names = (const char *)dynamic(map, DT_STRTAB);
    size_t count_all = dynamic(map, DT_PLTRELSZ) / sizeof(*relocations);
    if (relocations == NULL || symbols == NULL || names == NULL)
        return false;
    for (size_t i = 0; i < count_all; i++)
        if (strcmp(names + symbols[ELF64_R_SYM(relocations[i].r_info)].st_name, symbol) == 0)
            return true;
    return false;
}

bool h2o_guard_catches(const char *symbol, const void *ours)
{
    const void *original = dlsym(RTLD_NEXT, symbol);
    struct link_map *map = NULL;
    Dl_info info;
    if (original == NULL || original == ours || dlsym(RTLD_DEFAULT, symbol) != ours)
        return false;
    return dladdr1(original, &info, (void **)&map, RTLD_DL_LINKMAP) != 0 && calls_through_table(map, symbol);
}

bool h2o_guard_knows(const char *name, size_t bytes)
{
    static const char known[] = "h2o/" H2O_GUARD_VERSION;
    return bytes == sizeof(known) - 1 && memcmp(name, known, bytes) == 0;
}

/* The library has no function that tells its version; what it would say of itself to clients does. */
static bool check_version(char *why, size_t why_bytes)
{
    h2o_globalconf_t config;
    h2o_config_init(&config);
    h2o_iovec_t name = config.server_name;
    bool known = h2o_guard_knows(name.base, name.len);
    if (!known)
        snprintf(why, why_bytes,
                 "this libh2o calls itself %.*s, but router/h2o_guard.c was made for h2o/" H2O_GUARD_VERSION
                 " only: nobody has looked yet whether it closes the holes of another version",
                 (int)name.len, name.base);
    h2o_config_dispose(&config);
    return known;
}

enum kv_err h2o_guard_check(char *why, size_t why_bytes)
{
    if (!check_version(why, why_bytes))
        return KV_INVALID;
    for (size_t i = 0; i < HOOK_COUNT; i++) {
        if (h2o_guard_catches(hooks[i].symbol, hooks[i].ours))
            continue;
        snprintf(
            why, why_bytes,
            "calls of this libh2o to %s do not arrive in router/h2o_guard.c: it is another build than Debian's, and "
            "any client could bring it down",
            hooks[i].symbol);
        return KV_INVALID;
    }
    return KV_OK;
}

/* What the socket keeps of TLS is libh2o's secret, but not where: the one buffer in there that is read into is the encrypted input. */
static bool is_input_of(const h2o_socket_t *socket, h2o_buffer_t **inbuf)
{
    uintptr_t ssl = (uintptr_t)socket->ssl, at = (uintptr_t)inbuf;
    if (ssl == 0)
        return inbuf == &socket->input;
    return at > ssl && at - ssl < malloc_usable_size((void *)ssl);
}

bool h2o_guard_is_input(h2o_buffer_t **inbuf)
{
    const struct guarded *guarded;
    if (own.thread == NULL)
        return false;
    DL_FOREACH(own.thread->guard.connections, guarded)
        if (is_input_of(guarded->socket, inbuf))
            return true;
    return false;
}

void h2o_guard_thread_init(struct router_thread *thread)
{
    own.thread = thread;
    h2o_guard_room_start(thread);
    h2o_guard_sweep_start(thread);
}
