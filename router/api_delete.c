/* router/api_delete.c -- DELETE /{key}: 204 when the key existed, 404 when not, 412 when a condition does not hold.
 * Tests: http/test_http_values.c. */
#include "answer.h"
#include "api.h"
#include "write.h"

static void on_deleted(struct write *write, const struct backend_op_result *result)
{
    if (result->found)
        answer_empty(write->exchange, 204);
    else
        answer_failure(write->exchange, KV_NOT_FOUND);
}

void api_delete(struct exchange *exchange)
{
    struct write *write = write_new(exchange, BACKEND_DELETE, kv_slice(NULL, 0));
    if (write == NULL)
        return;
    write->on_written = on_deleted;
    write_start(write);
}
