/* router/metrics_process.c -- see metrics_process.h. */
#include "metrics_process.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct proc_files {
    int stat_fd, statm_fd;
};

static struct {
    pthread_mutex_t lock;
    pid_t pid; /* that opened the files; 0: nobody */
    struct proc_files own, supervisor;
    DIR *own_fds;
} opened = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int open_proc(pid_t pid, const char *name)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void open_files(struct proc_files *files, pid_t pid)
{
    files->stat_fd = open_proc(pid, "stat");
    files->statm_fd = open_proc(pid, "statm");
}

void metrics_process_open(void)
{
    pthread_mutex_lock(&opened.lock);
    if (opened.pid != getpid()) {
        opened.pid = getpid();
        open_files(&opened.own, getpid());
        open_files(&opened.supervisor, getppid());
        opened.own_fds = opendir("/proc/self/fd");
    }
    pthread_mutex_unlock(&opened.lock);
}

static void read_text(int fd, char *out, size_t out_bytes)
{
    ssize_t got = fd < 0 ? 0 : pread(fd, out, out_bytes - 1, 0); /* from the front: the text is made anew */
    out[got > 0 ? got : 0] = '\0';
}

/* Fields 14 and 15 of stat, in ticks; the name in field 2 may hold anything, so counting begins behind its ')'. */
static uint64_t read_cpu_us(int stat_fd)
{
    char line[1024];
    unsigned long user = 0, system = 0;
    read_text(stat_fd, line, sizeof(line));
    const char *name_end = strrchr(line, ')');
    if (name_end == NULL ||
        sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return 0;
    return (user + system) * (1000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t read_rss_bytes(int statm_fd)
{
    char line[256];
    unsigned long pages = 0;
    read_text(statm_fd, line, sizeof(line));
    return sscanf(line, "%*u %lu", &pages) == 1 ? pages * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static uint64_t count_own_fds(void)
{
    uint64_t count = 0;
    pthread_mutex_lock(&opened.lock);
    if (opened.own_fds != NULL) {
        rewinddir(opened.own_fds);
        for (const struct dirent *entry; (entry = readdir(opened.own_fds)) != NULL;)
            count += entry->d_name[0] != '.';
    }
    pthread_mutex_unlock(&opened.lock);
    return count;
}

static struct metrics_process read_process(const struct proc_files *files)
{
    return (struct metrics_process){read_cpu_us(files->stat_fd), read_rss_bytes(files->statm_fd), 0};
}

struct metrics_process metrics_process_own(void)
{
    metrics_process_open();
    struct metrics_process process = read_process(&opened.own);
    process.fds = count_own_fds();
    return process;
}

struct metrics_process metrics_process_supervisor(void)
{
    metrics_process_open();
    return read_process(&opened.supervisor);
}
