/* include/kv/settings.h -- every setting: one row yields the environment variable, the flag, the default,
 * the range, the help text and the member of struct kv_settings.
 * Environment NAME, flag --name with dashes (`DB_PATH`, `--db-path`); flags win. Kinds:
 *   TEXT      any string;            NUMBER  decimal integer in [min, max];
 *   SIZE      bytes, decimal with optional K, M, G, T (powers of 1024), in [min, max];
 *   CHOICE    one of the words between '|'; the value is its place among them, counted from 0.
 * Implementation: supervisor/base/settings.c (parse one, parse all, write and read NAME=value lines).
 * What needs the machine (paths, ports, cores) is checked by supervisor/config.c.
 * Tests: unit/base/test_settings.c, system/test_supervisor.c. */
#ifndef KV_SETTINGS_H
#define KV_SETTINGS_H

#include "kv/buf.h"
#include "kv/err.h"
#include "kv/limits.h"

#define KV_KIB ((uint64_t)1 << 10)
#define KV_MIB ((uint64_t)1 << 20)
#define KV_GIB ((uint64_t)1 << 30)
#define KV_TIB ((uint64_t)1 << 40)

/* TEXT(member, NAME, default, help)  NUMBER(member, NAME, default, min, max, help)  SIZE(same)
 * CHOICE(member, NAME, words, default_index, help) */
#define KV_SETTINGS_TABLE(TEXT, NUMBER, SIZE, CHOICE)                                                                  \
    TEXT(token, TOKEN, "", "bearer token with all rights; this, TOKEN_FILE or TOKENS_FILE is required")                \
    TEXT(token_file, TOKEN_FILE, "", "file whose first line is another one; SIGHUP loads it again")                    \
    TEXT(tokens_file, TOKENS_FILE, "",                                                                                 \
         "file of tokens with less rights, name:rights:prefix:sha256-of-token; SIGHUP loads it again")                 \
    NUMBER(auth_failures_max, AUTH_FAILURES_MAX, 20, 0, 1000000,                                                       \
           "requests without a valid token that an address may send within 10 s; more wait a second; 0: any number")   \
    TEXT(run_as, RUN_AS, "", "user[:group] that a supervisor started as root becomes once its ports are open")         \
    TEXT(db_path, DB_PATH, "./kv_db", "directory of the store's files")                                                \
    TEXT(bind_addr, BIND_ADDR, "0.0.0.0:3000", "plaintext address (host:port, [v6]:port), or off")                     \
    TEXT(tls_bind_addr, TLS_BIND_ADDR, "0.0.0.0:3443", "TLS address, open when TLS_CERT and TLS_KEY are set")          \
    TEXT(tls_cert, TLS_CERT, "", "PEM file with the certificate chain")                                                \
    TEXT(tls_key, TLS_KEY, "", "PEM file with the private key")                                                        \
    TEXT(tls_client_ca, TLS_CLIENT_CA, "", "PEM file with the authorities whose certificates TLS clients must show")   \
    NUMBER(shards, SHARDS, 0, 1, KV_SHARDS_MAX,                                                                        \
           "shard processes; unless given: the store's own number, or one per core for a new one")                     \
    NUMBER(router_threads, ROUTER_THREADS, 0, 1, KV_ROUTER_THREADS_MAX,                                                \
           "event loops of the router; unless given: one per two cores")                                               \
    NUMBER(compression_level, COMPRESSION_LEVEL, 1, 0, 21, "zstd level; 0 stores as it is")                            \
    SIZE(value_bytes_max, MAX_VALUE_BYTES, KV_GIB, 1, 64 * KV_GIB, "largest value")                                    \
    SIZE(upload_bytes_max, UPLOAD_BYTES_MAX, 16 * KV_GIB, KV_MIB, KV_TIB,                                              \
         "bodies of uploads under way that wait in files in $TMPDIR or /tmp, together")                                \
    SIZE(batch_bytes_max, MAX_BATCH_BYTES, 64 * KV_MIB, 1, 64 * KV_MIB, "largest body of POST /batch")                 \
    SIZE(cache_bytes, CACHE_BYTES, 384 * KV_MIB, 0, 64 * KV_GIB,                                                       \
         "memory of the router for GETs: half for answers of up to 64 KiB, half for parts of larger values; 0: none")  \
    SIZE(overlay_bytes, OVERLAY_BYTES, 64 * KV_MIB, KV_MIB, KV_TIB,                                                    \
         "rows per shard that wait in memory to be applied")                                                           \
    SIZE(map_size, MAP_SIZE, 256 * KV_GIB, 16 * KV_MIB, 64 * KV_TIB, "largest LMDB file per shard (sparse)")           \
    CHOICE(durability, DURABILITY, "sync|interval", 0,                                                                 \
           "sync: acknowledged means on disk; interval: flushed every FLUSH_INTERVAL_MS")                              \
    NUMBER(flush_interval_ms, FLUSH_INTERVAL_MS, 100, 1, 60000, "pause between flushes with DURABILITY=interval")      \
    NUMBER(shard_wait_ms, SHARD_WAIT_MS, 10000, 1, 3600000, "how long a request waits for a shard that is down")       \
    NUMBER(client_wait_ms, CLIENT_WAIT_MS, 60000, 100, 3600000,                                                        \
           "how long a client may take to send a request or to read on")                                               \
    NUMBER(drain_wait_ms, DRAIN_WAIT_MS, 10000, 1, 3600000, "how long a stop waits for requests under way")            \
    NUMBER(connections_max, CONNECTIONS_MAX, 10000, 1, 1000000, "open client connections")                             \
    NUMBER(connections_per_address_max, CONNECTIONS_PER_ADDRESS_MAX, 4000, 1, 1000000,                                 \
           "of these, from one address (IPv6: one /64)")                                                               \
    NUMBER(requests_per_connection_max, REQUESTS_PER_CONNECTION_MAX, 100, 1, 100,                                      \
           "HTTP/2 requests of a connection that are worked on at once; others wait")                                  \
    NUMBER(requests_per_address_max, REQUESTS_PER_ADDRESS_MAX, 20000, 100, 1000000,                                    \
           "HTTP/2 requests of an address that are open at once; who opens more is cut")                               \
    SIZE(answer_bytes_per_address_max, ANSWER_BYTES_PER_ADDRESS_MAX, 128 * KV_MIB, KV_MIB, KV_TIB,                     \
         "memory for answers to GET, /keys and /batch of an address; more requests wait until some were taken")        \
    NUMBER(abandoned_per_address_max, ABANDONED_PER_ADDRESS_MAX, 64, 1, 1000000,                                       \
           "cancelled requests of an address that shards still work at, per router thread; until then more wait")      \
    NUMBER(cancels_max, CANCELS_MAX, 200, 0, 1000000,                                                                  \
           "HTTP/2 requests that a connection may cancel within 10 s, an address ten times as many; 0: any number")    \
    SIZE(header_bytes_max, HEADER_BYTES_MAX, 32 * KV_KIB, 4 * KV_KIB, 256 * KV_KIB, "headers of a request, together")  \
    SIZE(header_bytes_per_address_max, HEADER_BYTES_PER_ADDRESS_MAX, 64 * KV_MIB, KV_MIB, KV_TIB,                      \
         "HTTP/2 header blocks above 4 KiB of an address's open requests; who sends more is cut")                      \
    NUMBER(header_wait_ms, HEADER_WAIT_MS, 10000, 100, 3600000, "how long a client may take to send headers")          \
    SIZE(body_rate_min, BODY_RATE_MIN, KV_KIB, 0, KV_GIB,                                                              \
         "bytes a second that an upload must keep over CLIENT_WAIT_MS; 0: one byte in that time")                      \
    CHOICE(log_level, LOG_LEVEL, "error|warn|info|debug", 2, "least important level that is logged")                   \
    CHOICE(log_format, LOG_FORMAT, "text|json", 0, "how log lines look")                                               \
    CHOICE(access_log, ACCESS_LOG, "off|on", 0, "one line per request")                                                \
    NUMBER(shard_count, KV_SHARD_COUNT, 0, 0, KV_SHARDS_MAX, "(internal) shards of this store")                        \
    NUMBER(epoch, KV_EPOCH, 0, 0, KV_EPOCH_MAX, "(internal) epoch of this router; a shard's: of the last one")         \
    TEXT(store_id, KV_STORE_ID, "", "(internal) identity of this store, 32 hex digits")

enum { KV_DURABILITY_SYNC, KV_DURABILITY_INTERVAL };
enum { KV_LOG_FORMAT_TEXT, KV_LOG_FORMAT_JSON }; /* log_level counts as enum kv_log_level does */

struct kv_settings {
#define TEXT(member, name, standard, help) char *member;
#define NUMBER(member, name, standard, min, max, help) uint64_t member;
#define SIZE(member, name, standard, min, max, help) uint64_t member;
#define CHOICE(member, name, words, standard, help) uint64_t member;
    KV_SETTINGS_TABLE(TEXT, NUMBER, SIZE, CHOICE)
#undef TEXT
#undef NUMBER
#undef SIZE
#undef CHOICE
};

/* A row of the table, for whoever collects settings or explains them. */
enum kv_setting_kind { KV_SETTING_TEXT, KV_SETTING_NUMBER, KV_SETTING_SIZE, KV_SETTING_CHOICE };
struct kv_setting {
    enum kv_setting_kind kind;
    const char *name, *help;
    size_t offset;    /* of the member in struct kv_settings */
    const char *text; /* TEXT: default; CHOICE: the words */
    uint64_t standard, min, max;
};
extern const struct kv_setting kv_settings_rows[]; /* ends with one without a name */
/* The word of a CHOICE that stands for `index`. */
struct kv_slice kv_setting_word(const struct kv_setting *row, uint64_t index);

/* Fills `out` with the defaults; kv_settings_free releases the strings. */
void kv_settings_init(struct kv_settings *out);
/* Sets one setting by its NAME. On error writes one sentence that names the variable into `why` (kept within
 * why_bytes) and leaves the setting as it was. KV_NOT_FOUND: no such NAME. KV_INVALID: bad value. */
enum kv_err kv_settings_set(struct kv_settings *settings, const char *name, const char *value, char *why,
                            size_t why_bytes);
/* A size as a user would write it: 67108864 is "64M". */
void kv_settings_print_size(uint64_t bytes, char *out, size_t out_bytes);
/* All settings as NAME=value lines (values escaped so that a line feed survives), and back. Internal rows included. */
void kv_settings_write(const struct kv_settings *settings, struct kv_buf *out);
enum kv_err kv_settings_read(struct kv_slice lines, struct kv_settings *out);
void kv_settings_free(struct kv_settings *settings);

#endif
