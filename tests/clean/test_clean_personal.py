"""Personal data: what is masked, and what only looks like it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.clean.personal import is_chinese_id, is_public_address, mask_personal_data, passes_luhn

# Texts with the personal data in brackets; outside of them nothing may change.
MARKED = """
邮箱[EMAIL zhang.san@example.com]请查收
联系[EMAIL support@example.com]或电话
发到[EMAIL li_4+tag@mail.example.com.cn]。
邮箱：[EMAIL wang@qq.com]，[EMAIL 12345678@qq.com]；
全角[EMAIL li＠example.com]也算
write to [EMAIL john.doe@example.co.uk].
<[EMAIL jane-doe@sub.example.org]>
mailto:[EMAIL info@example.net]?subject=hi
"[EMAIL O_Brien99@example.museum]", he said
[EMAIL john (at) example (dot) com] is mine
write me: [EMAIL jane[at]example.org]!
or [EMAIL bob [at] mail [dot] example [dot] org]
电话[PHONE 13912345678]。
请打[PHONE 139-1234-5678]找小李
请打[PHONE 139 1234 5678]找小李
拨[PHONE +86 177 1234 5678]或[PHONE 0571-88886666]，
拨[PHONE +8613912345678]，或[PHONE 8613912345678]
拨[PHONE 0086 13912345678]，
座机[PHONE 010-62345678]转，[PHONE 010 62345678]
传真[PHONE (021)62345678]，传真（前台）[PHONE （0755）26789012]
分机[PHONE 0571-88886666-8001]。
国际[PHONE +86-10-62345678]
电话：[PHONE 62345678]
手机号：[PHONE 13912345678]，手机[PHONE 15800001111]
热线是[PHONE 400-820-8820]
Tel. [PHONE 020 7946 0958], fax: [PHONE 555-0199-77]
Phone number: [PHONE 555 123 4567]
call [PHONE (555) 123-4567] or [PHONE +44 20 7946 0958]
call [PHONE 555-123-4567] now
call [PHONE 1-800-555-0199] or [PHONE 1 (800) 555-0199]
call [PHONE 415.555.0132] today
call [PHONE +1 415 555 0132], [PHONE +1 (415) 555-0132]
in Paris [PHONE 01 42 68 53 00], [PHONE +33 1 42 68 53 00]
in Berlin [PHONE 030 12345678] or [PHONE +49 30 12345678]
in London [PHONE 020 7946 0958] or [PHONE +44 (0)20 7946 0958]
ring [PHONE +4915112345678] please
in Tokyo [PHONE +81-3-1234-5678]
证件号[ID 11010519491231002X]已核
身份证：[ID 11010519491231002x]，
(ID [ID 440524198001010013]) was his
[ID 440524198001010013]
卡号[CARD 6222021234567890128]，
卡号[CARD 6222 0212 3456 7890 128]尾号
Visa [CARD 4111-1111-1111-1111] expired
Visa [CARD 4111111111111111], [CARD 4111 1111 1111 1111]
Mastercard [CARD 5555555555554444] and [CARD 5105 1051 0510 5100]
new Mastercard [CARD 2223003122003222]
Amex [CARD 378282246310005] or [CARD 3782 822463 10005]
Diners [CARD 3056 930902 5904], [CARD 30569309025904]
JCB [CARD 3530111333300000]
银联[CARD 6200000000000005]。
from [IP 93.184.216.34] to 10.0.0.1
来自[IP 114.114.114.114]的请求
http://[IP 93.184.216.34]:8080/index
[IP 8.8.8.200], [IP 185.199.108.153]/24
host [IP 2606:4700::6810:85e5] up
[IP 2001:4860:4860:0:0:0:0:8888] or [IP 2a00:1450:4001:81b::200e]
地址[IP 240e:ec:8000::1:2:3]。
"""

STAYS = """
Changed in version 3.11.7.2; see PEP 3156 and RFC 2822.
sys.maxsize == 9223372036854775807, 2**64 == 18446744073709551616
0x13912345678 and 0.13912345678 and 1.3912345678e+10, id_13912345678
2024-06-01 21:14:07.512, 1e-16, 3.141592653589793
@functools.wraps and a @ b.c; x[13912345678.5]
hash 13912345678abc, 1391234567812 ms, 0555-1234
127.0.0.1, 192.168.1.100, 255.255.255.255, 0.0.0.0, 10.0.0.255
版本4.11.16.299已发布，版本 10.120.33.44
version 49.0.200.33, v6.12.40.2, Chrome/49.0.200.33
1.3.6.1.4.1.311.21.20 is an OID
uuid 550e8400-e29b-41d4-a716-446655440000
uuid 12345678-1234-4123-8123-139123456789
md5 d41d8cd98f00b204e9800998ecf8427e, sha 13912345678901234567890123456789abcdef01
1718000000 seconds, 1718000000000 ms, 20240601211407
20240601-20240630, 2023/10/11 12:13:14
ISBN 978-7-302-12345-6, ISBN 9787302123456, ISBN 0-306-40615-2
ISSN 1234-5678, DOI 10.1000/182.12345678
订单号6222021234567890128，订单号：13912345678
快递单号 13912345678 已发出，流水号4111111111111111
order number 4111111111111111, Order #5555555555554444
tracking no. 13912345678, ticket #13912345678
¥1,391,234,567.80, $12,345,678.90, 1 234 567 890
人口13亿9123万，面积960万平方公里
2020年01月02日03时04分05秒
10-20-30-40-50, 1-2-3-4-5-6-7-8-9
(1) (2) (3) (4) (5) (6) (7)
+1 and -1, +10 +20 +30, UTC+08:00, C++11
matrix 1 0 0 0 1 0 0 0 1
0000020 040 171 157 165 040 141 162 145 040
7f 45 4c 46 02 01 01 00 00 00 00 00
19327352832 bytes, 13912345678 字节, 13912345678元
https://item.example.com/item.htm?id=13912345678
https://example.com/4111111111111111/13912345678.html
#include <a.h> // 12345678
logo@2x.png, icon@3x.webp
git@github.com:user/project.git
ssh pi@raspberrypi.local
getty@tty1.service
user@localhost, root@server
npm i left-pad@1.3.0 @scope/name@2.0.1
meet (at) noon, (at) home, a [at] b
look at example.com
4111111111111112 is no card
6222021234567890123 is no card
9111111111111111111, 1111111111111111, 4444444444444444444
0000000000000000
110105194912310021 is no ID
110105194913310020, 11010519491231002
2001:db8::1, fe80::1, ::1, 2001:db8:0:0:0:0:0:1
std::vector<int>, a::b::c, dead::beef, 20::30
12:30:45, 2024:06:01, 23:59:59:999
MAC 00:1A:2B:3C:4D:5E, 20:30:40:50:60:70
scores 12:10 21:19 21:15
pages 123-456, lines 1000-2000, 3-4567-8
Section 1.2.3.4 and 10.20.30.31
0.1 0.2 0.3 0.4 0.5 0.6
12.34.56, 1.234.567, 99.999.9999
CVE-2021-44228, GB/T 7714-2015, ISO 8601:2004
GB 11643-1999《公民身份号码》
QQ群：编号 13912345678
型号SM-G9910，电量5000mAh
19491001, 1949-10-01, 10/01/1949
邮编100084，区号010
phone 5 costs 199, 电话费 120 元
call 12345 or 110
13747812500*q**6 + 14000000000*p
224.0.0.251, 239.255.255.250
"""

CASES = MARKED.strip().splitlines()


@pytest.mark.parametrize("marked", CASES)
def test_personal_data_is_masked(marked: str) -> None:
    text, masked, counts = "", "", {}
    for piece in marked.replace("[at]", "\0").replace("[dot]", "\1").split("["):
        kind, blank, rest = piece.partition(" ")
        if blank and kind in ("EMAIL", "PHONE", "ID", "CARD", "IP") and "]" in rest:
            inside, _, after = rest.partition("]")
            text, masked = text + inside + after, f"{masked}<{kind}>{after}"
            counts[kind.lower()] = counts.get(kind.lower(), 0) + 1
        else:
            text, masked = text + piece, masked + piece
    text, masked = (side.replace("\0", "[at]").replace("\1", "[dot]") for side in (text, masked))
    assert mask_personal_data(text) == (masked, counts)
    assert mask_personal_data(masked) == (masked, {}), "placeholders are no personal data"


@pytest.mark.parametrize("text", STAYS.strip().splitlines())
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert mask_personal_data(text) == (text, {})


def test_the_tables_are_large() -> None:
    assert sum(line.count("[") for line in CASES) >= 60
    assert len(STAYS.strip().splitlines()) >= 60


@given(st.text("0123456789 .-+@()ab:电话", max_size=60))
def test_nothing_else_changes(text: str) -> None:
    masked, counts = mask_personal_data(text)
    assert sum(masked.count(f"<{kind}>") for kind in ("EMAIL", "PHONE", "ID", "CARD", "IP")) == sum(counts.values())
    if not counts:
        assert masked == text


@given(st.from_regex(r"[1-9][0-9]{5}(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|1[0-9]|2[0-8])[0-9]{3}", fullmatch=True))
def test_one_check_digit_in_eleven_fits(first: str) -> None:
    weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]  # as the standard prints them
    check = "10X98765432"[sum(int(digit) * weight for digit, weight in zip(first, weights, strict=True)) % 11]
    assert [digit for digit in "0123456789X" if is_chinese_id(first + digit)] == [check]


@given(st.text("0123456789", min_size=14, max_size=14))
def test_luhn_finds_each_wrong_digit(middle: str) -> None:
    fitting = [f"4{middle}{check}" for check in "0123456789" if passes_luhn(f"4{middle}{check}")]
    assert len(fitting) == 1
    for place in range(1, 16):
        changed = str((int(fitting[0][place]) + 1) % 10)
        assert not passes_luhn(fitting[0][:place] + changed + fitting[0][place + 1 :])


def test_addresses_of_private_networks_are_nobodys() -> None:
    private = (
        "10.1.200.3",
        "172.16.99.1",
        "192.168.200.200",
        "169.254.99.1",
        "100.64.99.1",
        "198.51.100.77",
        "fe80::1",
    )
    assert not any(map(is_public_address, private))
    assert not any(map(is_public_address, ("256.1.1.99", "1.2.3", "", "2001::g")))


@pytest.mark.parametrize(
    "repeated",
    [
        *("1", "1 ", "1-", "1.", "(0", "+1 ", "0 ", "a", "a.", "a@", "@", "(at) ", "a (at) a (dot) ", "[at]a.", "f:"),
        *(
            "2001:",
            "::",
            "6222",
            "4111 ",
            "20",
            "电话",
            "电话1",
            "tel: 1 ",
            "https://1391234567",
            "版本1.2.3.4",
            "1(1)",
        ),
    ],
)
def test_no_text_takes_long(repeated: str) -> None:
    text = repeated * (1_000_000 // len(repeated))
    started = time.process_time()
    mask_personal_data(text)
    assert time.process_time() - started < 3  # most take a tenth of a second


@pytest.mark.parametrize("unit", ["139 1234 5678; ", "电话13912345678，", "4111 1111 1111 1111, ", "order 1391234567 "])
def test_many_numbers_take_time_by_their_number(unit: str) -> None:
    """Not by its square, as where all of the text is looked through for each of them."""
    seconds = []
    for times in (10_000, 80_000):
        text = unit * times
        started = time.process_time()
        masked, counts = mask_personal_data(text)
        seconds.append(time.process_time() - started)
        assert masked.count("<") == sum(counts.values()) == (0 if unit.startswith("order") else times)
    assert seconds[1] < 25 * seconds[0]


@pytest.mark.parametrize("before", ["see http://a.example/b?t=", "see http://a.example/" + "b" * 170, "a/b "])
def test_numbers_within_addresses_on_the_web_are_left_alone(before: str) -> None:
    number = "13912345678"
    assert mask_personal_data(f"{before}{number}")[1] == ({"phone": 1} if before == "a/b " else {})
