/* supervisor/base/child.c -- how a child of the supervisor begins: the other half of supervisor/spawn.c.
 * Does:     reads the settings from KV_FD_SETTINGS, starts the log, reports readiness on KV_FD_STATUS.
 * Promises: the settings are read by position, since all children share one memfd and so one file offset; the
 *           bytes, which hold the token, are wiped after parsing.
 * Fails:    without settings (started by hand) or with broken ones: one line, exit code KV_EXIT_CONFIG.
 * Tests:    unit/base/test_child.c, system/test_supervisor.c. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kv/buf.h"
#include "kv/child.h"
#include "kv/log.h"
#include "kv/settings.h"

#define SETTINGS_BYTES_MAX (256u * 1024) /* every setting at its longest, escaped, fits twice */

static _Noreturn void die_at_start(const char *process, const char *why)
{
    fprintf(stderr, "kv-%s: %s; it is started by kv-storage, not by hand\n", process, why);
    _exit(KV_EXIT_CONFIG);
}

static void read_settings_bytes(const char *process, struct kv_buf *out)
{
    uint8_t *space = kv_buf_reserve(out, SETTINGS_BYTES_MAX);
    while (out->bytes < SETTINGS_BYTES_MAX) {
        ssize_t got = pread(KV_FD_SETTINGS, space + out->bytes, SETTINGS_BYTES_MAX - out->bytes, (off_t)out->bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            die_at_start(process, "descriptor 3 holds no settings");
        if (got == 0)
            return;
        out->bytes += (size_t)got;
    }
    die_at_start(process, "the settings on descriptor 3 are too large");
}

void kv_child_start(const char *process, int shard_index, struct kv_settings *out)
{
    signal(SIGPIPE, SIG_IGN);
    struct kv_buf lines = {0};
    read_settings_bytes(process, &lines);
    struct kv_settings settings;
    if (kv_settings_read(kv_buf_peek(&lines), &settings) != KV_OK)
        die_at_start(process, "the settings on descriptor 3 are malformed");
    explicit_bzero(lines.data, lines.bytes);
    kv_buf_free(&lines);
    close(KV_FD_SETTINGS);
    kv_log_init(&(struct kv_log_options){
        .level = (enum kv_log_level)settings.log_level,
        .json = settings.log_format == KV_LOG_FORMAT_JSON,
        .process = process,
        .shard_index = shard_index,
    });
    kv_log_epoch(settings.epoch);
    *out = settings;
}

static void tell(char byte)
{
    while (write(KV_FD_STATUS, &byte, 1) < 0)
        if (errno != EINTR) /* EPIPE: the supervisor is gone, and so are we in a moment */
            return;
}

void kv_child_ready(void)
{
    tell(KV_CHILD_READY);
}

void kv_child_reloaded(bool accepted)
{
    tell(accepted ? KV_CHILD_RELOADED : KV_CHILD_REFUSED);
}
