/* shard/wire/msg.c -- what the message table says, as functions. */
#include "kv/msg.h"

#include <stddef.h>

const char *kv_msg_name(uint32_t type)
{
    switch (type) {
#define X(name, id, from, to, answer, body)                                                                            \
    case id:                                                                                                           \
        return #name;
        KV_MSG_TABLE(X)
#undef X
    default:
        return "?";
    }
}

int kv_msg_from(uint32_t type, enum kv_role role)
{
    switch (type) {
#define X(name, id, from, to, answer, body)                                                                            \
    case id:                                                                                                           \
        return KV_ROLE_##from == KV_ROLE_ANY || KV_ROLE_##from == role;
        KV_MSG_TABLE(X)
#undef X
    default:
        return 0;
    }
}

uint32_t kv_msg_answer(uint32_t type)
{
    /* The table's answer column holds a bare name or "-": `READ + 0` is a number with the names declared here, and so is `- + 0`. */
    enum {
#define X(name, id, from, to, answer, body) name = id,
        KV_MSG_TABLE(X)
#undef X
    };
    switch (type) {
#define X(name, id, from, to, answer, body)                                                                            \
    case id:                                                                                                           \
        return (uint32_t)(answer + 0);
        KV_MSG_TABLE(X)
#undef X
    default:
        return 0;
    }
}
