/*
 * A cascade from C: a price is set from outside, a line's total is made from the price, a basket's total from its lines.
 * Each step checks what it says; the program prints what it saw and ends with 0, or says which line failed and ends with 1.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wellspring.h"

#define CHECK(claim)                                                                                                   \
    do {                                                                                                               \
        if (!(claim)) {                                                                                                \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #claim);                                        \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The call works, or the program says why not. */
#define WORKS(call)                                                                                                    \
    do {                                                                                                               \
        if ((call) != WS_CODE_OK) {                                                                                    \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, err.message ? err.message : "?");            \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The call fails with this code, and its sentence holds these words. */
#define FAILS(call, expected, words)                                                                                   \
    do {                                                                                                               \
        ws_code got = (call);                                                                                          \
        if (got != (expected) || err.code != got || !err.message || !strstr(err.message, words)) {                     \
            fprintf(stderr, "%s:%d: %s: code %d: %s\n", __FILE__, __LINE__, #call, (int)got,                           \
                    err.message ? err.message : "?");                                                                  \
            exit(1);                                                                                                   \
        }                                                                                                              \
        printf("refused: %s\n", err.message);                                                                          \
        ws_error_free(&err);                                                                                           \
        CHECK(err.message == NULL && err.code == WS_CODE_OK);                                                          \
    } while (0)

/* What the callbacks read through, and how often they ran. */
struct shop {
    ws_function *price;
    ws_function *line;
    ws_function *total;
    int line_runs;
    int total_runs;
    int destroyed;
};

/* The line totals of a basket; a key of `line` is one of these. */
struct line {
    char product[8];
    uint32_t quantity;
};

static const struct line BASKET[] = {{"apple", 3}, {"pear", 2}, {"plum", 0}};
enum { LINES = sizeof BASKET / sizeof BASKET[0], NO_SUCH_BASKET = 44 };

static int64_t number(const ws_buffer *buffer)
{
    int64_t value;
    CHECK(buffer->len == sizeof value);
    memcpy(&value, buffer->data, sizeof value);
    return value;
}

/* price * quantity */
static int32_t compute_line(ws_context *context, void *user, const void *key, size_t key_len)
{
    struct shop *shop = user;
    struct line line;
    ws_buffer price;
    int64_t total;

    shop->line_runs++;
    if (key_len != sizeof line)
        return 1;
    memcpy(&line, key, sizeof line);
    if (ws_context_get(context, shop->price, line.product, strlen(line.product), &price, NULL))
        return 2;
    total = number(&price) * line.quantity;
    ws_buffer_free(&price);
    return ws_context_set_value(context, &total, sizeof total, NULL) ? 3 : 0;
}

/* the sum of the lines */
static int32_t compute_total(ws_context *context, void *user, const void *key, size_t key_len)
{
    struct shop *shop = user;
    int64_t sum = 0;

    shop->total_runs++;
    if (key_len != 6 || memcmp(key, "basket", 6) != 0) {
        ws_context_set_message(context, "there is no such basket", NULL);
        return NO_SUCH_BASKET;
    }
    for (int i = 0; i < LINES; i++) {
        ws_buffer line;
        if (ws_context_get(context, shop->line, &BASKET[i], sizeof BASKET[i], &line, NULL))
            return 2;
        sum += number(&line);
        ws_buffer_free(&line);
    }
    return ws_context_set_value(context, &sum, sizeof sum, NULL) ? 3 : 0;
}

static void count_destroyed(void *user)
{
    ((struct shop *)user)->destroyed++;
}

static void set_price(ws_function *price, const char *product, int64_t cents, uint64_t *commit)
{
    ws_error err;
    WORKS(ws_source_set(price, product, strlen(product), &cents, sizeof cents, commit, &err));
}

static int64_t total_of(struct shop *shop)
{
    ws_error err;
    ws_buffer out;
    int64_t value;
    WORKS(ws_get(shop->total, "basket", 6, &out, &err));
    value = number(&out);
    ws_buffer_free(&out);
    CHECK(out.data == NULL && out.len == 0);
    printf("total %" PRId64 ", line ran %d times, total ran %d times\n", value, shop->line_runs, shop->total_runs);
    return value;
}

static void cascade(struct shop *shop)
{
    uint64_t first, second;

    set_price(shop->price, "apple", 50, &first);
    set_price(shop->price, "pear", 80, NULL);
    CHECK(total_of(shop) == 3 * 50 + 2 * 80);
    CHECK(shop->line_runs == LINES && shop->total_runs == 1);

    /* Asked again: looked up, nothing runs. */
    CHECK(total_of(shop) == 310);
    CHECK(shop->line_runs == LINES && shop->total_runs == 1);

    /* A new price: the one line that reads it runs again, and the total. */
    set_price(shop->price, "apple", 60, &second);
    CHECK(second > first);
    CHECK(total_of(shop) == 340);
    CHECK(shop->line_runs == LINES + 1 && shop->total_runs == 2);

    /* The same price once more: no change. */
    set_price(shop->price, "apple", 60, NULL);
    CHECK(total_of(shop) == 340);
    CHECK(shop->line_runs == LINES + 1 && shop->total_runs == 2);

    /* No plums are in the basket: their line runs, comes out equal, and the total is found to be good still. */
    set_price(shop->price, "plum", 10, NULL);
    CHECK(total_of(shop) == 340);
    CHECK(shop->line_runs == LINES + 2 && shop->total_runs == 2);
}

static void batches(ws_engine *engine, struct shop *shop)
{
    ws_error err;
    ws_batch *batch;
    uint64_t before, commit, after;
    int64_t apple = 100, pear = 200;

    WORKS(ws_engine_commit(engine, &before, &err));
    WORKS(ws_batch_begin(engine, &batch, &err));
    WORKS(ws_batch_set(batch, shop->price, "apple", 5, &apple, sizeof apple, &err));
    WORKS(ws_batch_set(batch, shop->price, "pear", 4, &pear, sizeof pear, &err));
    WORKS(ws_batch_invalidate(batch, shop->line, &BASKET[2], sizeof BASKET[2], &err));
    CHECK(total_of(shop) == 340); /* nothing happens before the commit */
    WORKS(ws_batch_commit(batch, &commit, &err));
    WORKS(ws_engine_commit(engine, &after, &err));
    CHECK(commit > before && after == commit);
    CHECK(total_of(shop) == 700);
    CHECK(shop->line_runs == 2 * LINES + 2 && shop->total_runs == 3);
    FAILS(ws_batch_commit(batch, NULL, &err), WS_CODE_BAD_HANDLE, "batch");

    WORKS(ws_batch_begin(engine, &batch, &err));
    WORKS(ws_batch_invalidate_all(batch, shop->total, &err));
    WORKS(ws_batch_cancel(batch, &err));
    CHECK(total_of(shop) == 700 && shop->total_runs == 3);

    WORKS(ws_invalidate(shop->total, "basket", 6, NULL, &err));
    CHECK(total_of(shop) == 700 && shop->total_runs == 4);
    WORKS(ws_invalidate_all(shop->line, NULL, &err));
    CHECK(total_of(shop) == 700 && shop->line_runs == 3 * LINES + 2 && shop->total_runs == 4);
    WORKS(ws_invalidate_everything(engine, NULL, &err));
}

static void peeks(struct shop *shop)
{
    ws_error err;
    ws_buffer out;
    int64_t value = 0;
    size_t len = 0;
    int runs = shop->total_runs;

    FAILS(ws_peek(shop->total, "basket", 6, &value, sizeof value, &len, &err), WS_CODE_NOT_CACHED, "cached");
    FAILS(ws_existing(shop->total, "basket", 6, &out, &err), WS_CODE_NOT_CACHED, "cached");
    CHECK(shop->total_runs == runs && out.data == NULL);
    CHECK(total_of(shop) == 700);
    FAILS(ws_peek(shop->total, "basket", 6, &value, 7, &len, &err), WS_CODE_BUFFER_TOO_SMALL, "8 bytes");
    CHECK(len == sizeof value && value == 0);
    WORKS(ws_peek(shop->total, "basket", 6, &value, sizeof value, &len, &err));
    CHECK(len == sizeof value && value == 700);
    WORKS(ws_existing(shop->total, "basket", 6, &out, &err));
    CHECK(number(&out) == 700);
    ws_buffer_free(&out);
}

static void refusals(ws_engine *engine, struct shop *shop)
{
    ws_error err;
    ws_buffer out;
    ws_function *function;
    int runs = shop->total_runs;

    /* Registration. The destructor runs whatever the reason of the refusal. */
    FAILS(ws_function_new(engine, "total", WS_CUT_OFF_EQ, compute_total, shop, count_destroyed, &function, &err),
          WS_CODE_DUPLICATE, "total");
    CHECK(shop->destroyed == 1);
    FAILS(ws_function_new(NULL, "other", WS_CUT_OFF_EQ, compute_total, shop, count_destroyed, &function, &err),
          WS_CODE_NULL_ARGUMENT, "NULL");
    FAILS(ws_function_new(engine, NULL, WS_CUT_OFF_EQ, compute_total, shop, count_destroyed, &function, &err),
          WS_CODE_NULL_ARGUMENT, "name");
    FAILS(ws_function_new(engine, "other", WS_CUT_OFF_EQ, NULL, shop, count_destroyed, &function, &err),
          WS_CODE_NULL_ARGUMENT, "compute");
    FAILS(ws_function_new(engine, "other", 7, compute_total, shop, count_destroyed, &function, &err),
          WS_CODE_BAD_ARGUMENT, "rule 7");
    FAILS(ws_function_new(engine, "other", WS_CUT_OFF_EQ, compute_total, shop, count_destroyed, NULL, &err),
          WS_CODE_NULL_ARGUMENT, "out");
    CHECK(shop->destroyed == 6);
    FAILS(ws_source_new(engine, "\xff", NULL, 0, &function, &err), WS_CODE_BAD_ARGUMENT, "UTF-8");

    /* Reading and setting. */
    FAILS(ws_get(NULL, "basket", 6, &out, &err), WS_CODE_NULL_ARGUMENT, "NULL");
    FAILS(ws_get(shop->total, NULL, 6, &out, &err), WS_CODE_NULL_ARGUMENT, "key");
    FAILS(ws_get(shop->total, "basket", 6, NULL, &err), WS_CODE_NULL_ARGUMENT, "out");
    FAILS(ws_get((ws_function *)engine, "basket", 6, &out, &err), WS_CODE_BAD_HANDLE, "an engine");
    FAILS(ws_get((ws_function *)(void *)shop, "basket", 6, &out, &err), WS_CODE_BAD_HANDLE, "never was");
    FAILS(ws_source_set(shop->total, "basket", 6, "x", 1, NULL, &err), WS_CODE_NOT_A_SOURCE, "total");
    CHECK(ws_get(NULL, "basket", 6, &out, NULL) == WS_CODE_NULL_ARGUMENT);

    /* A callback's own code reaches the reader, and is cached. */
    for (int i = 0; i < 2; i++) {
        CHECK(ws_get(shop->total, "nobody's", 8, &out, &err) == WS_CODE_CALLBACK_FAILED);
        CHECK(err.callback_code == NO_SUCH_BASKET && out.data == NULL);
        CHECK(strstr(err.message, "there is no such basket"));
        ws_error_free(&err);
    }
    CHECK(shop->total_runs == runs + 1);
}

int main(void)
{
    struct shop shop = {0};
    ws_engine *engine;
    ws_function *unset;
    ws_error err;
    ws_buffer out;
    ws_stats stats;
    int64_t free_of_charge = 0;
    int64_t *last;

    WORKS(ws_engine_new(&engine, &err));
    WORKS(ws_source_new(engine, "price", &free_of_charge, sizeof free_of_charge, &shop.price, &err));
    WORKS(ws_function_new(engine, "line", WS_CUT_OFF_EQ, compute_line, &shop, NULL, &shop.line, &err));
    WORKS(ws_function_new(engine, "total", WS_CUT_OFF_EQ, compute_total, &shop, count_destroyed, &shop.total, &err));

    cascade(&shop);
    batches(engine, &shop);
    peeks(&shop);
    refusals(engine, &shop);

    WORKS(ws_source_new(engine, "unset", NULL, 0, &unset, &err));
    FAILS(ws_get(unset, "key", 3, &out, &err), WS_CODE_NOT_SET, "unset");

    WORKS(ws_engine_stats(engine, &stats, &err));
    CHECK(stats.computes >= (uint64_t)(shop.line_runs + shop.total_runs));
    CHECK(stats.nodes >= LINES && stats.edges_live >= LINES && stats.hits > 0 && stats.sweeps > 0);
    WORKS(ws_collect(engine, NULL, &err));
    WORKS(ws_engine_check(engine, &err));

    /* A buffer outlives its engine, and everything else goes with it. */
    WORKS(ws_get(shop.total, "basket", 6, &out, &err));
    WORKS(ws_engine_free(engine, &err));
    CHECK(shop.destroyed == 7);
    last = malloc(out.len);
    CHECK(last != NULL);
    memcpy(last, out.data, out.len);
    CHECK(*last == 700);
    free(last);
    ws_buffer_free(&out);
    FAILS(ws_get(shop.total, "basket", 6, &out, &err), WS_CODE_BAD_HANDLE, "freed");
    FAILS(ws_engine_free(engine, &err), WS_CODE_BAD_HANDLE, "freed");
    WORKS(ws_engine_free(NULL, &err));

    printf("done\n");
    return 0;
}
