"""Bytes to text: whichever of some 60 encodings a page is in, whatever it says of itself."""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

import charset_normalizer

CHUNK = 1 << 16  # bytes decoded at once: a wrong encoding is given up after one of them
SAMPLE = 1 << 15  # bytes that a guess looks at
TOLERANCE = 0.001  # of the bytes may be broken: a page is cut off, or quotes another in the wrong encoding
UTF_8_TOLERANCE = 0.01  # if twenty characters are sound for each that is broken: no other text reads so
MIN_SHARE = 0.08  # of frequent characters; a language has .2 to .5 of them, other bytes read as it less than .03
_DECLARED_IN = 4_096  # bytes at the beginning; browsers look at 1,024

_BOMS = (  # those of UTF-32 begin like UTF-16's
    *((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")),
    *((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"), (b"\x84\x31\x95\x33", "gb18030")),
)
_ESCAPES = (  # seven-bit encodings, which are ASCII to a strict decoder
    (b"\x1b$)C", "iso2022_kr"),
    (b"\x1b$B", "iso2022_jp"),
    (b"\x1b$@", "iso2022_jp"),
)
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=[\s\"']*([A-Za-z0-9_.:-]{2,40})", re.I)
_XML = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=[\s\"']*([A-Za-z0-9_.:-]{2,40})", re.I)
_HEADER = re.compile(r"charset\s*=[\s\"']*([A-Za-z0-9_.:-]{2,40})", re.I)
_FOREIGN = re.compile(rb"[\x80-\xff]")
_SIMPLE_CHINESE = re.compile(rb"(?:[\x00-\x7f]|[\xa1-\xa3\xb0-\xd7][\xa1-\xfe])*")  # the commoner half of GB 2312
_ASCII_LETTER = re.compile(rb"[A-Za-z]")

# What browsers read where a page names something narrower, https://encoding.spec.whatwg.org/#names-and-labels
_NARROWER = {
    "gb18030": ("gb2312", "gbk"),
    "big5hkscs": ("big5", "cp950"),
    "cp949": ("euc_kr",),
    "cp1252": ("ascii", "iso8859-1"),
    "cp1254": ("iso8859-9",),
    "cp874": ("iso8859-11", "tis-620"),
    "shift_jis": ("cp932",),  # see _read
    "utf-8": ("utf-8-sig",),
}
_WIDER = {name: wider for wider, names in _NARROWER.items() for name in names}
_UNKNOWN_LABELS = {  # those of the same list that Python does not know
    "gb18030": ("gb_2312", "gb_2312-80", "gb-2312"),
    "big5hkscs": ("cn-big5", "x-x-big5"),
    "shift_jis": ("windows-31j",),
    "euc_jp": ("cseucpkdfmtjapanese",),
    "cp949": ("ks_c_5601-1989", "ksc_5601"),
    "cp874": ("dos-874",),
    "cp1252": ("iso88591",),
    "iso8859-2": ("iso88592",),
    "iso8859-8": ("iso-8859-8-i", "logical", "visual"),
    "koi8-r": ("koi", "koi8"),
    "koi8-u": ("koi8-ru",),
    "mac-roman": ("mac",),
    "mac-cyrillic": ("mac-ukrainian",),
    "utf-8": ("unicode-1-1-utf-8",),
}
_LABELS = {label: codec for codec, labels in _UNKNOWN_LABELS.items() for label in labels}
_TEXT_CODEC = re.compile(  # of Python's, not those that decompress or unescape
    r"utf-(8|7|16(-[lb]e)?|32(-[lb]e)?)|gb18030|big5hkscs|hz|johab|shift_jis\w*|euc_ji?[ps]\w*|iso2022_\w+"
    r"|cp(437|737|775|85\d|86\d|874|949|125\d|1125)|iso8859-\d+|koi8-[rut]|kz1048|ptcp154|mac-\w+"
)

# The characters that half of any text consists of; a reading of bytes that has few of them is wrong.
_HAN = "的一是不了在人有我他中大上和地到子你也之用家多就可以生能而自年下出作天心好成同本分小手方三日新行"
_FREQUENT = {
    "gb18030": _HAN + "这来个国们说为时会对着过发后里学电开关请从种点没问长动，。、",
    "big5hkscs": _HAN + "這來個國們說為時會對著過發後裡學電開關請從種點沒問長動，。、",
    "cp949": "이다는의에을가고로지하한은를도어기사서리나인아시해자대그수일있정들만게라스제보전",
    "euc_jp": "あいうえおかがきくけこさしすせそただちっつてでとどなにのはまみむもやよらりるれろわをんー、。",
}
_FREQUENT |= {"shift_jis": _FREQUENT["euc_jp"], "johab": _FREQUENT["cp949"]}

# The letters beyond ASCII of each language in Latin letters: all, or nearly all, of a text's are of one of them.
_LETTERS = (
    *("àâæçéèêëîïôœùûüÿ", "áéíñóúüªº", "äöüß", "àáâãçéêíóôõúüªº", "àèéìíòóù", "åäöéü", "åæøéò", "äëïéèóöü", "çë"),
    *("áäčďéíĺľňóôŕšťúýž", "áčďéěíňóřšťúůýž", "ąćęłńóśźż", "áéíóöőúüű", "čćđšž", "ăâîșțşţ", "çğıöşüâî", "äöõüšž"),
    *("ąčęėįšųūž", "āčēģīķļņšūž", "áðéíóúýþæö", "àçèéíïòóúü·"),
    "àáâãèéêìíòóôõùúăđơưý\u0300\u0301\u0303\u0309\u0323",
)
MIN_LATIN_SHARE = 0.9  # of these letters
_NEUTRAL = "\xa0«»“”„’–—…©®™§°£€"
_LATIN = ("cp1252", "cp1250", "iso8859-2", "cp1254", "cp1257", "cp1258")
_OTHERS = [  # of single bytes, that were in use
    *("cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp874", "cp1252", "cp1250", "cp1254", "cp1257", "cp1258"),
    *("iso8859_5", "iso8859_7", "iso8859_6", "iso8859_8", "iso8859_2", "koi8_u", "cp866", "cp855", "mac_cyrillic"),
    *("mac_roman", "cp850", "cp852", "cp437"),
]

_BINARY = re.compile(  # how files begin that are no text: documents, pictures, archives, programs, sound, fonts
    rb"%PDF-|%!PS|\{\\rtf|\xd0\xcf\x11\xe0|\x89PNG|GIF8[79]a|\xff\xd8\xff|RIFF|II\*\x00|MM\x00\*|\x00\x00\x01\x00|....ftyp"
    rb"|PK\x03\x04|PK\x05\x06|\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd|PAR1|SQLite format 3\x00|\x7fELF"
    rb"|OggS|ID3|fLaC|\x1a\x45\xdf\xa3|[FC]WS|wOF[F2]|OTTO|\x00\x01\x00\x00\x00",
    re.S,
)
_PLAIN = re.compile(rb"[\t\n\r\x20-\x7e]*")  # words may begin like a signature of letters alone, such as RIFF
_CONTROL = bytes(code for code in range(32) if code not in b"\t\n\r\x0b\x0c\x0e\x0f\x1b") + b"\x7f"
_MAX_CONTROL = 0.02  # of the bytes; an eighth of those of anything compressed

How = Literal["bom", "utf-8", "declared", "guessed"]


class Decoded(NamedTuple):
    """A text, the Python codec that its bytes were read with, and what it was chosen by."""

    text: str
    encoding: str
    how: How


def decode(body: bytes, content_type: str | None = None) -> Decoded | None:
    """The text of a page: by its byte order mark, as UTF-8, as it declares itself, or by a guess, in this order.

    None if it is in no encoding we can tell. A declaration counts if the bytes fit it, in the order of HTTP header,
    `<meta>`, XML; names mean what browsers read. A few broken bytes (TOLERANCE) become U+FFFD.

    >>> decode("<meta charset=gb2312>青禾".encode("gbk"))
    Decoded(text='<meta charset=gb2312>青禾', encoding='gb18030', how='declared')
    >>> decode("naïve".encode("latin-1"), "text/html; charset=iso-8859-1").text
    'naïve'
    """
    for mark, encoding in _BOMS:
        if body.startswith(mark):
            return Decoded(body[len(mark) :].decode(encoding, "replace"), encoding, "bom")
    declared = _declared(body, content_type)
    hidden = _wide(body) or _escaped(body)
    for encoding in [hidden] if hidden else [name for name in declared if name in ("hz", "utf-7")]:
        text = _fitting(body, encoding)
        if text is not None:
            return Decoded(text, encoding, "declared" if encoding in declared else "guessed")
    try:
        return Decoded(body.decode("utf-8"), "utf-8", "utf-8")
    except UnicodeDecodeError:
        with contextlib.suppress(UnicodeDecodeError):  # halves of characters, which some programs write by themselves
            return Decoded(scrub_surrogates(body.decode("utf-8", "surrogatepass")), "utf-8", "utf-8")
        text = _fitting(body, "utf-8", UTF_8_TOLERANCE)
        if text is not None and 20 * text.count("\ufffd") < _count_foreign(text):
            return Decoded(text, "utf-8", "declared" if "utf-8" in declared else "utf-8")
    sample = _sample(body)
    # Servers that were told nothing say Latin-1, of Chinese and Russian pages too.
    stated = [name for name in declared if name != "utf-8" and (name != "cp1252" or _is_western(sample))]
    found = _first_reading(body, stated)
    if found:
        return Decoded(*found, "declared")
    found = _first_reading(body, _guesses(sample))
    return Decoded(*found, "guessed") if found else None


def looks_like_text(body: bytes) -> bool:
    """Whether bytes can be a page at all, and not an image, an archive or a PDF, whatever a server calls them.

    >>> [looks_like_text(body) for body in (b"<p>x", "好".encode("gbk"), "x".encode("utf-16"), b"%PDF-1.7", bytes(99))]
    [True, True, True, False, False]
    """
    start = body[:64].lstrip()
    if _BINARY.match(start) and (start.startswith((b"%PDF-", b"{\\rtf", b"%!PS")) or not _PLAIN.fullmatch(start)):
        return False
    if body.startswith(tuple(mark for mark, _ in _BOMS)) or _wide(body):
        return True
    start = body[:CHUNK]
    return len(start) - len(start.translate(None, _CONTROL)) <= _MAX_CONTROL * len(start)


def scrub_surrogates(text: str) -> str:
    """Replace halves of characters, which no encoder takes, by U+FFFD.

    >>> scrub_surrogates("a\\ud800b")
    'a�b'
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def codec_of(label: str) -> str | None:
    """The Python codec that browsers' reading of a charset's name comes to; None if it names no encoding of text.

    >>> [codec_of(label) for label in ("GB2312", "x-sjis", "latin1", "windows-949", "x-user-defined", "zip")]
    ['gb18030', 'shift_jis', 'cp1252', 'cp949', None, None]
    """
    label = label.strip().lower()
    name = _LABELS.get(label) or label.removeprefix("x-").replace("windows-", "cp")
    name = _LABELS.get(name, name)
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        return None if not name.startswith("cs") else codec_of(name[2:])
    codec = _WIDER.get(codec, codec)
    return codec if _TEXT_CODEC.fullmatch(codec) else None


def _declared(body: bytes, content_type: str | None) -> list[str]:
    """The codecs that the header and the page name, in that order."""
    start = body[:_DECLARED_IN]
    header = _HEADER.findall(content_type or "")
    page = [codec_of(label.decode("ascii")) for label in _META.findall(start) + _XML.findall(start)]
    # What names UTF-16 in letters of one byte is not in UTF-16.
    page = [codec for codec in page if codec and not codec.startswith(("utf-16", "utf-32"))]
    return list(dict.fromkeys(codec for codec in [*map(codec_of, header), *page] if codec))


def _first_reading(body: bytes, encodings: Iterable[str]) -> tuple[str, str] | None:
    return next((found for encoding in encodings if (found := _read(body, encoding))), None)


def _read(body: bytes, encoding: str) -> tuple[str, str] | None:
    """The text if all but a few of its bytes fit an encoding, and the codec.

    Shift_JIS is read as Microsoft extended it only where the bytes ask for it: its own reading of `〜` and `−` is that
    of the other encodings of Japanese.
    """
    if encoding == "shift_jis":
        try:
            return body.decode(encoding), encoding
        except UnicodeDecodeError:
            encoding = "cp932"
    text = _fitting(body, encoding)
    return None if text is None else (text, encoding)


def _fitting(body: bytes, encoding: str, tolerance: float = TOLERANCE) -> str | None:
    """The text if all but a few of its bytes fit an encoding."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    parts, broken, allowed = [], 0, max(1, tolerance * len(body))
    for start in range(0, max(1, len(body)), CHUNK):
        try:
            part = decoder.decode(body[start : start + CHUNK], start + CHUNK >= len(body))
        except UnicodeError:  # a few codecs raise whatever they are told
            return None
        broken += part.count("\ufffd")
        if broken > allowed:
            return None
        parts.append(part)
    return "".join(parts)


def _count_foreign(text: str) -> int:
    """Characters that are not ASCII."""
    return len(text) - len(text.encode("ascii", "ignore"))


def _wide(body: bytes) -> str | None:
    """UTF-16 or UTF-32 without a byte order mark, by where the zero bytes of its ASCII characters are."""
    start = body[: CHUNK // 8 // 4 * 4]
    if 40 * start.count(0) <= len(start):
        return None
    zeros = [start[place::4].count(0) for place in range(4)]
    quarter = len(start) // 4
    if min(zeros[2:]) > 0.9 * quarter > zeros[0]:
        encoding = "utf-32-le"
    elif min(zeros[:2]) > 0.9 * quarter > zeros[3]:
        encoding = "utf-32-be"
    else:
        even, odd = zeros[0] + zeros[2], zeros[1] + zeros[3]
        if max(even, odd) < 4 * min(even, odd):  # there are some on the other side: `一` is 4E 00
            return None
        encoding = "utf-16-le" if odd > even else "utf-16-be"
    text = start.decode(encoding, "replace")
    odd_ones = sum(not (character.isprintable() or character.isspace()) for character in text)
    return encoding if odd_ones <= _MAX_CONTROL * len(text) else None


def _escaped(body: bytes) -> str | None:
    """The seven-bit encoding that escape sequences tell."""
    at = body.find(b"\x1b$")
    return next((encoding for escape, encoding in _ESCAPES if body.startswith(escape, at)), None) if at >= 0 else None


def _sample(body: bytes) -> bytes:
    """Lines and texts between tags that are not all ASCII. No charset has `<` or `>` inside a character."""
    first = _FOREIGN.search(body)
    if not first:
        return b""
    start = max(0, first.start() - 80)
    pieces = re.split(rb"[<>\r\n]+", body[start : start + 16 * SAMPLE])
    return b"\n".join(piece for piece in pieces if not piece.isascii())[:SAMPLE]


def _is_western(sample: bytes) -> bool:
    """Whether bytes above ASCII are the exception among letters."""
    foreign = len(_FOREIGN.findall(sample))
    return foreign <= len(_ASCII_LETTER.findall(sample))


def _guesses(sample: bytes) -> list[str]:
    """Encodings that a sample may be in, the likeliest first.

    First by the frequent characters of East Asian languages, then by the letters of those in Latin script; the rest is
    left to charset_normalizer. Few characters that could be simple Chinese ones are taken for such.
    """
    western = _is_western(sample)
    shares = {encoding: _frequent_share(sample, encoding) for encoding in _FREQUENT}
    likely = [encoding for encoding in sorted(shares, key=shares.__getitem__)[::-1] if shares[encoding] >= MIN_SHARE]
    if not likely and _SIMPLE_CHINESE.fullmatch(sample):
        likely = ["gb18030"]
    if not likely and western:
        shares = {encoding: _latin_share(sample, encoding) for encoding in _LATIN}
        likely = [max(_LATIN, key=shares.__getitem__)] if max(shares.values()) >= MIN_LATIN_SHARE else []
    if not likely:
        matches = charset_normalizer.from_bytes(sample, cp_isolation=_OTHERS)
        likely = [codecs.lookup(match.encoding).name for match in matches]
    return [*likely[:3], "cp1252"] if western else likely[:3]


def _frequent_share(sample: bytes, encoding: str) -> float:
    """How many of the characters that are not ASCII are frequent ones, but for two; 0 where the sample does not fit."""
    text = (_read(sample, encoding) or ("",))[0]
    foreign = _count_foreign(text)
    if not foreign or text.count("\ufffd") > TOLERANCE * len(sample):
        return 0.0
    return (sum(map(text.count, _FREQUENT[encoding])) - 2) / foreign


def _latin_share(sample: bytes, encoding: str) -> float:
    """How many of the letters that are not ASCII are of one language, of the language that has most of them."""
    text = sample.decode(encoding, "replace").lower()
    foreign = _count_foreign(text) - sum(map(text.count, _NEUTRAL))
    return max(sum(map(text.count, letters)) for letters in _LETTERS) / foreign if foreign > 0 else 1.0
