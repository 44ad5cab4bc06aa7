/* supervisor/config.h -- the whole configuration, read once and checked before anything is opened or made. */
#ifndef KV_CONFIG_H
#define KV_CONFIG_H

#include <stdio.h>

#include "kv/settings.h"
#include "why.h"

enum config_action { CONFIG_RUN, CONFIG_HEALTH, CONFIG_HELP, CONFIG_VERSION };

/* Environment first, then flags (`--name=value` or `--name value`; flags win). An empty environment variable counts as
 * not set. With CONFIG_RUN the result is checked as a whole, and ROUTER_THREADS is resolved; SHARDS stays 0 when not given,
 * since an existing store decides. On error `settings` is untouched. */
enum kv_err config_read(int argc, char *const *argv, char *const *environment, struct kv_settings *settings,
                        enum config_action *action, struct why *why);

/* Processors that this process may use, at least 1. */
unsigned config_cores(void);

/* Overwrites the token where /proc/<pid>/environ and cmdline show it, and removes it from the environment that
 * children inherit. */
void config_wipe_token(int argc, char **argv);

/* The manual page of the table in kv/settings.h; internal rows are left out. */
void config_print_help(FILE *out);

#endif
