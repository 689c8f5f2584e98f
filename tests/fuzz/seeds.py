"""Bytes to begin with: what has broken readers of text before."""

import gzip
import zlib

TEXTS = [
    "Don't panic!!! 3.14 of 1,000: e.g. the U.S. 2nd-best. “Quoted” – snake_case.",
    "他说：“好。”2023年5月，用Python写的3个脚本。𠮷野家　全角ＡＢＣ１２３",
    "e\u0301 \u0301 \u200d👩\u200d👩\u200d👧 \ufeff\u00ad\u202e \ufffd \U000e0001 \x00\x07\x1b[31m",
    "กขค ລາວ ខ្មែរ မြန်မာ ひらがな カタカナ 한글 नमस्ते עברית ﬁ ǰ\u0323 İı ß ẞ",
    "- a\n• b\n* c…\n...\n\n\n\n\ta\r\nb\rc\u2028d\u0085e" + "=" * 40,
    "a " * 60 + "中" * 60,
    "Write to a@b.example or +86 138 0013 8000, 110101199003070011, 4111 1111 1111 1111, 10.0.0.1, 1.2.3.4.5",
]
PAGE = (
    b"<!doctype html><html><head><meta charset=gbk><title>T</title></head><body><nav><a href=/>x</a></nav>"
    b"<main><p>Some text &amp; more &#x1F600; &#0; &bogus; text, in a sentence that is long enough.</p><table><tr><td>"
    b"<pre>a\n b</pre></main><script>'</p>'</script><!-- --!><b <i a='>'</b></body>"
)
RECORD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
HEAD = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\nContent-Length: %d\r\n\r\n"
WARC = HEAD % len(RECORD) + RECORD + b"\r\n\r\n"
ARC = (
    b"filedesc://a 0.0.0.0 20200101000000 text/plain 5\n1 0 a\n\nhttp://a/ 192.0.2.1 20200101000000 text/html 3\nabc\n"
)
PARAMS = [
    b"workers: 2\nfilter:\n  bounds:\n    en:\n      mattr: {min: 0.5}\n",
    b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    b"sources:\n- {name: a, kind: jsonl, path: b}\ndedup: {threshold: .nan, ngram: 1e9}\n",
    b"clean: !!python/object:os.system x\n",
]
SEEDS: list[bytes] = [
    b"",
    *(text.encode() for text in TEXTS),
    b"\xff".join(text.encode() for text in TEXTS),
    "中文".encode("gb18030") + b"\xe4\xb8 caf\xe9 \xed\xa0\x80 \xf8\x88\x80\x80\x80 \xc0\xaf \xf4\x90\x80\x80",
    "\ufeff中文".encode("utf-16-le"),
    b'+AGEAYgBj- ~{VPND~} \x1b$B$"\x1b(B',
    PAGE,
    b"<div>" * 600 + b"x" + b"<p" * 50,
    gzip.compress(b"0" * 100_000),
    gzip.compress(b"abc") + gzip.compress(b"def") + b"\0" * 9,
    zlib.compress(b"abc" * 500)[:-3],
    WARC,
    gzip.compress(WARC) * 2,
    ARC,
    b'{"text": "a"}\n{"text": 5}\n\n[1]\n{"text": "\\ud800"}\n{"text": "x", "n": 1e999}\nnull\n{"text": "z"',
    b'[{"text": "a"}, {"text": "b"}]',
    b'text,url\n"a ""quoted"" line\nof two",http://a/\nshort\n"open',
    *PARAMS,
    b"HTTP://EXAMPLE.com.:80/%7e/../x/./?b=%zz&utm_source=1;jsessionid=2#f",
    b"http://[::ffff:1.2.3.4%25en0]:99999/",
]
