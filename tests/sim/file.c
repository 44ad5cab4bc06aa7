/* tests/sim/file.c -- see file.h. */
#include "file.h"

#include <stdlib.h>
#include <utlist.h>

#include "kv/log.h"
#include "router.h"

struct body_file {
    struct body_file *prev, *next; /* all files of the run */
    const struct router *router;   /* that has it open; NULL: none has */
    int fd;                        /* there */
    unsigned holders;              /* within the router, for its one descriptor */
    unsigned lent;                 /* pieces that a shard may be reading, as far as the router knows */
    unsigned descriptors;
    struct kv_buf bytes;
};

static void close_one(struct body_file *file)
{
    kv_assert(file->descriptors > 0);
    if (--file->descriptors > 0)
        return;
    DL_DELETE(sim_running->files, file);
    kv_buf_free(&file->bytes);
    free(file);
}

static void close_router(struct body_file *file)
{
    file->router = NULL;
    file->holders = 0;
    close_one(file);
}

/* ---- the router's side: body_file.h ----------------------------------------------------------------------------- */

struct body_file *sim_file_new(struct router *router, uint64_t offset, struct kv_slice bytes)
{
    struct sim *sim = sim_running;
    struct heap *before = heap_enter(&sim->heap);
    struct body_file *file = kv_alloc_zero(1, sizeof *file);
    memset(kv_buf_reserve(&file->bytes, offset + bytes.bytes), 0xee, offset);
    file->bytes.bytes = offset;
    kv_buf_append(&file->bytes, bytes);
    heap_enter(before);
    file->router = router;
    file->fd = sim->file_last++;
    file->holders = file->descriptors = 1;
    DL_APPEND(sim->files, file);
    return file;
}

struct body_file *body_file_hold(struct body_file *file)
{
    kv_assert(file->holders > 0);
    file->holders++;
    return file;
}

void body_file_free(struct body_file **file)
{
    struct body_file *old = *file;
    *file = NULL;
    if (old == NULL)
        return;
    kv_assert(old->holders > 0);
    if (--old->holders > 0)
        return;
    if (old->lent == 0)
        memset(old->bytes.data, 0xdd, old->bytes.bytes); /* the next body: who reads it now reads that */
    close_router(old);
}

void body_file_lend(struct body_file *file)
{
    kv_assert(file->holders > 0);
    file->lent++;
}

void body_file_take_back(struct body_file *file)
{
    kv_assert(file->lent > 0);
    file->lent--;
}

int body_file_fd(const struct body_file *file)
{
    kv_assert(file->holders > 0);
    return file->fd;
}

void sim_files_close(const struct router *router)
{
    struct body_file *file, *after;
    DL_FOREACH_SAFE(sim_running->files, file, after) {
        if (file->router == router)
            close_router(file);
    }
}

/* ---- the kernel's, and the shard's ------------------------------------------------------------------------------ */

struct body_file *sim_file_receive(const struct router *router, int fd)
{
    struct body_file *file;
    DL_FOREACH(sim_running->files, file) {
        if (file->router == router && file->fd == fd)
            return sim_file_keep(file);
    }
    sim_fail("a descriptor is sent that router %llu has closed", (unsigned long long)router->epoch);
}

struct body_file *sim_file_keep(struct body_file *file)
{
    file->descriptors++;
    return file;
}

void sim_file_let_go(struct body_file **file)
{
    if (*file != NULL)
        close_one(*file);
    *file = NULL;
}

void sim_file_read(const struct body_file *file, uint64_t offset, uint64_t bytes, struct kv_buf *out)
{
    if (offset > file->bytes.bytes || bytes > file->bytes.bytes - offset)
        sim_fail("a shard is to read %llu bytes at %llu of a file of %zu", (unsigned long long)bytes,
                 (unsigned long long)offset, file->bytes.bytes);
    kv_buf_append(out, kv_slice(file->bytes.data + offset, (size_t)bytes));
}

uint8_t *sim_file_data(struct body_file *file)
{
    return file->bytes.data;
}

struct body_file *sim_file_find(const uint8_t *data)
{
    struct body_file *file;
    DL_SEARCH_SCALAR(sim_running->files, file, bytes.data, data);
    kv_assert(file != NULL);
    return file;
}

void sim_file_forget(struct body_file *file)
{
    memset(file->bytes.data, 0, file->bytes.bytes);
}

void sim_files_expect_none(const struct sim *sim)
{
    if (sim->files != NULL)
        sim_fail("an upload's file is still open, by %u", sim->files->descriptors);
}
