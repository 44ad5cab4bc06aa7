/* tests/system/stream.c -- see stream.h. Bytes are made in blocks of 4 KiB, each from a generator of its own. */
#include "stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/clock.h"

enum { BLOCK_BYTES = 4096 };

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state;
    z ^= z << 13;
    z ^= z >> 7;
    z ^= z << 17;
    return *state = z;
}

static void make_block(const struct stream *stream, uint64_t block, uint8_t out[BLOCK_BYTES])
{
    static const char words[16][9] = {"journal ", "shard of", " a key, ",  "object; ", "content ", "written ",
                                      "flushed ", "to disk.", "router\n ", "prepare ", "commit a", "nd votes",
                                      "locks in", " order: ", "epochs, ",  "overlay\n"};
    uint64_t state = (stream->seed + 1) * 0x9e3779b97f4a7c15u ^ (block + 1) * 0xbf58476d1ce4e5b9u;
    for (size_t at = 0; at < BLOCK_BYTES; at += 8) {
        uint64_t bits = next_random(&state);
        memcpy(out + at, stream->kind == STREAM_TEXT ? (const void *)words[bits >> 60] : &bits, 8);
    }
}

void stream_fill(const struct stream *stream, uint64_t offset, uint8_t *out, size_t count)
{
    uint8_t block[BLOCK_BYTES];
    while (count > 0) {
        size_t within = offset % BLOCK_BYTES;
        size_t taken = BLOCK_BYTES - within < count ? BLOCK_BYTES - within : count;
        make_block(stream, offset / BLOCK_BYTES, block);
        memcpy(out, block + within, taken);
        out += taken;
        offset += taken;
        count -= taken;
    }
}

/* ---- transfers ------------------------------------------------------------------------------------------------ */

struct flow {
    const struct stream *stream;
    uint64_t at;   /* of the next byte, within the stream */
    bool compares; /* the body is the stream, else a text of the server's */
    struct transfer *transfer;
};

static size_t on_send(char *space, size_t size, size_t count, void *arg)
{
    struct flow *flow = arg;
    uint64_t left = flow->stream->bytes - flow->at;
    size_t bytes = size * count < left ? size * count : (size_t)left;
    stream_fill(flow->stream, flow->at, (uint8_t *)space, bytes);
    flow->at += bytes;
    return bytes;
}

static bool is_stream(struct flow *flow, const uint8_t *data, size_t bytes)
{
    uint8_t expected[BLOCK_BYTES];
    for (size_t at = 0; at < bytes; at += BLOCK_BYTES) {
        size_t part = bytes - at < BLOCK_BYTES ? bytes - at : BLOCK_BYTES;
        stream_fill(flow->stream, flow->at + at, expected, part);
        if (memcmp(expected, data + at, part) != 0)
            return false;
    }
    return true;
}

static size_t on_receive(char *data, size_t size, size_t count, void *arg)
{
    struct flow *flow = arg;
    struct transfer *transfer = flow->transfer;
    size_t bytes = size * count;
    size_t used = strlen(transfer->text);
    if (flow->compares)
        transfer->exact = transfer->exact && is_stream(flow, (const uint8_t *)data, bytes);
    else
        snprintf(transfer->text + used, sizeof transfer->text - used, "%.*s", (int)bytes, data);
    flow->at += bytes;
    transfer->bytes += bytes;
    return bytes;
}

static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *transfer = arg;
    static const char name[] = "x-deduplicated: true";
    if (size * count >= sizeof name - 1 && strncasecmp(data, name, sizeof name - 1) == 0)
        transfer->deduplicated = true;
    return size * count;
}

static CURL *prepare(const struct server *server, enum http http, const char *target, struct flow *flow,
                     struct curl_slist **headers)
{
    char url[256];
    CURL *easy = curl_easy_init();
    snprintf(url, sizeof url, "http://127.0.0.1:%u%s", server->port, target);
    *headers = curl_slist_append(*headers, "Authorization: Bearer " TOKEN);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                     (long)(http == HTTP_1 ? CURL_HTTP_VERSION_1_1 : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE));
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, *headers);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT, 600L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 256L * 1024);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, flow->transfer->problem);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_receive);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, flow);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, flow->transfer);
    return easy;
}

static void perform(CURL *easy, struct curl_slist *headers, struct transfer *transfer)
{
    uint64_t begin_ns = kv_clock_ns();
    if (curl_easy_perform(easy) == CURLE_OK)
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &transfer->status);
    transfer->seconds = (double)(kv_clock_ns() - begin_ns) / 1e9;
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
}

struct transfer stream_put(const struct server *server, enum http http, const char *target, const struct stream *stream)
{
    struct transfer transfer = {.problem = ""};
    struct flow up = {.stream = stream, .transfer = &transfer}, down = {.transfer = &transfer};
    struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
    CURL *easy = prepare(server, http, target, &down, &headers);
    curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 256L * 1024);
    curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)stream->bytes);
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_send);
    curl_easy_setopt(easy, CURLOPT_READDATA, &up);
    perform(easy, headers, &transfer);
    return transfer;
}

struct transfer stream_get(const struct server *server, enum http http, const char *target, const struct stream *stream,
                           uint64_t offset, uint64_t count)
{
    struct transfer transfer = {.exact = true};
    struct flow down = {.stream = stream, .at = offset, .compares = true, .transfer = &transfer};
    struct curl_slist *headers = NULL;
    char range[96];
    if (count > 0) {
        snprintf(range, sizeof range, "Range: bytes=%llu-%llu", (unsigned long long)offset,
                 (unsigned long long)(offset + count - 1));
        headers = curl_slist_append(NULL, range);
    }
    CURL *easy = prepare(server, http, target, &down, &headers);
    perform(easy, headers, &transfer);
    uint64_t expected = count > 0 ? count : stream->bytes;
    transfer.exact = transfer.exact && transfer.bytes == expected && transfer.status == (count > 0 ? 206 : 200);
    return transfer;
}
