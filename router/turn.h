/* router/turn.h -- how much of one socket libh2o may read in a turn of the loop.
 * Why:      it reads a socket until it finds it empty, and a client that keeps it full would have the loop for itself.
 * How:      libh2o asks for space before each read (body.c). Who has just filled all that it was given gets no space at all, once enough
 *           was read: its next read ends the turn, and since one of more than nothing came before, libh2o does not take it for the end
 *           of the connection (on_read_core). The rest is read in the next turn.
 * Covers:   plaintext sockets and the encrypted input of TLS ones.
 * Tests:    http/test_http_turns.c. */
#ifndef KV_ROUTER_TURN_H
#define KV_ROUTER_TURN_H

#include <h2o.h>
#include <stdbool.h>

#define TURN_BYTES 262144u        /* a turn ends with the read that reaches it; a read is of as much at most */
#define TURN_READ_GUARANTEE 4096u /* what libh2o asks for before a read */

/* Before each read. True: give no space. */
bool turn_is_over(h2o_buffer_t **inbuf);
/* So much was given; returns how much of it libh2o shall know of. */
size_t turn_give(h2o_buffer_t **inbuf, size_t bytes);

#endif
