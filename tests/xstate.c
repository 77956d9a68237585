/*
 * Lets a User-Mode Linux that is older than its host's processor run there: preloaded into it (LD_PRELOAD).
 *
 * UML 6.1 keeps 2,696 bytes of a processor's extended state, which is all up to AVX-512. With AMX it is some 11 KiB,
 * and Linux takes all of it back or nothing: PTRACE_SETREGSET fails with EFAULT ("ptrace set fp regs failed"). So what
 * UML does not know of is taken from the process as it is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define NT_X86_XSTATE 0x202

long ptrace(enum __ptrace_request request, ...)
{
    static long (*next)(enum __ptrace_request, ...);
    static char whole[65536];
    va_list arguments;

    if (next == NULL)
        next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
    va_start(arguments, request);
    long pid = va_arg(arguments, long);
    long address = va_arg(arguments, long);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (request == PTRACE_SETREGSET && address == NT_X86_XSTATE) {
        struct iovec *given = data, all = {whole, sizeof whole};
        if (next(PTRACE_GETREGSET, pid, address, &all) == 0 && given->iov_len < all.iov_len) {
            memcpy(whole, given->iov_base, given->iov_len);
            return next(request, pid, address, &all);
        }
    }
    return next(request, pid, address, data);
}
