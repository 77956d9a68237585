"""AF_IPN for trio: the same sockets, with ``await``. The only module of the library that needs trio.

    async with await ipn.aio.connect("/tmp/sockipn") as net:
        await net.send(b"hello")
        async for message in net: ...

Messages wait in trio; joining and the rare questions to the daemon run in a thread, since they need its answer.
Cancellation is safe: a message half received or half sent is finished by the next call.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from .abi import AF_IPN, IPN_ANY, MAX_MTU, SOCK_RAW
from .control import Message
from .socket import Socket as BlockingSocket
from .transport import Buffer

T = TypeVar("T")


class Socket:
    """An AF_IPN socket for trio, around a blocking one (``wrapped``) that never waits."""

    def __init__(self, wrapped: BlockingSocket) -> None:
        wrapped.setblocking(False)
        wrapped.defer_sending()
        self.wrapped = wrapped
        self._sending = trio.Lock()

    # -- messages --------------------------------------------------------------------------------------------

    async def send(self, data: Buffer) -> int:
        """Send one message; waits while a lossless network's pool is full. Errors as ``ipn.Socket.send``."""
        async with self._sending:
            size = await self._ready(lambda: self.wrapped.send(data), trio.lowlevel.wait_writable)
            await self._flush()
        return size

    async def send_many(self, messages: Iterable[Buffer]) -> int:
        """Send several messages; return how many. Errors as ``ipn.Socket.send_many``."""
        batch, done = list(messages), 0
        async with self._sending:
            while done < len(batch):
                rest = batch[done:] if done else batch
                attempt = functools.partial(self.wrapped.send_many, rest)
                done += await self._ready(attempt, trio.lowlevel.wait_writable)
                await self._flush()
        return done

    async def _flush(self) -> None:
        """Wait until nothing of a message taken is left in this process."""
        while not self.wrapped.flush_sending():
            await trio.lowlevel.wait_writable(self.fileno())

    async def recv(self, bufsize: int = MAX_MTU) -> bytes:
        """Return the next message, ``b""`` once the network is gone. Errors as ``ipn.Socket.recv``."""
        return await self._ready(lambda: self.wrapped.recv(bufsize), trio.lowlevel.wait_readable)

    async def recv_many(self) -> list[bytes]:
        """Return the messages that one read brings, ``[]`` once the network is gone."""
        return await self._ready(self.wrapped.recv_many, trio.lowlevel.wait_readable)

    async def recvmsg(self, bufsize: int = MAX_MTU) -> tuple[bytes, list[Any], int, str]:
        """Return (message, [], flags, address); flags hold MSG_OOB for a notice."""
        return await self._ready(lambda: self.wrapped.recvmsg(bufsize), trio.lowlevel.wait_readable)

    def __aiter__(self) -> Self:
        """Iterate over the messages until the network is gone."""
        return self

    async def __anext__(self) -> bytes:
        if message := await self.recv():
            return message
        raise StopAsyncIteration

    async def _ready(self, attempt: Callable[[], T], wait: Callable[[int], Awaitable[None]]) -> T:
        """Do what would block in the blocking library: try, wait until it is possible, try again."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                result = attempt()
            except BlockingIOError:
                await wait(self.fileno())
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return result

    # -- joining, options and the rest -----------------------------------------------------------------------

    async def bind(self, path: str | os.PathLike[str], *, persistent: bool = False) -> None:
        """Create the network at ``path`` or join it for management; as ``ipn.Socket.bind``."""
        await _in_thread(self.wrapped.bind, path, persistent=persistent)

    async def connect(self, path: str | os.PathLike[str] | None = None) -> None:
        """Join the network at ``path``, or the one bound; as ``ipn.Socket.connect``."""
        await _in_thread(self.wrapped.connect, path)
        self.wrapped.defer_sending()

    async def setsockopt(self, level: int, option: int, value: int | bytes | str) -> None:
        """Set an option; as ``ipn.Socket.setsockopt``."""
        await _in_thread(self.wrapped.setsockopt, level, option, value)

    async def getsockopt(self, level: int, option: int, buflen: int = 0) -> int | bytes:
        """Return an option; as ``ipn.Socket.getsockopt``."""
        return await _in_thread(self.wrapped.getsockopt, level, option, buflen)

    async def ioctl(self, request: int, argument: int | bytes = 0) -> int | bytes:
        """Pass an ioctl to the policy; as ``ipn.Socket.ioctl``."""
        return await _in_thread(self.wrapped.ioctl, request, argument)

    async def shutdown(self, how: int) -> None:
        """End a direction for good; as ``ipn.Socket.shutdown``."""
        await _in_thread(self.wrapped.shutdown, how)

    async def show(self) -> Message:
        """Return what the daemon knows of the network; as ``ipn.Socket.show``."""
        return await _in_thread(self.wrapped.show)

    def getsockname(self) -> str:
        """Return the network's path; ENOTCONN before it has joined."""
        return self.wrapped.getsockname()

    def fileno(self) -> int:
        """Return the descriptor; EBADF once closed, since trio could not wait for it."""
        fd = self.wrapped.fileno()
        if fd < 0:
            raise OSError(errno.EBADF, "the socket is closed")
        return fd

    @property
    def path(self) -> str | None:
        """The network's path as given to bind or connect."""
        return self.wrapped.path

    @property
    def port(self) -> int:
        """The node's port number."""
        return self.wrapped.port

    @property
    def mtu(self) -> int:
        """The longest message in bytes."""
        return self.wrapped.mtu

    @property
    def rights(self) -> str:
        """``r``, ``w``, both or nothing."""
        return self.wrapped.rights

    def close(self) -> None:
        """Leave; tasks waiting on the socket get ``trio.ClosedResourceError``."""
        if not self.wrapped.closed:
            trio.lowlevel.notify_closing(self.wrapped.fileno())
            self.wrapped.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return await trio.to_thread.run_sync(functools.partial(function, *args, **kwargs))


def socket(family: int = AF_IPN, type: int = SOCK_RAW, proto: int = IPN_ANY) -> Socket:
    """Return an unbound AF_IPN socket for trio; as ``ipn.socket``."""
    return Socket(BlockingSocket(family, type, proto))


async def connect(path: str | os.PathLike[str], policy: int | str = IPN_ANY, **options: Any) -> Socket:
    """Join the network at ``path``; arguments and errors as ``ipn.connect``, without ``timeout``."""
    from . import connect as blocking_connect

    return Socket(await _in_thread(blocking_connect, path, policy, **options))


async def bind(path: str | os.PathLike[str], policy: int | str = IPN_ANY, **options: Any) -> Socket:
    """Create the network at ``path`` or join it for management; arguments and errors as ``ipn.bind``."""
    from . import bind as blocking_bind

    return Socket(await _in_thread(blocking_bind, path, policy, **options))
