"""Personal data: found by precise patterns, masked by what it is.

The patterns ask for digits that stand alone, and not for `\\b`, which finds no border beside a Chinese character. What
looks alike and has a check digit or a registered range is checked; what is called an order number is left alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from stdnum import luhn
from stdnum.cn import ric
from stdnum.exceptions import ValidationError

Counts = dict[str, int]

# After the first character of a number: it is no part of a longer one, of a word or of an UUID. (A pattern that begins
# with a set of characters is searched for five times as fast as one that begins with a look back.)
_ALONE = r"(?<![0-9A-Za-z_.].)(?<![0-9A-Za-z]-.)"
_END = r"(?![0-9A-Za-z_]|[.-][0-9])"
_DOMAIN = r"(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}(?![a-z0-9-])"
_DOT = r" ?[\[({] ?dot ?[\])}] ?"
_WRITTEN_AT = re.compile(r"[\[({] ?at ?[\])}]", re.I)
_EMAIL = re.compile(
    rf"(?<![a-z0-9._%+-])[a-z0-9._%+-]{{1,64}}(?:[@＠]{_DOMAIN}"
    rf"| ?{_WRITTEN_AT.pattern} ?(?:{_DOMAIN}|(?:[a-z0-9-]{{1,63}}{_DOT}){{1,4}}[a-z]{{2,24}}(?![a-z0-9-])))",
    re.I | re.A,
)
_NO_TOP_LEVEL = frozenset(  # of files, as in logo@2x.png, and of machines at home
    (
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "webp",
        "css",
        "js",
        "ts",
        "json",
        "html",
        "py",
        "txt",
        "md",
        "local",
        "lan",
        "service",
    )
)
_ID = re.compile(rf"[1-9]{_ALONE}[0-9]{{5}}(?:19|20)[0-9]{{9}}[0-9Xx]{_END}")
_CARD = re.compile(
    rf"[2-69]{_ALONE}[0-9]{{3}}(?:(?:[ -]?[0-9]{{4}}){{3}}(?:[ -]?[0-9]{{1,3}})?|[ -]?[0-9]{{6}}[ -]?[0-9]{{4,5}}"
    rf"|(?:[ -][0-9]{{3}}){{3}}){_END}"
)
_ISSUED = re.compile(  # Visa, Mastercard, JCB, American Express, Diners, UnionPay and others
    r"4(?:.{12}|.{15}|.{18})|(?:5[0-8]|2[2-7]|35).{14}|3[47].{13}|3[0689].{12}|6.{15,18}|9558.{12,15}"
)
_PHONE = re.compile(
    rf"[+(（0-9]{_ALONE}(?:"
    r"(?:(?<=\+)86[ -]?|(?<=0)086[ -]?|(?<=8)6[ -]?)1[3-9][0-9](?:[ -]?[0-9]{4}){2}"  # Chinese mobile
    r"|(?<=1)[3-9][0-9](?:[ -]?[0-9]{4}){2}"
    r"|(?:(?<=\+)86[ -]?|(?<=8)6[ -]?)0?(?:10|2[0-9]|[3-9][0-9]{2})[- ]?[0-9]{7,8}"  # landline
    r"|(?<=0)(?:10|2[0-9]|[3-9][0-9]{2})[- ][0-9]{7,8}(?:-[0-9]{1,5})?"
    r"|(?<=[(（])0[0-9]{2,3}[)）][ -]?[0-9]{7,8}"
    r"|(?:(?<=1)[-. ][2-9]|(?<=[2-9]))[0-9]{2}[-.][0-9]{3}[-.][0-9]{4}"  # North American
    r"|(?:(?<=1)[-. ]\(|(?<=\())[2-9][0-9]{2}\) ?[0-9]{3}[-. ][0-9]{4}"
    r"|(?<=\+)[1-9][0-9]{9,14}"  # international
    r"|(?<=\+)[1-9][0-9]{0,2}(?:[ .-]?\([0-9]{1,4}\)[0-9]{0,4}|[ .-][0-9]{1,4}){1,5}(?:[ .-]?[0-9]{4,8})?"
    r"|(?<=0)(?<![0-9] .)[1-9]"  # French, British, German; not in a row of numbers
    r"(?:(?:[ .][0-9]{2}){4}|[0-9]{1,3} [0-9]{3,4} [0-9]{3,4}|[0-9]{1,3}[ /][0-9]{6,8})(?! [0-9])"
    rf"){_END}(?! ?(?:\*|bytes?|字节|字節|[KMG]i?B|ms|元|美元|USD|RMB))"
)
_LABELLED = re.compile(rf"[+(（0-9]{_ALONE}[0-9]?(?:[ ()（）.-]{{0,2}}[0-9]){{5,14}}{_END}")
_LABEL = re.compile(
    r"(?:电话|電話|手机号?码?|手機|热线|熱線|传真|傳真|座机|(?<![A-Za-z])(?:tel|telephone|phone|mobile|cell|fax|hotline)\.?)"
    r"(?: (?:no\.?|number))?(?:是|为)?[:： ]{0,3}$",
    re.I,
)
_IPV4 = re.compile(rf"[0-9]{_ALONE}(?<![A-Za-z]/.)(?<!-.)[0-9]{{0,2}}(?:\.[0-9]{{1,3}}){{3}}{_END}")
_IPV6 = re.compile(r"[23](?<![0-9A-Za-z:.].)[0-9a-f]{3}:(?:[0-9a-f]{0,4}:){1,6}[0-9a-f]{1,4}(?![0-9A-Za-z:])", re.I)
_LONG_NUMBER = re.compile(r"[0-9](?:[ ()（）./-]{0,2}[0-9]){6}")
_THING = re.compile(  # whose number it is
    r"(?:单号|單號|编号|編號|序列号|流水号|订单|工单|版本|ISBN|ISSN|DOI|SKU|order|ticket|issue|serial|invoice|tracking|#)"
    r"[号號]?(?: (?:no\.?|number|id))?(?:是|为)?[:：# ]{0,3}$",
    re.I,
)
_URL = re.compile(r"(?:https?|ftp)://[!-~]*$")
_VERSION = re.compile(r"(?:版本|(?<![A-Za-z])(?:version|ver|v|release|build))[号號]?\.?[:： ]{0,2}$", re.I)


def mask_personal_data(text: str) -> tuple[str, Counts]:
    """Replace e-mail addresses, phones, Chinese IDs, bank cards and public IP addresses by typed placeholders.

    The placeholders are <EMAIL>, <PHONE>, <ID>, <CARD> and <IP>; the matches are counted under `email` and so on.

    >>> mask_personal_data("请打13912345678或写信给li@example.com，谢谢")
    ('请打<PHONE>或写信给<EMAIL>，谢谢', {'email': 1, 'phone': 1})
    >>> mask_personal_data("Python 3.11.7 took 0.1391234567812 s at 127.0.0.1, id 11010519491231002X")[0]
    'Python 3.11.7 took 0.1391234567812 s at 127.0.0.1, id <ID>'
    """
    counts: Counts = {}
    if "@" in text or "＠" in text or _WRITTEN_AT.search(text):
        text = _mask(text, "email", _EMAIL, _is_address, counts)
    if _LONG_NUMBER.search(text):
        text = _mask(text, "id", _ID, lambda found: is_chinese_id(found[0]), counts)
        text = _mask(text, "card", _CARD, lambda found: passes_luhn(found[0]) and not _is_named(found), counts)
        text = _mask(text, "phone", _PHONE, _is_phone, counts)
        text = _mask(text, "phone", _LABELLED, lambda found: _follows(_LABEL, found, 24), counts)
    if "." in text:
        text = _mask(text, "ip", _IPV4, lambda found: is_public_address(found[0]) and not _is_version(found), counts)
    if ":" in text:
        text = _mask(text, "ip", _IPV6, lambda found: is_public_address(found[0]), counts)
    return text, counts


def _mask(
    text: str, kind: str, pattern: re.Pattern[str], holds: Callable[[re.Match[str]], bool], counts: Counts
) -> str:
    """The text with a placeholder for each match that holds; they are counted."""

    def placeholder(found: re.Match[str]) -> str:
        if not holds(found):
            return found[0]
        counts[kind] = counts.get(kind, 0) + 1
        return f"<{kind.upper()}>"

    return pattern.sub(placeholder, text)


def is_chinese_id(number: str) -> bool:
    """Whether 18 characters are a resident ID: a date of birth, and the check digit of GB 11643 (ISO 7064 MOD 11-2).

    The district is not looked up: many that stand in valid cards exist no more.

    >>> is_chinese_id("11010519491231002X"), is_chinese_id("110105194912310021")
    (True, False)
    """
    try:
        ric.get_birth_date(number)
    except ValidationError:
        return False
    return bool(ric.calc_check_digit(number) == number[17].upper())


def passes_luhn(number: str) -> bool:
    """Luhn's check of a card number of 13 to 19 digits from an issuer's range, spaces and hyphens aside.

    >>> passes_luhn("4111 1111 1111 1111"), passes_luhn("4111111111111112")
    (True, False)
    """
    digits = number.replace(" ", "").replace("-", "")
    return bool(_ISSUED.fullmatch(digits)) and len(set(digits)) > 1 and bool(luhn.is_valid(digits))


def is_public_address(found: str) -> bool:
    """Whether it is a public IPv4 or IPv6 address; four small numbers are taken for a version.

    >>> [is_public_address(found) for found in ("93.184.216.34", "192.168.0.1", "4.2.0.1", "2606:4700::6810:85e5")]
    [True, False, False, True]
    """
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast and any(octet >= 32 for octet in address.packed)


def _is_address(found: re.Match[str]) -> bool:
    """No file name, and no remote of git."""
    return found[0].rpartition(".")[2].lower() not in _NO_TOP_LEVEL and not (
        found[0].startswith("git@") and found.string[found.end() : found.end() + 1] == ":"
    )


def _is_phone(found: re.Match[str]) -> bool:
    return 9 <= sum(map(str.isdigit, found[0])) <= 16 and not _is_named(found)


def _is_named(found: re.Match[str]) -> bool:
    """Whether the words before a number say that it is a thing's, or it is part of an address on the web."""
    return _follows(_THING, found, 24) or _follows(_URL, found, 200)


def _is_version(found: re.Match[str]) -> bool:
    return _follows(_VERSION, found, 16)


def _follows(label: re.Pattern[str], found: re.Match[str], characters: int) -> bool:
    """Whether a pattern is found in the characters before a match.

    It looks at no more of the text: whatever goes through all of it for each match takes hours where there are many.
    """
    return bool(label.search(found.string[max(0, found.start() - characters) : found.start()]))
