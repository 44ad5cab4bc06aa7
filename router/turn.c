/* router/turn.c -- see turn.h. When a read fills its space, libh2o asks for more in the same breath: what is remembered of the last
 * time is about the same turn if, and only if, the buffer has grown by exactly what was given. */
#include "turn.h"

#include "h2o_guard.h"

static __thread struct {
    h2o_buffer_t **inbuf;
    size_t end;   /* its size, if all that was given comes */
    size_t bytes; /* of this turn, then */
} last;

bool turn_is_over(h2o_buffer_t **inbuf)
{
    if (inbuf != last.inbuf || (*inbuf)->size != last.end)
        last.bytes = 0;
    if (last.bytes < TURN_BYTES || !h2o_guard_is_input(inbuf))
        return false;
    last.inbuf = NULL;
    return true;
}

size_t turn_give(h2o_buffer_t **inbuf, size_t bytes)
{
    bytes = bytes < TURN_BYTES ? bytes : TURN_BYTES;
    last.inbuf = inbuf;
    last.end = (*inbuf)->size + bytes;
    last.bytes += bytes;
    return bytes;
}
