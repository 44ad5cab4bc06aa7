/* Goal: addresses are taken apart strictly, and a socket listens where it says. Method: table; loopback, port 0. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "address.h"

static struct why why;

Test(address, parse)
{
    static const struct {
        const char *text, *host, *port;
    } good[] = {{"0.0.0.0:3000", "0.0.0.0", "3000"},
                {"localhost:0", "localhost", "0"},
                {"[::1]:65535", "::1", "65535"},
                {"[::]:1", "::", "1"}},
      bad[] = {{"", "", ""},        {":1", "", ""},         {"host", "", ""},    {"host:", "", ""},
               {"host:x", "", ""},  {"host:65536", "", ""}, {"host:-1", "", ""}, {"host:+1", "", ""},
               {"host:1 ", "", ""}, {"::1:3000", "", ""},   {"[::1]", "", ""},   {"[::1:1", "", ""},
               {"[]:1", "", ""},    {"[::1]3000", "", ""},  {"OFF", "", ""},     {"host:000001", "", ""}};
    struct address address;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        cr_assert_eq(address_parse("X", good[i].text, &address, &why), KV_OK, "%s", why.text);
        cr_expect_str_eq(address.host, good[i].host);
        cr_expect_str_eq(address.port, good[i].port);
        cr_expect_not(address.off);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_eq(address_parse("BIND_ADDR", bad[i].text, &address, &why), KV_INVALID, "\"%s\"", bad[i].text);
        cr_expect_eq(strncmp(why.text, "BIND_ADDR: ", 11), 0, "%s", why.text);
    }
    cr_expect_eq(address_parse("X", "off", &address, &why), KV_OK);
    cr_expect(address.off);
}

Test(address, a_host_name_has_a_limit)
{
    char text[300];
    struct address address;
    memset(text, 'h', sizeof(text));
    strcpy(text + 255, ":1");
    cr_expect_eq(address_parse("X", text, &address, &why), KV_OK);
    memset(text, 'h', sizeof(text));
    strcpy(text + 256, ":1");
    cr_expect_eq(address_parse("X", text, &address, &why), KV_INVALID);
}

Test(address, listen_connect_and_a_busy_port)
{
    struct address address;
    char shown[128];
    int listening, client, second;
    cr_assert_eq(address_parse("BIND_ADDR", "127.0.0.1:0", &address, &why), KV_OK);
    cr_assert_eq(address_listen("BIND_ADDR", &address, &listening, &why), KV_OK, "%s", why.text);
    address_of_socket(listening, shown, sizeof(shown));
    cr_expect_eq(strncmp(shown, "127.0.0.1:", 10), 0, "%s", shown);
    cr_expect_str_neq(shown, "127.0.0.1:0");

    char everywhere[128];
    snprintf(everywhere, sizeof(everywhere), "0.0.0.0:%s", shown + 10);
    cr_assert_eq(address_parse("BIND_ADDR", everywhere, &address, &why), KV_OK);
    cr_assert_eq(address_connect("BIND_ADDR", &address, 1000, &client, &why), KV_OK, "%s", why.text);
    close(client);

    cr_assert_eq(address_parse("BIND_ADDR", shown, &address, &why), KV_OK);
    cr_expect_eq(address_listen("BIND_ADDR", &address, &second, &why), KV_INVALID);
    cr_expect_eq(strncmp(why.text, "BIND_ADDR: cannot listen on 127.0.0.1 port ", 43), 0, "%s", why.text);
    cr_expect_not_null(strstr(why.text, "Address already in use"));
    close(listening);
    cr_expect_eq(address_connect("BIND_ADDR", &address, 1000, &client, &why), KV_INVALID, "nobody listens any more");
}

Test(address, names_that_do_not_resolve)
{
    struct address address = {.host = "999.999.999.999", .port = "1"};
    int fd;
    cr_expect_eq(address_listen("TLS_BIND_ADDR", &address, &fd, &why), KV_INVALID);
    cr_expect_eq(strncmp(why.text, "TLS_BIND_ADDR: 999.999.999.999 cannot be resolved", 49), 0, "%s", why.text);
}
