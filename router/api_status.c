/* router/api_status.c -- GET /-/healthy and GET /-/ready: the two questions that need no token.
 * Promises: healthy answers while the loop runs; ready is 200 only when the backend says so, else 503 with its sentence.
 * Tests:    http/test_http_errors.c. */
#include "answer.h"
#include "api.h"
#include "thread.h"

void api_healthy(struct exchange *exchange)
{
    answer_body(exchange, 200, "text/plain", kv_slice_text("ok\n"));
}

void api_ready(struct exchange *exchange)
{
    char why[256] = "";
    if (backend_ready(exchange->thread->backend, why, sizeof(why)))
        answer_body(exchange, 200, "text/plain", kv_slice_text("ready\n"));
    else
        answer_error(exchange, 503, "unavailable", "%s", why);
}
