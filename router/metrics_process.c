/* router/metrics_process.c -- see metrics_process.h. */
#include "metrics_process.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static FILE *open_proc(pid_t pid, const char *name)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    return fopen(path, "re");
}

/* Fields 14 and 15 of stat, in ticks; the name in field 2 may hold anything, so counting begins behind its ')'. */
static uint64_t read_cpu_us(pid_t pid)
{
    char line[1024] = "";
    unsigned long user = 0, system = 0;
    FILE *file = open_proc(pid, "stat");
    if (file == NULL)
        return 0;
    size_t bytes = fread(line, 1, sizeof(line) - 1, file);
    fclose(file);
    line[bytes] = '\0';
    const char *name_end = strrchr(line, ')');
    if (name_end == NULL ||
        sscanf(name_end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return 0;
    return (user + system) * (1000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t read_rss_bytes(pid_t pid)
{
    unsigned long pages = 0;
    FILE *file = open_proc(pid, "statm");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%*u %lu", &pages) != 1)
        pages = 0;
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t count_fds(pid_t pid)
{
    char path[64];
    uint64_t count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    if (dir == NULL)
        return 0;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return pid == getpid() ? count - 1 : count; /* the directory itself was one of ours */
}

struct metrics_process metrics_process_read(pid_t pid)
{
    return (struct metrics_process){read_cpu_us(pid), read_rss_bytes(pid), count_fds(pid)};
}
