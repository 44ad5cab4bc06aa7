/* tests/system/tree.c -- see tree.h. */
#include "tree.h"

#include <ftw.h>
#include <stdlib.h>

#include "client.h"

#define TREE_COUNT_MIN 5000u

/* nftw has no argument for its callback. */
static char **paths;
static size_t path_count, path_capacity;

static int on_file(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)walk;
    if (type != FTW_F || !S_ISREG(info->st_mode) || info->st_size > (off_t)TREE_FILE_BYTES_MAX)
        return 0;
    if (path_count == path_capacity) {
        path_capacity = path_capacity * 2 + 1024;
        paths = kv_realloc(paths, path_capacity * sizeof *paths);
    }
    paths[path_count++] = strdup(path);
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void read_one(struct tree_file *file, char *path)
{
    file->path = path;
    file->target = target_of_key(kv_slice_text(path + 1), false);
    file->bytes = read_file(path);
    sha256_hex(kv_buf_peek(&file->bytes), file->sha256);
}

static size_t count_unique(const struct tree *tree)
{
    const char **digests = kv_alloc(tree->count * sizeof *digests);
    size_t unique = 0;
    for (size_t i = 0; i < tree->count; i++)
        digests[i] = tree->files[i].sha256;
    qsort(digests, tree->count, sizeof *digests, by_text);
    for (size_t i = 0; i < tree->count; i++)
        unique += i == 0 || strcmp(digests[i], digests[i - 1]) != 0;
    free(digests);
    return unique;
}

struct tree tree_read(size_t count_max)
{
    struct tree tree = {0};
    path_count = 0;
    nftw("/usr/share/doc", on_file, 32, FTW_PHYS);
    nftw("/usr/include", on_file, 32, FTW_PHYS);
    CHECK(path_count >= TREE_COUNT_MIN, "only %zu files below /usr/share/doc and /usr/include", path_count);
    qsort(paths, path_count, sizeof *paths, by_text);
    tree.count = path_count < count_max ? path_count : count_max;
    tree.files = kv_alloc_zero(tree.count, sizeof *tree.files);
    size_t taken = 0;
    for (size_t i = 0; i < path_count; i++) {
        if (taken < tree.count && i == taken * path_count / tree.count)
            read_one(&tree.files[taken++], paths[i]);
        else
            free(paths[i]);
    }
    free(paths);
    paths = NULL;
    path_count = path_capacity = 0;
    for (size_t i = 0; i < tree.count; i++)
        tree.bytes += tree.files[i].bytes.bytes;
    tree.unique_count = count_unique(&tree);
    return tree;
}

void tree_free(struct tree *tree)
{
    for (size_t i = 0; i < tree->count; i++) {
        free(tree->files[i].path);
        free(tree->files[i].target);
        kv_buf_free(&tree->files[i].bytes);
    }
    free(tree->files);
    memset(tree, 0, sizeof *tree);
}
