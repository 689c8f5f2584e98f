"""Personal data: found by precise patterns, masked by what it is.

The patterns ask for digits that stand alone, and not for `\\b`, which finds no border beside a Chinese character.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import re
from collections.abc import Callable

Counts = dict[str, int]

_ALONE = r"(?<![0-9A-Za-z_.])"
_END = r"(?![0-9A-Za-z_]|[.-][0-9])"
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
_ID = re.compile(rf"{_ALONE}[1-9]\d{{5}}(?:19|20)\d{{9}}[0-9Xx]{_END}")
_CARD = re.compile(rf"{_ALONE}(?:[3-6]\d{{3}}(?:[ -]\d{{4}}){{3}}(?:[ -]\d{{1,3}})?|[3-6]\d{{14,18}}){_END}")
_PHONE = re.compile(
    rf"{_ALONE}(?:"
    r"(?:\+?86[ -]?)?1[3-9]\d(?:[ -]?\d{4}){2}"  # Chinese mobile
    r"|(?:\+?86[ -]?)?0\d{2,3}-\d{7,8}(?:-\d{1,5})?"  # landline
    r"|[(（]0\d{2,3}[)）] ?\d{7,8}"
    r"|\+[1-9]\d{0,2}(?:[ -]\(?\d{2,4}\)?){2,4}"  # international
    r"|(?:\(\d{3}\) ?|\d{3}-)\d{3}-\d{4}"  # North American
    rf"){_END}"
)
_IP = re.compile(rf"{_ALONE}(?<!-)\d{{1,3}}(?:\.\d{{1,3}}){{3}}{_END}")


def mask_personal_data(text: str) -> tuple[str, Counts]:
    """Replace e-mail addresses, phones, Chinese IDs, bank cards and public IPv4 addresses by typed placeholders.

    >>> mask_personal_data("请打13912345678或写信给li@example.com，谢谢")
    ('请打<PHONE>或写信给<EMAIL>，谢谢', {'email': 1, 'phone': 1})
    >>> mask_personal_data("Python 3.11.7 took 0.1391234567812 s at 127.0.0.1, id 11010519491231002X")[0]
    'Python 3.11.7 took 0.1391234567812 s at 127.0.0.1, id <ID>'
    """
    counts: Counts = {}
    rules: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
        ("email", _EMAIL, lambda found: True),
        ("id", _ID, is_chinese_id),
        ("card", _CARD, passes_luhn),
        ("phone", _PHONE, _has_phone_length),
        ("ip", _IP, is_public_address),
    )
    for kind, pattern, holds in rules:
        text = pattern.sub(functools.partial(_placeholder, kind, holds, counts), text)
    return text, counts


def _placeholder(kind: str, holds: Callable[[str], bool], counts: Counts, found: re.Match[str]) -> str:
    """What stands in the place of a match, which is counted; the match itself where it does not hold."""
    if not holds(found[0]):
        return found[0]
    counts[kind] = counts.get(kind, 0) + 1
    return f"<{kind.upper()}>"


def is_chinese_id(number: str) -> bool:
    """Whether 18 characters are a resident ID: a date of birth, and the check digit of GB 11643 (ISO 7064 MOD 11-2).

    >>> is_chinese_id("11010519491231002X"), is_chinese_id("110105194912310021")
    (True, False)
    """
    try:
        datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(int(digit) * (2 ** (17 - place) % 11) for place, digit in enumerate(number[:17]))
    return "10X98765432"[total % 11] == number[17].upper()


def passes_luhn(number: str) -> bool:
    """Luhn's check of a card number, spaces and hyphens aside.

    >>> passes_luhn("4111 1111 1111 1111"), passes_luhn("4111111111111112")
    (True, False)
    """
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return 15 <= len(digits) <= 19 and len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _has_phone_length(found: str) -> bool:
    return 9 <= sum(character.isdigit() for character in found) <= 15


def is_public_address(found: str) -> bool:
    """Whether four numbers are a public IPv4 address; small numbers throughout are taken for a version.

    >>> [is_public_address(found) for found in ("93.184.216.34", "192.168.0.1", "4.2.0.1", "1.300.2.3")]
    [True, False, False, False]
    """
    try:
        address = ipaddress.IPv4Address(found)
    except ValueError:
        return False
    return address.is_global and any(octet >= 32 for octet in address.packed)
