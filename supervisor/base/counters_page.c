/* supervisor/base/counters_page.c -- see kv/counters_page.h.
 * The page is sealed in its size: a child that maps it can never be hit by SIGBUS.
 * Tests: unit/base/test_counters_page.c. */
#include "kv/counters_page.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/buf.h"

int kv_counters_page_new(void)
{
    int fd = memfd_create("kv-counters", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)sizeof(struct kv_counters_page)) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

struct kv_counters_page *kv_counters_page_open(int fd)
{
    struct stat stat;
    if (fd >= 0 && fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) &&
        stat.st_size == (off_t)sizeof(struct kv_counters_page)) {
        void *page = mmap(NULL, sizeof(struct kv_counters_page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (page != MAP_FAILED)
            return page;
    }
    return kv_alloc_zero(1, sizeof(struct kv_counters_page));
}
