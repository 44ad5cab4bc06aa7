/* Goal: what one process counts, the next one finds; and a process without a page counts all the same.
 * Method: map the memfd twice, as two processes would; fork one that counts and dies. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kv/counters_page.h"

Test(counters_page, a_dead_writer_leaves_its_counts)
{
    int fd = kv_counters_page_new();
    cr_assert(fd >= 0);
    struct kv_counters_page *page = kv_counters_page_open(fd);
    cr_expect_eq(kv_counter_get(&page->shards[3][7]), 0);
    pid_t child = fork();
    if (child == 0) {
        struct kv_counters_page *own = kv_counters_page_open(fd);
        kv_counter_set(&own->shards[3][7], 40);
        kv_counter_add(&own->shards[3][7], 2);
        raise(SIGKILL);
    }
    cr_assert(child > 0 && waitpid(child, NULL, 0) == child);
    cr_expect_eq(kv_counter_get(&page->shards[3][7]), 42);
    cr_expect_eq(kv_counter_get(&page->shards[3][8]), 0);
    close(fd);
}

Test(counters_page, its_size_cannot_change)
{
    int fd = kv_counters_page_new();
    cr_assert(fd >= 0);
    cr_expect(ftruncate(fd, 0) != 0);
    cr_expect(ftruncate(fd, 2 * (off_t)sizeof(struct kv_counters_page)) != 0);
    close(fd);
}

Test(counters_page, anything_else_gives_private_memory)
{
    int null = open("/dev/null", O_RDWR);
    const int fds[] = {-1, null, 9999};
    for (size_t i = 0; i < 3; i++) {
        struct kv_counters_page *page = kv_counters_page_open(fds[i]);
        cr_assert_not_null(page);
        kv_counter_add(&page->router[KV_COUNTERS_ROUTER_WORDS - 1], 5);
        cr_expect_eq(kv_counter_get(&page->router[KV_COUNTERS_ROUTER_WORDS - 1]), 5);
        free(page);
    }
    close(null);
}
