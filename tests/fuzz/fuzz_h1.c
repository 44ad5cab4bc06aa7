/* HTTP/1 bytes against a whole router. Input: after how many bytes the client rests, 2 bytes; then what it sends. */
#include "fuzz_http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kv_slice input = kv_slice(data, bytes);
    if (http_server == NULL)
        fuzz_router_start();
    struct kv_slice first = fuzz_take(&input, (size_t)fuzz_number(&input, 2));
    int fd = fuzz_connect();
    if (fuzz_send(fd, first) && input.bytes > 0) {
        usleep(200);
        fuzz_send(fd, input);
    }
    fuzz_end(fd);
    return 0;
}
