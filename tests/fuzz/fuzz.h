/* tests/fuzz/fuzz.h -- what all fuzz targets share: the entry point, a check that stays on, and a way to eat an input piece by piece.
 * A target is one file fuzz_<name>.c; its inputs are kept in corpus/<name>/. How it is run: CMakeLists.txt, run. */
#ifndef KV_FUZZ_H
#define KV_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "kv/slice.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define FUZZ_CHECK(condition)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                             \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Up to `bytes` off the front. */
static inline struct kv_slice fuzz_take(struct kv_slice *input, size_t bytes)
{
    struct kv_slice piece = kv_slice(input->data, bytes < input->bytes ? bytes : input->bytes);
    *input = kv_slice(input->data + piece.bytes, input->bytes - piece.bytes);
    return piece;
}

/* 0 at the end. Numbers are little endian. */
static inline uint64_t fuzz_number(struct kv_slice *input, size_t bytes)
{
    struct kv_slice piece = fuzz_take(input, bytes);
    uint64_t number = 0;
    for (size_t i = 0; i < piece.bytes; i++)
        number |= (uint64_t)piece.data[i] << 8 * i;
    return number;
}

/* A length of one or two bytes, and so many bytes. */
static inline struct kv_slice fuzz_part(struct kv_slice *input, size_t length_bytes)
{
    size_t bytes = (size_t)fuzz_number(input, length_bytes);
    return fuzz_take(input, bytes);
}

/* Reads every byte, for the sanitizer. */
static inline void fuzz_look(struct kv_slice bytes)
{
    unsigned sum = 0;
    for (size_t i = 0; i < bytes.bytes; i++)
        sum += bytes.data[i];
    __asm__ volatile("" : : "r"(sum));
}

#endif
