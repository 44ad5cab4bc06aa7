/* tests/sim/fault.h -- eleven deliberate mistakes: proof that the simulation can fail.
 * Each is made in the twins or between the real modules (ld --wrap); the code that users run has no switch for it. */
#ifndef SIM_FAULT_H
#define SIM_FAULT_H

#define FAULT_TABLE(X)                                                                                                 \
    X(VOTE_BEFORE_FLUSH, "vote-before-flush", "a yes leaves before its record is durable")                             \
    X(COMMIT_AFTER_ONE_VOTE, "commit-after-one-vote", "the first yes decides")                                         \
    X(NO_FENCING, "no-fencing", "shards go on listening to routers of older epochs")                                   \
    X(FORGOTTEN_REFERENCE, "forgotten-reference", "an overwritten content keeps the reference")                        \
    X(LOCK_KEPT, "lock-kept", "an aborted transaction keeps its locks")                                                \
    X(REPLAY_SKIPS_TAIL, "replay-skips-tail", "the last record is not replayed")                                       \
    X(HALF_FORGOTTEN, "half-forgotten", "a start does not finish the generation that is half applied")                 \
    X(UNMARKED_WRITE, "unmarked-write", "writes do not mark what they change: the cache goes stale")                   \
    X(WRONG_PROOF, "wrong-proof", "a write believes that it was alone: the cache has what it did not know")            \
    X(FILE_FORGOTTEN, "file-forgotten", "an upload's file is given back as soon as its descriptor has left")           \
    X(EARLY_ACK, "early-ack", "the client hears yes when the votes are asked for")

enum fault {
    FAULT_NONE,
#define X(name, text, what) FAULT_##name,
    FAULT_TABLE(X)
#undef X
};

/* FAULT_NONE for an unknown name. */
enum fault fault_named(const char *text);
const char *fault_name(enum fault fault);

#endif
