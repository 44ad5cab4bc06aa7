/* router/gets.h -- GETs that came in one piece from the socket, looked up in the cache together.
 * Why:      among 100,000 values a look-up waits for memory twice, for the place and for the entry, and that was a quarter of a GET.
 *           What is asked for while others are worked on is there when it is needed.
 * Does:     api_get: keeps a GET for as long as libh2o has further frames of its connection in hand, GETS_MAX at most; then asks for the
 *           entries of all that are kept, then answers them in their order (api_get.c). If other
 *           frames end the piece, they are answered at the end of the loop's turn. HTTP/1 has one request at a time, which never waits.
 * Owns:     nothing: whoever dies meanwhile takes itself out.
 * Tests:    http/test_http_together.c. */
#ifndef KV_ROUTER_GETS_H
#define KV_ROUTER_GETS_H

#include <h2o.h>
#include <stdbool.h>
#include <stdint.h>

#define GETS_MAX 32u /* their entries' heads fit into the processor's first cache */

struct exchange;

struct gets {
    struct gets_one {
        struct exchange *exchange; /* NULL: it died */
        uint64_t hash;
    } list[GETS_MAX];
    size_t count;
    bool answering;
    h2o_timeout_entry_t due; /* linked while there are any */
};

void gets_init(struct gets *gets);

#endif
