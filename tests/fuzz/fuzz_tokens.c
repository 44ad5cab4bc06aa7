/* TOKEN_FILE and TOKENS_FILE. Input: which of them, then the file. The token of the seeds is found with the rights that stand there;
 * a refusal is one sentence, whatever was in the file. */
#include "fuzz.h"

#include "tokens.h"

static void look_up(const struct tokens *tokens, struct kv_slice presented)
{
    const struct grant *grant = tokens_find(tokens, presented);
    if (grant == NULL)
        return;
    FUZZ_CHECK((grant->rights & TOKEN_ALL) != 0 && (grant->rights & ~(unsigned)TOKEN_ALL) == 0);
    FUZZ_CHECK(grant_lacks(grant, grant->rights) == NULL);
    fuzz_look(grant->prefix);
    grant_refuses(grant, TOKEN_READ, kv_slice_text("some/key"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kv_slice input = kv_slice(data, bytes);
    struct kv_files files = {0};
    struct tokens *tokens = NULL;
    char why[256] = "";
    bool many = fuzz_number(&input, 1) != '1';
    kv_buf_append(many ? &files.tokens : &files.token, input);
    enum kv_err err = tokens_new(NULL, &files, &tokens, why, sizeof(why));
    FUZZ_CHECK(err == KV_OK ? tokens != NULL : err == KV_INVALID && strlen(why) > 10 && strchr(why, '\n') == NULL);
    kv_files_free(&files);
    if (err == KV_OK) {
        look_up(tokens, kv_slice_text("test-token"));
        look_up(tokens, input);
    }
    tokens_release(&tokens);
    return 0;
}
