/* tests/bench/client.h -- HTTP/2 with prior knowledge, one thread, many connections of many streams: a closed loop that keeps
 * every stream busy and measures each request from its submission to the end of its answer.
 * Promises: an answer that is not 2xx, a value of the wrong key and a stream that was reset count as errors; the first is
 *           printed. A connection that breaks ends the program: a benchmark with fewer connections measures something else. */
#ifndef KV_BENCH_CLIENT_H
#define KV_BENCH_CLIENT_H

#include "histogram.h"
#include "workload.h"

struct client_options {
    const char *host; /* IPv4 */
    unsigned port;
    const char *token; /* NULL: none */
    unsigned connections;
    unsigned streams;     /* per connection */
    uint64_t requests;    /* in all; 0: until the time is over */
    uint64_t duration_ns; /* after the warm-up; 0: until the requests are through */
    uint64_t warm_ns;     /* not measured */
    struct workload *workload;
};

struct client_result {
    uint64_t requests;
    uint64_t ops;
    uint64_t errors;
    uint64_t body_bytes; /* both ways */
    uint64_t duration_ns;
    struct histogram latency;
};

void client_run(const struct client_options *options, struct client_result *out);

#endif
