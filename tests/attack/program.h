/* tests/attack/program.h -- any bytes as a conversation of mostly valid HTTP/2 frames: what a fuzzer finds its way through, and
 * what random bytes make of a router in minutes. A step is a byte that says which, and its arguments.
 * Used by fuzz/fuzz_h2.c and attack/kv_attack.c. Static, as frames.h. */
#ifndef KV_ATTACK_PROGRAM_H
#define KV_ATTACK_PROGRAM_H

#include "frames.h"

struct program {
    struct kv_slice left;
    struct kv_buf *out;
    uint32_t next_stream; /* odd */
    unsigned nap_ms;      /* set by a step: let the router work before what comes */
    size_t read_bytes;    /* set by a step: take so much of the answers first */
};

static unsigned program_byte(struct program *program)
{
    if (program->left.bytes == 0)
        return 0;
    unsigned byte = program->left.data[0];
    program->left = kv_slice(program->left.data + 1, program->left.bytes - 1);
    return byte;
}

static uint32_t program_u32(struct program *program)
{
    uint32_t number = 0;
    for (int i = 0; i < 4; i++)
        number = number << 8 | program_byte(program);
    return number;
}

static struct kv_slice program_bytes(struct program *program)
{
    size_t bytes = program_byte(program);
    bytes = bytes < program->left.bytes ? bytes : program->left.bytes;
    struct kv_slice taken = kv_slice(program->left.data, bytes);
    program->left = kv_slice(program->left.data + bytes, program->left.bytes - bytes);
    return taken;
}

/* Mostly one of the last 64 that were opened. */
static uint32_t program_stream(struct program *program)
{
    unsigned back = program_byte(program);
    if (back >= 250)
        return back - 250;
    uint32_t ago = 2 * (1 + back % 64);
    return program->next_stream > ago ? program->next_stream - ago : 1;
}

static void step_request(struct program *program)
{
    static const char *const methods[] = {"GET", "GET", "GET", "PUT", "HEAD", "DELETE", "POST", "OPTIONS"};
    static const char *const paths[] = {"/value", "/large", "/value", "/x", "/keys?limit=2", "/batch", "/-/ready", "/"};
    unsigned what = program_byte(program), flags = program_byte(program);
    request(program->out, methods[what % 8], paths[what / 8 % 8],
            (flags & 1 ? END_STREAM : 0) | (flags & 0x0e ? END_HEADERS : 0), program->next_stream);
    program->next_stream += 2;
}

static void step_burst(struct program *program)
{
    unsigned count = program_byte(program) % 64, reset = program_byte(program);
    for (unsigned i = 0; i < count; i++, program->next_stream += 2)
        request(program->out, "GET", reset & 1 ? "/large" : "/value", END_STREAM | END_HEADERS, program->next_stream);
    for (unsigned i = 0; i < count && (reset & 2) != 0; i++)
        frame32(program->out, RST_STREAM, program->next_stream - 2 * (i + 1), 8);
}

static void step_data(struct program *program)
{
    static const uint8_t filler[16384];
    uint32_t stream = program_stream(program);
    unsigned flags = program_byte(program);
    frame(program->out, DATA, flags & 9, stream, raw(filler, 64 * program_byte(program)));
}

static void step_reset(struct program *program)
{
    uint32_t stream = program_stream(program);
    frame32(program->out, RST_STREAM, stream, program_byte(program));
}

static void step_update(struct program *program)
{
    uint32_t stream = program_stream(program), more = program_u32(program);
    frame32(program->out, WINDOW_UPDATE, stream, more >> more % 32);
}

static void step_window(struct program *program)
{
    window_setting(program->out, 0);
    window_setting(program->out, program_u32(program) >> program_byte(program) % 32);
}

static void step_settings(struct program *program)
{
    uint8_t payload[6] = {0, (uint8_t)(program_byte(program) % 8)};
    put32(payload + 2, program_u32(program));
    frame(program->out, SETTINGS, 0, 0, raw(payload, 6));
}

static void step_priority(struct program *program)
{
    uint32_t stream = program_stream(program);
    uint8_t payload[5];
    put32(payload, program_stream(program));
    payload[4] = (uint8_t)program_byte(program);
    frame(program->out, PRIORITY, 0, stream, raw(payload, 5));
}

static void step_headers(struct program *program)
{
    unsigned flags = program_byte(program);
    frame(program->out, flags & 0x80 ? CONTINUATION : HEADERS, flags & 0x2d,
          flags & 0x40 ? program_stream(program) : program->next_stream, program_bytes(program));
    program->next_stream += flags & 0xc0 ? 0 : 2;
}

/* A good request and a block of our own behind its fields. */
static void step_fields(struct program *program)
{
    struct kv_buf block = fields("GET", "/value");
    kv_buf_append(&block, program_bytes(program));
    frame(program->out, HEADERS, END_STREAM | END_HEADERS, program->next_stream, kv_buf_peek(&block));
    program->next_stream += 2;
    kv_buf_free(&block);
}

static void step_frame(struct program *program)
{
    unsigned type = program_byte(program), flags = program_byte(program);
    uint32_t stream = program_stream(program);
    frame(program->out, type, flags, stream, program_bytes(program));
}

static void step_bytes(struct program *program)
{
    kv_buf_append(program->out, program_bytes(program));
}

static void step_nap(struct program *program)
{
    program->nap_ms = 1 + program_byte(program) % 4;
}

static void step_read(struct program *program)
{
    program->read_bytes = 1 + 1024 * program_byte(program);
}

/* False at the end. Appends to `out` and sets what shall happen then. */
UNUSED_IS_FINE static bool program_step(struct program *program)
{
    static void (*const steps[])(struct program * program) = {
        step_request,  step_request, step_burst,  step_data,  step_reset, step_update, step_window, step_settings,
        step_priority, step_headers, step_fields, step_frame, step_bytes, step_nap,    step_read,   step_request};
    program->nap_ms = 0;
    program->read_bytes = 0;
    if (program->left.bytes == 0)
        return false;
    steps[program_byte(program) % (sizeof(steps) / sizeof(steps[0]))](program);
    return true;
}

#endif
