"""The body of an answer as it arrives, inflated, and no more of it than may be."""

from __future__ import annotations

import aiohttp

from corpus.scrape.inflate import Inflater


async def read_body(stream: aiohttp.StreamReader, encoding: str, max_bytes: int) -> bytes:
    """The body, a byte more than `max_bytes` at most, however far its few bytes would inflate.

    `encoding` is the Content-Encoding. Raises ValueError for one other than gzip, and for gzip that is broken or cut.
    """
    encoding = encoding.strip().lower()
    if encoding in ("gzip", "x-gzip"):
        return await _read_gzip(stream, max_bytes)
    if encoding not in ("", "identity"):
        raise ValueError(f"the body comes as {encoding}: gzip was asked for")
    body = bytearray()
    async for chunk in stream.iter_any():
        body += chunk[: max_bytes + 1 - len(body)]
        if len(body) > max_bytes:
            break
    return bytes(body)


async def _read_gzip(stream: aiohttp.StreamReader, max_bytes: int) -> bytes:
    inflater = Inflater(max_bytes)
    async for chunk in stream.iter_any():
        inflater.feed(chunk)
        if inflater.is_full or inflater.ended:
            break
    return inflater.finish() if stream.total_bytes else b""  # an empty page often comes without gzip's header
