/* A flow of numbered messages: flow send PATH COUNT SIZE, flow receive PATH.
 *
 * The sender waits for a line, sends, and says "full N" when it first had to wait, at the end "sent N". The receiver
 * does not read before a line comes; then it says "got N gaps N backwards N" each time that there is nothing to read
 * for the moment, and at the end of the network.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "af_ipn.h"

static void require(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static void wait_for_a_line(void)
{
    char line[80];

    if (!fgets(line, sizeof line, stdin))
        exit(2);
}

static void send_all(int net, unsigned count, size_t size)
{
    char message[1514] = {0};
    int told = 0;

    for (unsigned number = 0; number < count; number++) {
        memcpy(message, &number, sizeof number);
        if (!told && send(net, message, size, MSG_DONTWAIT) < 0) {
            if (errno != EAGAIN)
                require(-1, "send");
            printf("full %u\n", number);
            told = 1;
        } else if (!told)
            continue;
        require(send(net, message, size, 0), "send");
    }
    printf("sent %u\n", count);
}

static void receive_all(int net)
{
    unsigned number, next = 0, got = 0, gaps = 0, backwards = 0;
    char message[1514];
    int flags = 0;
    ssize_t size;

    while ((size = recv(net, message, sizeof message, flags)) != 0) {
        if (size < 0 && errno == EAGAIN) {
            printf("got %u gaps %u backwards %u\n", got, gaps, backwards);
            flags = 0;
            continue;
        }
        require(size, "recv");
        memcpy(&number, message, sizeof number);
        got++;
        gaps += number > next;
        backwards += number < next;
        next = number + 1;
        flags = MSG_DONTWAIT;
    }
    printf("got %u gaps %u backwards %u\n", got, gaps, backwards);
}

int main(int count, char **words)
{
    struct sockaddr_un sun = {.sun_family = AF_IPN};
    int net = socket(AF_IPN, SOCK_RAW, IPN_ANY), sends = count == 5;

    if (count < 3 || strlen(words[2]) >= sizeof sun.sun_path)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    strcpy(sun.sun_path, words[2]);
    require(net, "socket");
    require(shutdown(net, sends ? SHUT_RD : SHUT_WR), "shutdown");
    require(connect(net, (struct sockaddr *)&sun, sizeof sun), "connect");
    wait_for_a_line();
    if (sends)
        send_all(net, atoi(words[3]), atoi(words[4]));
    else
        receive_all(net);
    return 0;
}
