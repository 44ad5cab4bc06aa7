/* tests/fuzz/replay.c -- a main for a fuzz target without a fuzzer: every file of the folders named goes through it once.
 * Any compiler, any sanitizer: so the corpora are tests. Fails when there is nothing to run. */
#include <dirent.h>
#include <string.h>

#include "fuzz.h"

static void run_file(const char *path)
{
    FILE *file = fopen(path, "re");
    FUZZ_CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    long bytes = ftell(file);
    uint8_t *data = malloc(bytes > 0 ? (size_t)bytes : 1); /* of its exact size: the sanitizer sees a read beyond */
    rewind(file);
    FUZZ_CHECK(data != NULL && fread(data, 1, (size_t)bytes, file) == (size_t)bytes);
    fclose(file);
    fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(data, (size_t)bytes);
    free(data);
}

static unsigned run_folder(const char *path)
{
    unsigned count = 0;
    char file[4096];
    struct dirent **entries;
    int found = scandir(path, &entries, NULL, alphasort);
    FUZZ_CHECK(found >= 0);
    for (int i = 0; i < found; i++) {
        snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            run_file(file);
        count += entries[i]->d_name[0] != '.';
        free(entries[i]);
    }
    free(entries);
    return count;
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    for (int i = 1; i < argc; i++)
        count += run_folder(argv[i]);
    fprintf(stderr, "%u inputs\n", count);
    return count > 0 ? 0 : 1;
}
