/* tests/system/environment.h -- what server.c and tools.c share and tests need not see. */
#ifndef KV_SYSTEM_ENVIRONMENT_H
#define KV_SYSTEM_ENVIRONMENT_H

/* The environment of a process under test: `settings` (up to NULL) and, of our own environment, only what the machine and the
 * sanitizers need: a TOKEN or SHARDS of the developer's shell never reaches a test. malloc'ed. */
char **environment_make(const char *const *settings);
/* Removes what temp_folder made. */
void temp_folders_remove(void);

#endif
