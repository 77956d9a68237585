/* The calls of AF_IPN, a row each: rows SECTION DIRECTORY.
 *
 * Prints "name <tab> result <tab> errno <tab> value". rows.py does the same with the library's sockets, in the same
 * order and under the same names; what starts with "C:" only a C program can do. All that the sections "here",
 * "options", "joined" and "pointers" make is new in DIRECTORY; "stranger" is for another user, on what test_rows.py has
 * made there; "end" waits for a line and by then its network must have ended.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "af_ipn.h"

#ifndef SO_DOMAIN
#define SO_DOMAIN 39
#endif

static const char *directory;

static void row(const char *name, long result)
{
    printf("%s\t%ld\t%d\t\n", name, result, result < 0 ? errno : 0);
}

__attribute__((format(printf, 3, 4))) static void value(const char *name, long result, const char *format, ...)
{
    va_list words;

    printf("%s\t%ld\t%d\t", name, result, result < 0 ? errno : 0);
    va_start(words, format);
    if (result >= 0)
        vprintf(format, words);
    va_end(words);
    putchar('\n');
}

static int new_socket(int policy)
{
    return socket(AF_IPN, SOCK_RAW, policy);
}

static struct sockaddr *at(const char *name)
{
    static struct sockaddr_un sun;

    memset(&sun, 0, sizeof sun);
    sun.sun_family = AF_IPN;
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s/%s", directory, name);
    return (struct sockaddr *)&sun;
}

static int bind_to(int net, const char *name)
{
    return bind(net, at(name), sizeof(struct sockaddr_un));
}

static int connect_to(int net, const char *name)
{
    return connect(net, at(name), sizeof(struct sockaddr_un));
}

static int set(int net, int option, int number)
{
    return setsockopt(net, 0, option, &number, sizeof number);
}

static void get(const char *name, int net, int level, int option)
{
    int number = -7;
    socklen_t room = sizeof number;
    int result = getsockopt(net, level, option, &number, &room);

    value(name, result, "%d", number);
}

static void named(const char *name, int net, int (*call)(int, struct sockaddr *, socklen_t *))
{
    struct sockaddr_un sun;
    socklen_t room = sizeof sun;
    int result = call(net, (struct sockaddr *)&sun, &room);

    value(name, result, "%s", sun.sun_path + strlen(directory) + 1);
}

static void made(const char *name, int net)
{
    row(name, net < 0 ? -1 : 0);
    close(net);
}

static void polled(const char *name, int net)
{
    struct pollfd here = {.fd = net, .events = POLLIN | POLLOUT};
    int result = poll(&here, 1, 0);

    value(name, result, "%d", here.revents);
}

static void received(const char *name, int net, size_t size, int flags)
{
    char data[2000];
    struct iovec vector = {data, size};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};
    ssize_t result = recvmsg(net, &header, flags);

    value(name, result, "%d %.*s", header.msg_flags, (int)(result > 8 ? 8 : result), data);
}

/* -- here: what a socket says before it has joined, and where there is no network ------------------------------- */

static void request(const char *when, int net, int kind)
{
    struct ifreq ifr = {.ifr_name = "nothing0"};
    char name[64];

#define REQUEST(number, argument) \
    snprintf(name, sizeof name, "ioctl " #number " %s", when); \
    row(name, ioctl(net, number, argument));
    ifr.ifr_flags = kind;
    REQUEST(IPN_CONN_NETDEV, &ifr)
    ifr.ifr_flags = 0;
    REQUEST(IPN_JOIN_NETDEV, &ifr)
    REQUEST(IPN_SETPERSIST, 1L)
    REQUEST(IPN_SETPERSIST_NETDEV, &ifr)
    REQUEST(IPN_CLRPERSIST_NETDEV, &ifr)
    REQUEST(SIOCSIFHWADDR, &ifr)
    REQUEST(IPN_REQUEST(77), 0L)
}

static void here(void)
{
    char byte;
    int net, pair[2];

    made("socket stream", socket(AF_IPN, SOCK_STREAM, IPN_BROADCAST));
    made("socket datagram", socket(AF_IPN, SOCK_DGRAM, IPN_BROADCAST));
    made("socket seqpacket", socket(AF_IPN, SOCK_SEQPACKET, IPN_BROADCAST));
    made("socket policy 77", new_socket(77));
    made("socket policy -1", new_socket(-1));
    made("socket policy 300", new_socket(300));
    made("socket any", new_socket(IPN_ANY));
    made("socket switch", new_socket(IPN_VDESWITCH));
    made("socket flags", socket(AF_IPN, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPN_BROADCAST));
    row("C: socketpair", socketpair(AF_IPN, SOCK_RAW, IPN_BROADCAST, pair));

    net = new_socket(IPN_BROADCAST);
    row("send fresh", send(net, "x", 1, 0));
    row("recv fresh", recv(net, &byte, 1, MSG_DONTWAIT));
    polled("poll fresh", net);
    named("getsockname fresh", net, getsockname);
    named("getpeername fresh", net, getpeername);
    row("listen", listen(net, 5));
    row("accept", accept(net, NULL, NULL));
    row("C: accept4", accept4(net, NULL, NULL, 0));
    request("fresh", net, IPN_NODEFLAG_TAP);
    row("shutdown 7", shutdown(net, 7));
    row("connect without path", connect(net, NULL, 0));
    row("connect missing", connect_to(net, "missing"));
    row("connect file", connect_to(net, "file"));
    row("connect dead", connect_to(net, "dead"));
    row("bind file", bind_to(net, "file"));
    row("bind missing directory", bind_to(net, "missing/net"));
    row("bind afterwards", bind_to(net, "afterwards"));
    close(net);
}

/* -- options: each of them unset, set wrong, set right, on a live network ------------------------------------------ */

static const struct option {
    const char *name;
    int number, good;
} OPTIONS[] = {
    {"mtu", IPN_SO_MTU, 100},
    {"numnodes", IPN_SO_NUMNODES, 5},
    {"msgpoolsize", IPN_SO_MSGPOOLSIZE, 3},
    {"flags", IPN_SO_FLAGS, IPN_FLAG_LOSSLESS},
    {"mode", IPN_SO_MODE, 0700},
    {"port", IPN_SO_PORT, 2},
    {"want_oob", IPN_SO_WANT_OOB_NUMNODES, 1},
    {"handle_oob", IPN_SO_HANDLE_OOB, 1},
    {"want_oob again", IPN_SO_WANT_OOB_NUMNODES, 1},
    {"change_numnodes", IPN_SO_CHANGE_NUMNODES, 6},
    {"unknown", 99, 1},
};
#define ALL (sizeof OPTIONS / sizeof *OPTIONS)

static void try_options(const char *when, int net)
{
    static const int WRONG[] = {0, -1, -2, 1 << 30};
    char name[80];

    for (const struct option *option = OPTIONS; option < OPTIONS + ALL; option++) {
        snprintf(name, sizeof name, "%s %s", option->name, when);
        get(name, net, 0, option->number);
        for (int index = 0; index < 4; index++) {
            snprintf(name, sizeof name, "%s %s set %d", option->name, when, WRONG[index]);
            row(name, set(net, option->number, WRONG[index]));
        }
        snprintf(name, sizeof name, "%s %s set", option->name, when);
        row(name, set(net, option->number, option->good));
        snprintf(name, sizeof name, "%s %s afterwards", option->name, when);
        get(name, net, 0, option->number);
    }
}

static void describe(const char *when, int net)
{
    char text[200] = "what a node is", name[80];
    socklen_t room = IPN_DESCRLEN;
    int result;

    snprintf(name, sizeof name, "descr %s", when);
    row(name, setsockopt(net, 0, IPN_SO_DESCR, text, strlen(text)));
    snprintf(name, sizeof name, "descr %s read", when);
    memset(text, 0, sizeof text);
    result = getsockopt(net, 0, IPN_SO_DESCR, text, &room);
    value(name, result, "%u %s", room, text);
    memset(text, 'x', sizeof text);
    snprintf(name, sizeof name, "descr %s too long", when);
    row(name, setsockopt(net, 0, IPN_SO_DESCR, text, IPN_DESCRLEN + 1));
    snprintf(name, sizeof name, "descr %s longest", when);
    row(name, setsockopt(net, 0, IPN_SO_DESCR, text, IPN_DESCRLEN));
    snprintf(name, sizeof name, "descr %s small room", when);
    room = IPN_DESCRLEN - 1;
    row(name, getsockopt(net, 0, IPN_SO_DESCR, text, &room));
}

static void options(void)
{
    short half = 1;
    socklen_t room = sizeof half;
    int net = new_socket(IPN_BROADCAST), plain = new_socket(IPN_BROADCAST), hub = new_socket(IPN_VDESWITCH);

    try_options("unbound", net);
    describe("unbound", net);
    row("option of 2 bytes", setsockopt(net, 0, IPN_SO_PORT, &half, sizeof half));
    row("room of 2 bytes", getsockopt(net, 0, IPN_SO_PORT, &half, &room));
    row("level 2 unbound", setsockopt(net, 2, 1, &half, sizeof half));
    get("C: type", net, SOL_SOCKET, SO_TYPE);
    get("C: domain", net, SOL_SOCKET, SO_DOMAIN);
    get("C: protocol", net, SOL_SOCKET, SO_PROTOCOL);
    row("bind", bind_to(net, "options"));
    try_options("bound", net);
    describe("bound", net);
    row("connect", connect(net, NULL, 0));
    try_options("connected", net);
    describe("connected", net);
    row("level of the policy", setsockopt(net, IPN_BROADCAST, 8, &(int){4096}, sizeof(int)));
    row("level of another policy", setsockopt(net, IPN_VDESWITCH, 8, &(int){4096}, sizeof(int)));
    get("level of another policy read", net, IPN_VDESWITCH, 8);

    row("bind with defaults", bind_to(plain, "defaults"));
    try_options("default", plain);
    row("bind a switch", bind_to(hub, "switch"));
    row("level 2 of a switch", setsockopt(hub, IPN_VDESWITCH, 1, &(int){1}, sizeof(int)));
    get("level 2 of a switch read", hub, IPN_VDESWITCH, 1);
    row("request of a switch", ioctl(hub, IPN_REQUEST(5), 0L));
    close(net);
    close(plain);
    close(hub);
}

/* -- joined: what members may do ----------------------------------------------------------------------------------- */

static void messages(int net, int other)
{
    static char data[3000] = "long message";
    struct iovec vectors[2] = {{data, 1000}, {data, 1000}};
    struct msghdr header = {.msg_iov = vectors, .msg_iovlen = 2};
    struct sockaddr_un from;
    socklen_t room = sizeof from;
    ssize_t result;

    row("recv nothing", recv(net, data, 1, MSG_DONTWAIT));
    row("send", send(net, data, 4, 0));
    received("recv", other, 100, 0);
    row("send as long as the mtu", send(net, data, 1514, 0));
    received("recv as long as the mtu", other, 2000, 0);
    row("send longer than the mtu", send(net, data, 1515, 0));
    row("write longer than the mtu", write(net, data, 1515));
    row("write", write(net, data, 5));
    received("recv what was written", other, 100, 0);
    row("sendto somewhere", sendto(net, data, 6, 0, at("elsewhere"), sizeof(struct sockaddr_un)));
    result = recvfrom(other, data, 100, 0, (struct sockaddr *)&from, &room);
    value("recvfrom", result, "%s", from.sun_family == AF_IPN ? from.sun_path + strlen(directory) + 1 : "");
    value("C: whom from", 0, "%d", from.sun_family);
    row("send for a small room", send(net, "0123456789", 10, 0));
    received("recv in a small room", other, 4, 0);
    row("send the next", send(net, "next", 4, 0));
    received("recv the next", other, 100, 0);
    row("send for a look", send(net, "look", 4, 0));
    received("recv with a look ahead", other, 100, MSG_PEEK);
    received("recv after a look ahead", other, 100, 0);
    polled("poll", other);
    row("send something to poll for", send(net, "poll", 4, 0));
    received("recv what poll was for", other, 100, 0);
    row("sendmsg longer than the mtu", sendmsg(net, &header, 0));
    row("send nothing", send(net, data, 0, 0));
    row("send after that", send(net, "that", 4, 0));
    received("recv after that", other, 100, 0);
}

static void joined(void)
{
    int net = new_socket(IPN_BROADCAST), other = new_socket(IPN_ANY), third = new_socket(IPN_VDESWITCH);

    row("numnodes", set(net, IPN_SO_NUMNODES, 3));
    row("bind", bind_to(net, "joined"));
    row("bind twice", bind_to(net, "joined"));
    row("bind another", bind_to(net, "another"));
    row("send bound", send(net, "x", 1, 0));
    row("recv bound", recv(net, &(char){0}, 1, MSG_DONTWAIT));
    named("getsockname bound", net, getsockname);
    named("getpeername bound", net, getpeername);
    request("bound", net, 0);
    row("bind with another policy", bind_to(third, "joined"));
    row("connect with another policy", connect_to(third, "joined"));
    row("connect bound to another", connect_to(net, "another"));
    row("port", set(net, IPN_SO_PORT, 1));
    row("connect without path", connect(net, NULL, 0));
    get("port connected", net, 0, IPN_SO_PORT);
    row("connect twice", connect_to(net, "joined"));
    row("connect twice without path", connect(net, NULL, 0));
    row("bind connected", bind_to(net, "joined"));
    named("getpeername connected", net, getpeername);
    request("connected", net, IPN_NODEFLAG_TAP);

    row("port taken", set(other, IPN_SO_PORT, 1));
    row("connect port taken", connect_to(other, "joined"));
    row("port too high", set(other, IPN_SO_PORT, 3));
    row("connect port too high", connect_to(other, "joined"));
    row("port any", set(other, IPN_SO_PORT, IPN_PORTNO_ANY));
    row("connect any", connect_to(other, "joined"));
    row("resize not bound", set(other, IPN_SO_CHANGE_NUMNODES, 5));
    row("resize below a used port", set(net, IPN_SO_CHANGE_NUMNODES, 1));
    get("numnodes after that", net, 0, IPN_SO_NUMNODES);
    row("resize", set(net, IPN_SO_CHANGE_NUMNODES, 2));
    get("numnodes resized", other, 0, IPN_SO_NUMNODES);
    close(third);
    third = new_socket(IPN_ANY);
    row("connect full", connect_to(third, "joined"));
    row("bind full", bind_to(third, "joined"));
    named("getsockname of a manager", third, getsockname);
    messages(net, other);

    row("shutdown write", shutdown(net, SHUT_WR));
    row("send shut down", send(net, "x", 1, MSG_NOSIGNAL));
    row("send shut down too long", send(net, at(""), 2000, MSG_NOSIGNAL));
    row("send to who has shut down", send(other, "still", 5, 0));
    received("recv shut down for writing", net, 100, 0);
    row("send unheard", send(other, "unheard", 7, 0));
    row("shutdown read", shutdown(net, SHUT_RD));
    received("recv shut down", net, 100, MSG_DONTWAIT);
    close(net);
    close(other);
    close(third);

    net = new_socket(IPN_BROADCAST);
    row("shutdown both first", shutdown(net, SHUT_RDWR));
    row("bind for nothing", bind_to(net, "nothing"));
    row("connect for nothing", connect(net, NULL, 0));
    close(net);
    net = new_socket(IPN_ANY);
    row("bind any", bind_to(net, "any"));
    get("C: protocol of any", net, SOL_SOCKET, SO_PROTOCOL);
    close(net);
}

/* -- pointers and lengths that only C has --------------------------------------------------------------------------- */

#define NOWHERE ((void *)8)

static void pointers(void)
{
    struct sockaddr_un sun = {.sun_family = AF_INET}, back;
    socklen_t room;
    int number, net = new_socket(IPN_BROADCAST);
    char large[110], path[200];

    row("C: bind nowhere", bind(net, NOWHERE, sizeof sun));
    row("C: bind null", bind(net, NULL, sizeof sun));
    row("C: bind no length", bind(net, at("pointers"), 0));
    row("C: bind length of the family", bind(net, at("pointers"), sizeof sun.sun_family));
    row("C: bind negative length", bind(net, at("pointers"), (socklen_t)-1));
    row("C: bind huge length", bind(net, at("pointers"), 1 << 20));
    row("C: bind without a path", bind(net, (struct sockaddr *)&(struct sockaddr_un){.sun_family = AF_IPN}, sizeof sun));
    strcpy(sun.sun_path, "/tmp/pointers");
    row("C: bind an internet address", bind(net, (struct sockaddr *)&sun, sizeof sun));
    row("C: connect nowhere", connect(net, NOWHERE, sizeof sun));
    row("C: connect huge length", connect(net, at("pointers"), 1 << 20));
    row("C: getsockname fresh nowhere", getsockname(net, NOWHERE, &room));

    memcpy(large, at("pointers"), sizeof sun);
    ((struct sockaddr *)large)->sa_family = AF_UNIX;
    row("C: bind a unix address of just its length",
        bind(net, (struct sockaddr *)large, offsetof(struct sockaddr_un, sun_path) + strlen(large + 2)));
    room = sizeof back;
    row("C: getsockname", getsockname(net, (struct sockaddr *)&back, &room));
    snprintf(path, sizeof path, "%s/pointers", directory);
    value("C: its family and length", 0, "%d %d", back.sun_family, (int)(room - 3 - strlen(path)));
    value("C: its path", 0, "%d", strcmp(path, back.sun_path));
    memset(&back, '#', sizeof back);
    room = 5;
    row("C: getsockname cut", getsockname(net, (struct sockaddr *)&back, &room));
    value("C: cut where", 0, "%d %d %.5s", back.sun_family, (int)(room - 3 - strlen(path)), back.sun_path);
    room = 0;
    row("C: getsockname without room", getsockname(net, NULL, &room));
    room = (socklen_t)-1;
    row("C: getsockname negative room", getsockname(net, (struct sockaddr *)&back, &room));
    room = sizeof back;
    row("C: getsockname nowhere", getsockname(net, NOWHERE, &room));
    row("C: getsockname room nowhere", getsockname(net, (struct sockaddr *)&back, NOWHERE));

    row("C: setsockopt nowhere", setsockopt(net, 0, IPN_SO_PORT, NOWHERE, 4));
    row("C: setsockopt nothing", setsockopt(net, 0, IPN_SO_PORT, NULL, 0));
    row("C: setsockopt negative length", setsockopt(net, 0, IPN_SO_PORT, &net, (socklen_t)-1));
    row("C: setsockopt huge length", setsockopt(net, 0, IPN_SO_DESCR, &net, 1 << 30));
    row("C: setsockopt longer than an int", setsockopt(net, 0, IPN_SO_PORT, (int[2]){4, 5}, 8));
    room = sizeof number;
    row("C: getsockopt nowhere", getsockopt(net, 0, IPN_SO_MTU, NOWHERE, &room));
    row("C: getsockopt room nowhere", getsockopt(net, 0, IPN_SO_MTU, &number, NOWHERE));
    room = (socklen_t)-1;
    row("C: getsockopt negative room", getsockopt(net, 0, IPN_SO_MTU, &number, &room));
    room = sizeof path;
    row("C: getsockopt with more room", getsockopt(net, 0, IPN_SO_MTU, path, &room));
    memcpy(&number, path, sizeof number);
    value("C: how much of it", 0, "%u %d", room, number);
    row("C: ioctl nowhere", ioctl(net, IPN_CONN_NETDEV, NOWHERE));
    row("C: ioctl null", ioctl(net, IPN_JOIN_NETDEV, NULL));
    row("C: ioctl of other files", ioctl(net, 0x5401 /* TCGETS */, path));
    row("C: connect a path it is bound to", connect_to(net, "pointers"));
    row("C: send from nowhere", send(net, NOWHERE, 10, 0));
    row("C: send a long message from nowhere", send(net, NOWHERE, 2000, 0));
    row("C: send more than there is", send(net, &number, 1 << 30, 0));
    close(net);
    row("C: bind closed", bind_to(net, "pointers"));
    row("C: bind what is no socket", bind_to(0, "pointers"));
}

/* -- stranger: somebody without rights ------------------------------------------------------------------------------- */

static void join_as_stranger(const char *name)
{
    char text[64];
    int net = new_socket(IPN_ANY);

    snprintf(text, sizeof text, "bind %s", name);
    row(text, bind_to(net, name));
    close(net);
    net = new_socket(IPN_ANY);
    snprintf(text, sizeof text, "connect %s", name);
    row(text, connect_to(net, name));
    snprintf(text, sizeof text, "send %s", name);
    row(text, send(net, "x", 1, MSG_NOSIGNAL));
    snprintf(text, sizeof text, "recv %s", name);
    received(text, net, 10, MSG_DONTWAIT);
    close(net);
}

static void stranger(void)
{
    static const char *NAMES[] = {"r", "w", "rw", "none", "all", "dead"};
    int net = new_socket(IPN_BROADCAST);

    for (int index = 0; index < 6; index++)
        join_as_stranger(NAMES[index]);
    row("shutdown read", shutdown(net, SHUT_RD));
    row("connect to r only to send", connect_to(net, "r"));
    row("bind where nobody may write", bind_to(net, "new"));
    row("bind its own", bind_to(net, "open/own"));
    request("without privilege", net, IPN_NODEFLAG_TAP);
    close(net);
}

/* -- end: when the network is gone ------------------------------------------------------------------------------------ */

static void end(void)
{
    char byte;
    int net = new_socket(IPN_ANY);

    row("connect", connect_to(net, "end"));
    row("read a line", read(0, &byte, 1));
    received("recv at the end", net, 100, 0);
    polled("poll at the end", net);
    row("send at the end", send(net, "x", 1, MSG_NOSIGNAL));
    named("getsockname at the end", net, getsockname);
    get("mtu at the end", net, 0, IPN_SO_MTU);
    row("shutdown at the end", shutdown(net, SHUT_WR));
    row("connect at the end", connect_to(net, "end"));
    close(net);
}

int main(int count, char **words)
{
    static const struct {
        const char *name;
        void (*rows)(void);
    } SECTIONS[] = {{"here", here},         {"options", options},   {"joined", joined},
                    {"pointers", pointers}, {"stranger", stranger}, {"end", end}};

    if (count != 3)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    directory = words[2];
    for (size_t index = 0; index < sizeof SECTIONS / sizeof *SECTIONS; index++)
        if (!strcmp(words[1], SECTIONS[index].name)) {
            SECTIONS[index].rows();
            return 0;
        }
    return 2;
}
