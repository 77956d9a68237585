/* A network whose member is an interface of the host: interfaces PATH tap|grab NAME.
 *
 * Prints "NAME RESULT ERRNO" of each call and the name that the kernel gave, and waits for the end of its input.
 * With -DIPN_LATER the requests are those of the module that came later, by the size of a struct ifreq.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "af_ipn.h"

static int say(const char *name, int result)
{
    printf("%s %d %d\n", name, result, result < 0 ? errno : 0);
    return result;
}

int main(int count, char **arguments)
{
    struct sockaddr_un sun = {.sun_family = AF_IPN};
    struct ifreq request = {0};
    char byte;
    int net;

    if (count != 4 || strlen(arguments[1]) >= sizeof sun.sun_path || strlen(arguments[3]) >= IFNAMSIZ)
        return 2;
    strcpy(sun.sun_path, arguments[1]);
    strcpy(request.ifr_name, arguments[3]);
    request.ifr_flags = strcmp(arguments[2], "tap") ? IPN_NODEFLAG_GRAB : IPN_NODEFLAG_TAP;
    net = socket(AF_IPN, SOCK_RAW, IPN_BROADCAST);
    if (say("bind", bind(net, (struct sockaddr *)&sun, sizeof sun)) < 0)
        return 1;
    if (say("interface", ioctl(net, IPN_CONN_NETDEV, &request)) == 0)
        printf("name %s\n", request.ifr_name);
    say("send", send(net, "x", 1, MSG_NOSIGNAL));
    say("connect", connect(net, (struct sockaddr *)&sun, sizeof sun));
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    return 0;
}
