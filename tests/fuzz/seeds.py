"""Nasty inputs to begin with, made here: what is known to break readers of text, pages, archives, rows, parameters."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import zlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

PARTS = b"\xff"  # parts the texts of an input that holds several: no UTF-8 has it

_CHARACTERS = (
    *("naïve", "e\u0301", "e\u0323\u0301", "\u0301", "İı", "ﬁ", "ŉ", "ᾳ", "Σς", "Straße", "Ǆ", "\u0345", "\u1e9e"),
    *("中文", "𠮷野家", "\U0002a700\U0002b740\U0002f800", "\U00030000\U000323af", "\U0003ffff\U00040000", "々〇", "ㄅ"),
    *("ひらがなカタカナｶﾞ", "한글", "\u1112\u1161\u11ab", "สวัสดี", "ລາວ", "ខ្មែរ", "မြန်မာ", "नमस्ते", "שָׁלוֹם", "مرحبا"),
    *("ＡＢＣ１２３", "😀👩‍👩‍👧❤️", "\U0001f1e9\U0001f1ea", "\U000e0061\U000e0100", "\ue000\U0010ffff", "\ufdd0\ufffe"),
    *("\ufeff", "\u200b\u200c\u200d\u2060", "a\u00adb", "\u202e", "\x00", "\x1b\x07\x7f\x85", "\u2028\u2029\x0b\x0c"),
    *(
        "\u3000\xa0\u2003",
        "\r\n\r",
        "...…。。。！？",
        "“” ‘’",
        "rock’n’roll",
        "3.14 1,000;2",
        "a_b_",
        "[1][edit]",
        "\u212a",
    ),
    *("Ã©â‚¬Å\x93", "锟斤拷", "ä¸\xad", "lorem ipsum dolor. JavaScript {", "- x\n• y\n", "a" * 300, "中" * 300),
)
_BROKEN = (
    b"\xc0\x80\xc1\xbf",  # overlong
    b"\xe0\x80\x80\xf0\x80\x80\x80\xe0\x9f\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",  # halves of a character
    b"\xf4\x90\x80\x80\xf5\xf8\xfc\xfe",  # beyond the last plane, and bytes that nothing begins with
    b"\x80\xbf\xa0",
    *(b"\xe4", b"\xe4\xb8", b"\xf0\x9f", b"\xf0\x9f\x98", b"\xc3", b"a\xe4\xb8\xadb\xe4"),  # clipped
    b"caf\xe9 au lait",
)
_SENTENCE = b"This is a sentence in plain English about nothing in particular, and it is long enough to be read. "

TEXTS: list[bytes] = [
    b"",
    b"\x01One, two; three.\n\nOne, two; three!" + PARTS + b"one two three",
    *(bytes([number]) + text.encode("utf-8", "surrogatepass") for number, text in enumerate(_CHARACTERS)),
    *(bytes([number]) + text + PARTS + text + b" end" for number, text in enumerate(_BROKEN)),
    b"\x03" + PARTS.join(text.encode("utf-8", "surrogatepass") for text in _CHARACTERS),
    b"\x05" + PARTS.join(_BROKEN),
    b"\x09" + b"the cat sat on the mat\nand the dog\n" * 5,
    b"\x12" + "用Python写的3个脚本。她说：“好！”\n".encode() * 4,
]

HTML: list[bytes] = [
    b"\x00<html><title>T</title><body><article><p>" + _SENTENCE * 3 + b"</p></article><nav><a href=x>y</a></nav>",
    b"\x00" + b"<div>" * 600 + b"x",
    b"\x00" + b"<b><i><a><p>" * 120 + b"x" + b"</b></a>" * 120,
    b"\x01<p " + b" ".join(b"a%d=1" % number for number in range(300)) + b">x",
    b"\x02<a href=\"'><p title='\"><!-- <!-- --!><![CDATA[x]]><?php",
    b"\x00<table><tr><td><table><caption><th><p>x</table>y</td><select><option><svg><foreignObject><p>z",
    b"\x03<p>&amp;&#0;&#x110000;&#55296;&bogus;&ampx;&#99999999999999999999;&nbsp&",
    b"\x00<script><!--<script></script>x--></script><plaintext></plaintext><textarea>\n<b>",
    b"\x04<pre> a\n\n  b<code>c</code></pre><ul><li>x<ol><li>y</ul><br><br><hr>" + _SENTENCE,
    b"\x00<meta charset=gb2312>" + "青禾软件说明".encode("gbk"),
    b"\x00<meta charset=utf-7>+ADw-p+AD4-",
    b"\x00\xfe\xff" + "<p>x".encode("utf-16-be"),
    b"\x00\xff\xfe\x00\x00" + "<p>x".encode("utf-32-le"),
    b"\x00" + "<p>中文".encode("utf-16-le"),
    b"\x00\xef\xbb\xbf<p>x\x00y",
    b"\x00\x1b$B$3$s\x1b(B \x1b$)C ~{VPND~}",
    b"\x05" + "<p>这是一个用来测试的网页，里面有常见的汉字。</p>".encode("big5", "replace") * 3,
    b"\x06<time datetime=2024-13-45><p>Published 2024-99-99</p><h1>" + _SENTENCE + b"</h1>",
    *(b"\x00<p>" + text for text in _BROKEN),
    *(b"\x07<p>" + text.encode("utf-8", "surrogatepass") for text in _CHARACTERS),
]

_BOMB = gzip.compress(b"\0" * 3_000_000, mtime=0)
_HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
_CHUNKED = _HTTP + b"Transfer-Encoding: chunked\r\n\r\n"

BODIES: list[bytes] = [
    b"\x20" + _BOMB,
    b"\x20" + gzip.compress(_BOMB, mtime=0),
    b"\x21" + gzip.compress(b"one", mtime=0) + gzip.compress(b"two", mtime=0) + b"\0\0\0",
    b"\x22" + zlib.compress(b"three"),
    b"\x23" + zlib.compress(b"four")[2:-4],
    b"\x20" + gzip.compress(b"clipped" * 9, mtime=0)[:-9],
    b"\x20\x1f\x8b\x08\xff\xff\xff\xff\xff\xff\xff",
    b"\x10" + _CHUNKED + b"4\r\nabcd\r\n0\r\n\r\n",
    b"\x10" + _CHUNKED + b"ffffffff\r\nabcd",
    b"\x10" + _CHUNKED + b"4;x=y\nabcd\n-1\r\n",
    b"\x10" + _CHUNKED + b"abcdefabcdef\r\n",
    b"\x10HTTP/1.1 200\n\n",
    b"\x10" + _HTTP + b"Content-Encoding: gzip, br, x-gzip\r\n\r\n" + _BOMB,
    b"\x10" + _HTTP + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(_BOMB, mtime=0),
    b"\x10" + _HTTP + b"Content-Encoding: br\r\n\r\n\x0b\x02\x80abc\x03",
    b"\x10" + _HTTP + b"Content-Encoding: zstd\r\n\r\n\x28\xb5\x2f\xfd\x04\x00\x19\x00\x00abc",
    b"\x10" + _HTTP + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(b"<p>x"),
    b"\x10" + _HTTP + b"X" * 70_000,
]


def _record(kind: str, block: bytes, length: int | None = None, url: str = "http://a.example/") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nContent-Type: application/http\r\n"
    return f"{head}Content-Length: {len(block) if length is None else length}\r\n\r\n".encode() + block + b"\r\n\r\n"


_PAGE = _record("response", _HTTP + b"\r\n<p>Hi")
_ARC = b"filedesc://a.arc 0.0.0.0 20200101000000 text/plain 5\n1 0 x\n\nhttp://a/ 1.2.3.4 20200101000000 text/html 9\n"

ARCHIVES: list[bytes] = [
    _PAGE + _record("conversion", b"Hi") + _record("warcinfo", b""),
    _record("response", _HTTP, 10**18) + _PAGE,
    _record("response", _HTTP, -1) + _PAGE + _PAGE[:50],
    _record("resource", b"x" * 90, 3, "dns:a") + _PAGE,
    gzip.compress(_PAGE, mtime=0) * 2 + gzip.compress(_PAGE, mtime=0)[:-9],
    gzip.compress(_record("response", _HTTP + b"\r\n" + b"\0" * 999_999), mtime=0),
    _ARC + _HTTP + b"\r\nx",
    gzip.compress(_ARC, mtime=0) + b"\x1f\x8b\x08broken" + gzip.compress(b"http://a/ 1 2 3\n", mtime=0),
    b"\x04\x22\x4d\x18\x64\x40\xa7",
    b"\x28\xb5\x2f\xfd\x04\x00",
    b"WARC/1.1\r\nContent-Length: x\r\n\r\n\x00WARC/0.9\n\n",
]

_ROWS = (
    {"text": "Hi\ud800", "title": "\udc00"},
    {"text": "a\0b\ufeff", "url": "http://[", "date": 5, "lang": ["en"], "id": 10**400},
    {
        "text": None,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "gpt", "value": 0}],
    },
    {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "tool_calls": [{"x": []}]}]},
    {"prompt": "a", "chosen": [{"role": "assistant", "content": "b"}], "rejected": "c", "label": True},
    {"instruction": "a", "input": 1, "output": "b", "history": [["q", "a"], ["q"]]},
    {"question": "a", "answer": {"role": "user", "content": ""}},
    {"html": "<p>\ud800", "url": "http://a/\udcff", "content_type": 5},
    {
        "data": {"id": "0" * 32, "text": "x", "meta": "{"},
        "annotations": [{"result": [{"value": {"choices": ["drop"]}}]}],
    },
)
_LINES = [json.dumps(row).encode() for row in _ROWS]

ROWS: list[bytes] = [
    *(b"\x00" + line for line in _LINES),
    b"\x00" + b"\n".join(_LINES),
    b"\x00\xef\xbb\xbf" + _LINES[0] + b"\r\n\r\n" + _LINES[1] + b"\0\n\x85\n\x1c\n",
    b'\x00{"text": ' + b"[" * 3_000,
    b'\x00{"text": "a", "x": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    b'\x00{"text": "a", "n": ' + b"9" * 5_000 + b', "f": 1e999, "g": -Infinity, "h": NaN, "text": "b"}',
    b'\x00{"text": "\xc0\x80"}\n{"text": "\xed\xa0\x80"}\n[1]\nnull\n"x"',
    b"\x08[" + b", ".join(_LINES) + b"] x",
    b"\x08[" + _LINES[1] + b" " + _LINES[1],
    b"\x10" + b"[" + _LINES[-1] + b"]",
    b'\x18text,id\na,1\n"b\nc",2\n"d,3\ne\n',
    b'\x18\xef\xbb\xbf\n\ntext;b\n"x""y";\0\n\xe9;1\n;\n;;\n',
    b'\x18text\tid\r\n"\r\n"""\t\r',
    b"\x18text,text\na,b\n",
    b"\x20caf\xe9 \xff\xfe",
    b"\x20\xef\xbb\xbf" + "中文".encode(),
    b"\x01" + gzip.compress(b"\n".join(_LINES), mtime=0),
    b"\x01" + _BOMB,
    b"\x02" + bz2.compress(_LINES[2]),
    b"\x03" + lzma.compress(_LINES[3])[:-5],
    b"\x04\x28\xb5\x2f\xfd\x04\x00\x19\x00\x00abc",
    b"\x05\x04\x22\x4d\x18\x64\x40\xa7",
]


def _parquet(**columns: pa.Array) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


_PARQUET = [
    _parquet(text=pa.array(["Hi", None, "中"]), id=pa.array([1, 2, 3])),
    _parquet(text=pa.array([b"\xff", b"x"]), when=pa.array([2**62, 0], pa.timestamp("us"))),
    _parquet(text=pa.array([1.5]), messages=pa.array([[{"role": "user", "content": "x"}]])),
    _parquet(html=pa.array(["<p>x"]), body=pa.array([b"x"]), content_type=pa.array(["text/plain"])),
    _parquet(text=pa.array(["x"]).dictionary_encode(), d=pa.array([10**9], pa.date32())),
    b"PAR1" + b"\0" * 20 + b"PAR1",
]
FILES = ROWS + [b"\x38" + content for content in _PARQUET] + [b"\x30" + content for content in ARCHIVES]

SITEMAPS: list[bytes] = [
    b"<urlset><url><loc>http://a/x?a=1&b=2</loc><lastmod>2024-01-01T00:00:00Z</lastmod></url></urlset>",
    b"<sitemapindex><sitemap><loc>http://a/s.xml</loc></sitemap>",
    b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><urlset><url><loc>&b;</loc></url></urlset>',
    b"<urlset><url><loc>http://a/</loc><lastmod>9999-12-31T23:59:59-23:59</lastmod></url>"
    b"<url><loc>http://b/</loc><lastmod>0001-01-01T00:00:00+23:59</lastmod></url></urlset>",
    b"<urlset>" + b"<url>" * 300,
    b"\xef\xbb\xbfhttp://a/\r\nhttp://b/\x85\n",
    gzip.compress(b"http://a/", mtime=0),
    b'<?xml version="1.0" encoding="utf-16"?><urlset/>',
    b"<urlset><![CDATA[<url>&]]><url><loc><b>http://a/</b></loc><!-- x --><?pi?></url></urlset>",
]

_ALIASES = b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12))

PARAMS: list[bytes] = [
    b"clean:\n  languages: [en]\nworkers: 2\nsources:\n  - {name: a, kind: jsonl, path: x.jsonl}\n",
    b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + _ALIASES + b"clean: *a11\n",
    b"forget: &f\n  ids: *f\n",
    b"a: &a [*a]\nsources: *a\n",
    b"x: &x {<<: *x}\n",
    b"[" * 2_000,
    b"a: {" * 500,
    b"clean: {max_mb: " + b"9" * 5_000 + b"}\n",
    b"workers: 0x" + b"f" * 5_000 + b"\n",
    b"clean: {timeout_s: .nan, max_mb: .inf, max_flagged: -.inf, max_depth: 1e99}\n",
    b"scrape: {as_of: 2024-13-45}\n",
    b"a: !!timestamp x\nb: !!int ''\nc: !!float x\nd: !!bool x\ne: !!binary x\nf: !!python/name:os.system x\n",
    b"workers: !!int ''\n",
    b"? [a, {b: c}]\n: x\n",
    b"? !!python/tuple [a]\n: x\n1: 2\n2024-01-01: x\nnull: y\ntrue: z\n",
    b"workers: 1:2:3:4:5:6:7:8:9:1:2:3\n",
    b"a: 2001-12-14t21:59:43.10-99:99\n",
    b"\xef\xbb\xbfworkers: 1\n",
    b"\xff\xfew\0o\0",
    b"a: \x00\x07\x1b\n",
    b'a: "\\ud800\\x00\\U00110000"\n',
    b"sources: [{name: a, kind: site, start: [x], rules: {keep: ['a[b=\"'], drop_text: ['(a+)+$(']}}]\n",
    b"sources: [{name: a, kind: warc, path: '', base: [], batch: 99999999999999999999}]\n",
    b"filter: {bounds: {en: {ppl: {max: x}, 5: null}}}\n",
    b"measure: {noise_pattern: '[', signals: {a: {sql: 'SELECT'}}}\n",
    b"---\na: 1\n---\nb: 2\n",
    b"%YAML 9.9\n---\n&a a: *a\n",
    b"about: x\nrules: {ppl: {max: 5, why: x}, lines: null}\nextends: en\n",
    b"\tworkers: 1\n",
    b"workers: 1\nworkers: 2\n",
]

OVERRIDES: list[bytes] = [
    *(b"dedup.threshold=0.8", b"=", b"a", b".=", b"a..b=1", b"sources.0.name=x", b"sources.-1=x", b"sources.x=1"),
    *(b"sources.99999999999999999999=1", b"clean.languages.0=[", b"workers=2024-13-45", b"workers=!!int ''"),
    *(
        b"workers=" + b"[" * 2_000,
        b"scrape.as_of=!!timestamp x",
        b"a=&a [*a]",
        b"clean=*x",
        b"workers.a=1",
        b"\xff=\x00",
    ),
    b"workers=" + b"9" * 5_000,
]

URLS: list[bytes] = [
    *(
        b"HTTP://Example.COM.:80/a/../b/./c;jsessionid=1?utm_source=x&b=%7e%c3%a9#f",
        b"//a",
        b"?",
        b"#",
        b"http:",
        b"http:a",
    ),
    *(b"http://[::1%25eth0]/", b"http://[v1.x]/", b"http://0x7f.1/", b"http://1.2.3.4.5/", b"http://99999999999/"),
    *("http://Bücher.example/é?ü".encode(), b"http://xn--/", "http://a。b/".encode(), "http://ß\u200d.de/".encode()),
    *(
        b"http://a:99999/",
        b"http://a:-1/",
        b"http://a:\xd9\xa3/",
        b"http://u:p@a@b/",
        b"http://a\\b/",
        b"http://a/%",
        b"http://a/%2",
    ),
    *(
        b"http://a/\x00\r\n\t b",
        b" \x1fhttp://a/",
        b"java\nscript:x",
        b"http://a/;;;jsessionid=;x",
        b"http://a//..//.",
        b"http://a?/..",
    ),
    *(
        b"http://a/%25%37%65",
        b"http://a/%2e%2e/%2E",
        b"http://a/?&&utm_=&a",
        b"http://" + b"a." * 200 + b"b/",
        b"http://a/\xed\xa0\x80",
    ),
    b"http://a/" + b"../" * 500 + b"x" * 3_000,
]


def mutated(generator: random.Random, seeds: Sequence[bytes]) -> bytes:
    """An input made of some seeds: cut, joined, with bytes changed, doubled or gone."""
    data = bytearray(generator.choice(seeds))
    for _ in range(generator.randrange(6)):
        at = generator.randrange(len(data) + 1)
        match generator.randrange(5):
            case 0:
                del data[at : at + generator.randrange(1, 20)]
            case 1:
                data[at:at] = generator.randbytes(generator.randrange(1, 8))
            case 2:
                data[at:at] = data[at : at + generator.randrange(1, 40)]
            case 3:
                data[at : at + 1] = bytes([generator.randrange(256)])
            case 4:
                other = generator.choice(seeds)
                start = generator.randrange(len(other) + 1)
                data[at:] = other[start:]
    return bytes(data)
