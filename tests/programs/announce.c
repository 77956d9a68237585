/* The examples of the announcement of 2007: announce peer|sender|receiver PATH.
 *
 * Peer to peer: bind and connect; all hear each other. One sender: shutdown(SHUT_RD), bind, connect. Receivers:
 * shutdown(SHUT_WR), connect. Lines of the input go out as a message each, messages that come are printed as lines.
 * Peers and the sender leave at the end of their input, the receiver at the end of the network.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "af_ipn.h"

#define MTU 1514

static void require(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

/* Send what was typed, a message for each line; 0 at its end. Lines come whole here: the tests write them so. */
static int pass_on(int net)
{
    char typed[65536];
    ssize_t size = read(0, typed, sizeof typed);
    char *line = typed, *end;

    require(size, "read");
    while ((end = memchr(line, '\n', typed + size - line)) != NULL) {
        require(send(net, line, end - line, 0), "send");
        line = end + 1;
    }
    return size > 0;
}

/* Print one message; 0 when the network has ended. */
static int print(int net)
{
    char message[MTU];
    ssize_t size = recv(net, message, sizeof message, 0);

    require(size, "recv");
    if (size > 0)
        printf("%.*s\n", (int)size, message);
    return size > 0;
}

int main(int count, char **words)
{
    struct sockaddr_un sun = {.sun_family = AF_IPN};
    struct pollfd sources[2] = {{.events = POLLIN}, {.events = POLLIN}};
    int net;

    if (count != 3 || strlen(words[2]) >= sizeof sun.sun_path)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    strcpy(sun.sun_path, words[2]);
    net = socket(AF_IPN, SOCK_RAW, IPN_BROADCAST);
    require(net, "socket");
    if (words[1][0] == 'r') {
        require(shutdown(net, SHUT_WR), "shutdown");
        require(connect(net, (struct sockaddr *)&sun, sizeof sun), "connect");
        while (print(net))
            ;
        return 0;
    }
    if (words[1][0] == 's')
        require(shutdown(net, SHUT_RD), "shutdown");
    require(bind(net, (struct sockaddr *)&sun, sizeof sun), "bind");
    require(connect(net, NULL, 0), "connect");
    sources[1].fd = words[1][0] == 's' ? -1 : net;
    for (;;) {
        require(poll(sources, 2, -1), "poll");
        if (sources[1].revents && !print(net))
            return 3;
        if (sources[0].revents && !pass_on(net))
            return 0;
    }
}
