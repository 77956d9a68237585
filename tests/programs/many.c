/* Many processes on one network: many PATH CHILDREN EACH.
 *
 * The parent makes a lossless network, which it only manages, and CHILDREN processes. Each joins, and once all have,
 * sends EACH messages and receives those of all others, each sender's in order. Says "joined" when all have joined, goes
 * on when a line comes, and at the end says "right N": how many children had it right.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "af_ipn.h"

#define MOST 64

struct message {
    int sender, number;
};

static void require(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

/* Send and receive as a child does; 0 if all that came was right. */
static int exchange(int net, int me, int children, int each)
{
    int next[MOST] = {0}, sent = 0, got = 0, wrong = 0;
    struct message message;

    while (sent < each || got < each * (children - 1)) {
        struct pollfd here = {.fd = net, .events = POLLIN | (sent < each ? POLLOUT : 0)};

        require(poll(&here, 1, -1), "poll");
        if (here.revents & POLLIN) {
            if (recv(net, &message, sizeof message, 0) != sizeof message)
                return 1;
            wrong += message.sender == me || message.number != next[message.sender]++;
            got++;
        } else {
            message = (struct message){me, sent};
            if (send(net, &message, sizeof message, MSG_DONTWAIT) == sizeof message)
                sent++;
        }
    }
    return wrong != 0;
}

int main(int count, char **words)
{
    struct sockaddr_un sun = {.sun_family = AF_IPN};
    int joined[2], go[2], net, children, each, right = 0, status, lossless = IPN_FLAG_LOSSLESS;
    char byte = 0, line[80];

    if (count != 4 || strlen(words[1]) >= sizeof sun.sun_path || (children = atoi(words[2])) > MOST)
        return 2;
    each = atoi(words[3]);
    strcpy(sun.sun_path, words[1]);
    net = socket(AF_IPN, SOCK_RAW, IPN_BROADCAST);
    require(net, "socket");
    require(setsockopt(net, 0, IPN_SO_FLAGS, &lossless, sizeof lossless), "setsockopt");
    require(bind(net, (struct sockaddr *)&sun, sizeof sun), "bind");
    require(pipe(joined), "pipe");
    require(pipe(go), "pipe");
    for (int child = 0; child < children; child++) {
        pid_t pid = fork();

        require(pid, "fork");
        if (pid > 0)
            continue;
        net = socket(AF_IPN, SOCK_RAW, IPN_ANY);
        require(connect(net, (struct sockaddr *)&sun, sizeof sun), "connect");
        require(write(joined[1], &byte, 1), "write");
        require(read(go[0], &byte, 1), "read");
        _exit(exchange(net, child, children, each));
    }
    for (int child = 0; child < children; child++)
        require(read(joined[0], &byte, 1), "read");
    puts("joined");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 2;
    for (int child = 0; child < children; child++)
        require(write(go[1], &byte, 1), "write");
    while (wait(&status) > 0)
        right += status == 0;
    printf("right %d\n", right);
    return 0;
}
