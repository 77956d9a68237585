/* A member that does what its input says, a line each: oob PATH.
 *
 *   node HANDLE WANT    a new socket, IPN_SO_HANDLE_OOB and IPN_SO_WANT_OOB_NUMNODES set if not 0
 *   shutdown HOW        before or after connect
 *   connect             to PATH
 *   timeout MS          SO_RCVTIMEO
 *   nonblock            O_NONBLOCK
 *   send TEXT
 *   recv                recv(2): "recv RESULT ERRNO BYTES"
 *   recvmsg FLAGS SIZE… recvmsg(2) into vectors of these sizes, with room for an address and for what comes beside;
 *                       "recvmsg RESULT ERRNO FLAGS NAME BESIDE BYTES": what is left of these is said, too
 *   notice              a struct numnode_oob by recv(2): "notice LEVEL TAG READERS WRITERS"
 *
 * All but the last three answer "NAME RESULT ERRNO". Those that may wait say "waiting" first. Bytes are hexadecimal.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "af_ipn.h"

#define VECTORS 8
#define ROOM 16384

static int net = -1;

static void print_bytes(const unsigned char *data, ssize_t size)
{
    for (ssize_t index = 0; index < size; index++)
        printf("%02x", data[index]);
    putchar('\n');
}

static int make(const char *words)
{
    int handle = 0, want = 0;

    sscanf(words, "%d %d", &handle, &want);
    close(net);
    net = socket(AF_IPN, SOCK_RAW, IPN_BROADCAST);
    if (handle && setsockopt(net, 0, IPN_SO_HANDLE_OOB, &handle, sizeof handle) < 0)
        return -1;
    return want ? setsockopt(net, 0, IPN_SO_WANT_OOB_NUMNODES, &want, sizeof want) : 0;
}

static int wait_at_most(int milliseconds)
{
    struct timeval patience = {milliseconds / 1000, milliseconds % 1000 * 1000};

    return setsockopt(net, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
}

static void receive(void)
{
    unsigned char data[ROOM];
    ssize_t result;

    puts("waiting");
    result = recv(net, data, sizeof data, 0);
    printf("recv %zd %d ", result, result < 0 ? errno : 0);
    print_bytes(data, result);
}

static void receive_message(char *words)
{
    static unsigned char data[ROOM];
    char beside[CMSG_SPACE(4 * sizeof(int))];
    struct sockaddr_un name;
    struct iovec vectors[VECTORS];
    struct msghdr header = {&name, sizeof name, vectors, 0, beside, sizeof beside, ~0};
    int flags = strtol(words, &words, 0);
    unsigned char *room = data;
    ssize_t result;

    while (*words == ' ' && header.msg_iovlen < VECTORS) {
        size_t size = strtoul(words, &words, 0);
        vectors[header.msg_iovlen++] = (struct iovec){room, size};
        room += size;
    }
    memset(data, '#', sizeof data);
    puts("waiting");
    result = recvmsg(net, &header, flags);
    printf("recvmsg %zd %d %d %u %zu ", result, result < 0 ? errno : 0, header.msg_flags, header.msg_namelen,
           header.msg_controllen);
    print_bytes(data, result);
}

static void receive_notice(void)
{
    struct numnode_oob notice;

    puts("waiting");
    if (recv(net, &notice, sizeof notice, 0) == sizeof notice)
        printf("notice %d %d %d %d\n", notice.level, notice.tag, notice.numreaders, notice.numwriters);
    else
        printf("notice none %d\n", errno);
}

int main(int count, char **arguments)
{
    struct sockaddr_un sun = {.sun_family = AF_IPN};
    char line[10000], *words;
    int result = 0;

    if (count != 2 || strlen(arguments[1]) >= sizeof sun.sun_path)
        return 2;
    strcpy(sun.sun_path, arguments[1]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        words = line + strcspn(line, " ");
        words += *words == ' ';
        if (words > line && words[-1] == ' ')
            words[-1] = 0;
        if (!strcmp(line, "recv")) {
            receive();
            continue;
        } else if (!strcmp(line, "recvmsg")) {
            receive_message(words);
            continue;
        } else if (!strcmp(line, "notice")) {
            receive_notice();
            continue;
        } else if (!strcmp(line, "node"))
            result = make(words);
        else if (!strcmp(line, "shutdown"))
            result = shutdown(net, atoi(words));
        else if (!strcmp(line, "connect"))
            result = connect(net, (struct sockaddr *)&sun, sizeof sun);
        else if (!strcmp(line, "timeout"))
            result = wait_at_most(atoi(words));
        else if (!strcmp(line, "nonblock"))
            result = fcntl(net, F_SETFL, O_NONBLOCK);
        else if (!strcmp(line, "send"))
            result = send(net, words, strlen(words), MSG_NOSIGNAL);
        else
            return 2;
        printf("%s %d %d\n", line, result, result < 0 ? errno : 0);
    }
    return 0;
}
