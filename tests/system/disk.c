/* tests/system/disk.c -- see disk.h. */
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 100 };

static const char *ballast_path(const struct server *server, char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%.64s/disk/ballast", server->folder);
    return out;
}

bool disk_mount(struct server *server, const char *kind)
{
    char disk[80], image[80], command[512], options[64] = "size=64m,mode=0700";
    snprintf(disk, sizeof disk, "%s/disk", server->folder);
    snprintf(image, sizeof image, "%s/image", server->folder);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        (mkdir(disk, 0700) != 0 && errno != EEXIST))
        return false;
    snprintf(command, sizeof command, "truncate -s 64M %s && mkfs.ext4 -q -m 0 -F %s && mount -o loop %s %s", image,
             image, image, disk);
    bool mounted = strcmp(kind, "ext4") == 0 ? system(command) == 0 : mount("none", disk, kind, 0, options) == 0;
    snprintf(server->db_path, sizeof server->db_path, "%.60s/disk/db", server->folder);
    return mounted;
}

void disk_unmount(const struct server *server)
{
    char disk[80];
    snprintf(disk, sizeof disk, "%s/disk", server->folder);
    umount2(disk, MNT_DETACH);
}

void disk_fill(const struct server *server, off_t leave_bytes)
{
    static const uint8_t bytes[4096];
    char path[PATH_BYTES];
    struct stat status;
    int fd = open(ballast_path(server, path), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && fstat(fd, &status) == 0, "%s: %s", path, strerror(errno));
    for (off_t step = 1 << 20, at = status.st_size; step >= 4096;)
        if (posix_fallocate(fd, at, step) == 0)
            at += step;
        else
            step /= 2;
    while (write(fd, bytes, sizeof bytes) > 0)
        continue;
    CHECK(fstat(fd, &status) == 0 && ftruncate(fd, status.st_size - leave_bytes) == 0, "%s", strerror(errno));
    close(fd);
}

void disk_empty(const struct server *server)
{
    char path[PATH_BYTES];
    CHECK(unlink(ballast_path(server, path)) == 0, "%s: %s", path, strerror(errno));
}
