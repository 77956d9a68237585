/* AF_IPN as it was published in 2007: numbers that programs were compiled with.
 *
 * Written from docs/af_ipn.md and ipn/abi.py. Another number of the family: cc -DAF_IPN=33. With IPN_LATER the requests
 * about interfaces are encoded as in the module that came later: by the size of a struct ifreq, not of an int.
 */
#ifndef IPN_PROGRAMS_AF_IPN_H
#define IPN_PROGRAMS_AF_IPN_H

#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifndef AF_IPN
#define AF_IPN 34
#endif
#define PF_IPN AF_IPN

#define IPN_ANY 0
#define IPN_BROADCAST 1
#define IPN_HUB IPN_BROADCAST
#define IPN_VDESWITCH 2
#define IPN_VDESWITCH_L3 3

#define IPN_SO_PORT 0
#define IPN_SO_DESCR 1
#define IPN_SO_CHANGE_NUMNODES 2
#define IPN_SO_HANDLE_OOB 3
#define IPN_SO_WANT_OOB_NUMNODES 4
#define IPN_SO_MTU 0x80
#define IPN_SO_NUMNODES 0x81
#define IPN_SO_MSGPOOLSIZE 0x82
#define IPN_SO_FLAGS 0x83
#define IPN_SO_MODE 0x84

#define IPN_PORTNO_ANY (-1)
#define IPN_DESCRLEN 128
#define IPN_FLAG_LOSSLESS 1

#define IPN_NODEFLAG_TAP 0x10
#define IPN_NODEFLAG_GRAB 0x20

#define IPN_OOB_NUMNODE_TAG 0

struct numnode_oob {
    int level;
    int tag;
    int numreaders;
    int numwriters;
};

#ifdef IPN_LATER
#define IPN_REQUEST(number) _IOW('I', number, struct ifreq)
#else
#define IPN_REQUEST(number) _IOW('I', number, int)
#endif
#define IPN_SETPERSIST_NETDEV IPN_REQUEST(200)
#define IPN_CLRPERSIST_NETDEV IPN_REQUEST(201)
#define IPN_CONN_NETDEV IPN_REQUEST(202)
#define IPN_JOIN_NETDEV IPN_REQUEST(203)
#define IPN_SETPERSIST IPN_REQUEST(204)

#endif
