/* tests/sim/arena.c -- the twin of router/arena_memory.h: a file of the run (file.h), which lasts as long as the router has it mapped, or a
 * shard. Whoever reads it behind its end reads something else. */
#include "arena_memory.h"

#include "file.h"
#include "kv/log.h"
#include "router.h"

static struct router *router_that_runs(void)
{
    struct heap *heap = heap_enter(&sim_running->heap);
    struct router *router = sim_running->routers;
    heap_enter(heap);
    while (router != NULL && &router->process.heap != heap)
        router = router->older;
    kv_assert(router != NULL);
    return router;
}

uint8_t *arena_memory_new(struct body_file **file)
{
    *file = sim_file_new(router_that_runs(), KV_ARENA_BYTES, kv_slice(NULL, 0));
    body_file_hold(*file); /* the mapping */
    return sim_file_data(*file);
}

void arena_memory_trim(uint8_t *memory)
{
    sim_file_forget(sim_file_find(memory));
}

void arena_memory_free(uint8_t *memory)
{
    struct body_file *file = sim_file_find(memory);
    body_file_free(&file);
}
