"""Compressed bodies, bounded: all members of gzip are joined, and a body that ends early is told from a whole one."""

from __future__ import annotations

import zlib

GZIP, ZLIB, DEFLATE = 31, 15, -15  # the `wbits` of zlib for its three wrappings
_MAGIC = b"\x1f\x8b"


class Inflater:
    """Inflates what is fed to it, to `max_bytes` + 1 at most: the one more tells that there is too much.

    >>> import gzip
    >>> inflater = Inflater(100)
    >>> for chunk in (gzip.compress(b"Hello, ") + gzip.compress(b"world"), b"padding"):
    ...     inflater.feed(chunk)
    >>> inflater.finish()
    b'Hello, world'
    """

    def __init__(self, max_bytes: int, window: int = GZIP) -> None:
        self.max_bytes, self.window = max_bytes, window
        self.decoder = zlib.decompressobj(window)
        self.body = bytearray()
        self.after = b""  # what follows a member of gzip, until it is enough to tell the next member from padding
        self.ended = False

    @property
    def is_full(self) -> bool:
        """Whether there is more than may be: nothing more need be fed."""
        return len(self.body) > self.max_bytes

    def feed(self, chunk: bytes) -> None:
        """Inflate some more. Raises ValueError where the data are broken."""
        while chunk and not self.is_full and not self.ended:
            if self.decoder.eof:
                chunk = self.after + chunk
                self.after = b""
                if len(chunk) < len(_MAGIC):
                    self.after = chunk
                    return
                if self.window != GZIP or not chunk.startswith(_MAGIC):  # padding, which gzip ignores as well
                    self.ended = True
                    return
                self.decoder = zlib.decompressobj(self.window)
            try:
                self.body += self.decoder.decompress(chunk, self.max_bytes + 1 - len(self.body))
            except zlib.error as error:
                raise ValueError(f"the compressed body is broken: {error}") from None
            chunk = self.decoder.unused_data  # of another member; what is left of this one is over the limit

    def finish(self) -> bytes:
        """The body. Raises ValueError where the compressed data end early."""
        if not self.decoder.eof and not self.is_full:
            raise ValueError("the compressed body ends early")
        return bytes(self.body)


def inflate(data: bytes, max_bytes: int, window: int = GZIP) -> bytes:
    """The bytes that compressed data hold, `max_bytes` + 1 at most. Raises ValueError where they are broken or cut.

    >>> inflate(zlib.compress(b"abc"), 2, ZLIB), inflate(zlib.compress(b"abcd"), 2, ZLIB)
    (b'abc', b'abc')
    >>> inflate(zlib.compress(b"abc")[:-1], 10, ZLIB)
    Traceback (most recent call last):
        ...
    ValueError: the compressed body ends early
    """
    inflater = Inflater(max_bytes, window)
    inflater.feed(data)
    return inflater.finish()
