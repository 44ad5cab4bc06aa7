/* router/h2o_guard_internal.h -- what the files of the guard have between them; nobody else's. */
#ifndef KV_ROUTER_H2O_GUARD_INTERNAL_H
#define KV_ROUTER_H2O_GUARD_INTERNAL_H

#include "h2o_guard.h"

/* picohttpparser's struct phr_header, whose own header file the package leaves out. No name: the last value goes on. */
struct guard_header {
    const char *name;
    size_t name_len;
    const char *value;
    size_t value_len;
};

/* picohttpparser's struct phr_chunked_decoder. */
struct guard_chunks {
    size_t left; /* bytes of the chunk */
    char consume_trailer;
    char digits;
    char state;
};

/* h2o_guard_head.c, h2o_guard_chunk.c: in the place of functions of the library, and what they stand before. */
ssize_t phr_decode_chunked(struct guard_chunks *chunks, char *buf, size_t *bytes);
int phr_parse_request(const char *buf, size_t len, const char **method, size_t *method_len, const char **path,
                      size_t *path_len, int *minor_version, struct guard_header *headers, size_t *num_headers,
                      size_t last_len);
extern struct guard_head_library {
    __typeof__(phr_parse_request) *parse_request;
    __typeof__(phr_decode_chunked) *decode_chunked;
    __typeof__(h2o_send_error_generic) *send_error;
} guard_head_library;

/* What libh2o reads the socket with; a pause no longer knows of it. */
h2o_socket_cb guard_pause_over(struct guarded *guarded);

/* The loop's whose thread this is; NULL: none's. */
struct router_thread *guard_own_thread(void);

#endif
