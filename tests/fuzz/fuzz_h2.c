/* HTTP/2 frames against a whole router, behind preface and SETTINGS. Input: a kind; then frames as they are, or a program of
 * attack/program.h. */
#include "fuzz_http.h"

#include "../attack/program.h"

static void run_program(int fd, struct kv_slice input)
{
    struct kv_buf out = {0};
    struct program program = {.left = input, .out = &out, .next_stream = 1};
    bool open = true;
    hello(&out);
    while (open && program_step(&program)) {
        if (program.nap_ms == 0 && program.read_bytes == 0)
            continue;
        open = fuzz_send(fd, kv_buf_peek(&out));
        out.bytes = 0;
        usleep(300 * program.nap_ms);
        open = open && fuzz_read(fd, program.read_bytes);
    }
    if (open)
        fuzz_send(fd, kv_buf_peek(&out));
    kv_buf_free(&out);
}

static void send_frames(int fd, struct kv_slice input)
{
    struct kv_buf out = {0};
    hello(&out);
    kv_buf_append(&out, input);
    fuzz_send(fd, kv_buf_peek(&out));
    kv_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kv_slice input = kv_slice(data, bytes);
    if (http_server == NULL)
        fuzz_router_start();
    int fd = fuzz_connect();
    if (fuzz_number(&input, 1) < 'p')
        send_frames(fd, input);
    else
        run_program(fd, input);
    fuzz_end(fd);
    return 0;
}
