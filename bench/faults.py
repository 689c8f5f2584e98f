"""What a quality filter is there for: documents broken on purpose, always the same ones.

The first four functions break a clean document; `spam` and `composed_boilerplate` write one; `leftover_lines` finds the
boilerplate of a real page. Texts are English or Chinese, and faults differ in kind as they do in the wild, so that no
single trick finds them all. Vocabulary, phrases and pages come in two halves, one for choosing bounds, one for judging.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from corpus.documents import document_id
from corpus.text.segment import words

TUNING, UNTOUCHED = "tuning", "untouched"
LEAST_WORDS = 20  # words, Chinese characters
LEAST_NOISY_WORDS = 100  # of a document that gets noise: a poem of 25 characters would get one wrong one, or none
NOISE = 0.04  # share of the characters that noise touches
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_CHINESE_UNIT = re.compile(r"[^\W\u3400-\u9fff]+|[^\s]")  # a run of Latin letters and digits, or one character
_SENTENCE = re.compile(r"[^.!?。！？\n]+[.!?。！？]+[\"'”’」]?\s*|[^\n]+")
_COMMON_HAN = {  # the first levels of the two national character sets: what anybody reads
    "zh-Hans": [bytes([a, b]).decode("gb2312", "ignore") for a in range(0xB0, 0xD8) for b in range(0xA1, 0xFF)],
    "zh-Hant": [bytes([a, b]).decode("big5", "ignore") for a in range(0xA4, 0xC6) for b in range(0x40, 0x7F)],
}
HAN = {language: [han for han in characters if han] for language, characters in _COMMON_HAN.items()}
HAN["any"] = [chr(point) for point in range(0x4E00, 0x9FA6)]

# Languages that a document labelled English or Chinese is really in: near ones and distant ones.
FOREIGN = {
    "en": "de fr es it pt nl sv da pl cs ro hu fi tr id tl vi la eu ru uk el ar hi ja ko",
    "zh-Hans": "ja ko vi th ru de fr",
    "zh-Hant": "ja ko vi",
}


class Document(NamedTuple):
    """A text with what is known of it."""

    text: str
    lang: str  # as labelled
    part: str  # TUNING or UNTOUCHED
    domain: str  # of the clean text that it is, or was made from
    fault: str = ""  # empty: clean
    kind: str = ""  # of the fault


class Page(NamedTuple):
    """A web page: its visible text and its main text."""

    site: str
    lang: str
    text: str
    main: str
    judged: bool  # by people, or else by our extractor


def long_enough(text: str, least: int = LEAST_WORDS) -> bool:
    """Whether a text has the words, or Chinese characters, to be judged by."""
    return sum(word[0].isalnum() for word in words(text[: 40 * least])) >= least


def seeded(*key: object) -> Random:
    """A generator of its own for each document, so that another count changes no other document."""
    return Random(document_id(json.dumps(key, ensure_ascii=False)))


# ---- faults of a document --------------------------------------------------------------------------------------------


def shuffled(text: str, language: str, random: Random) -> tuple[str, str]:
    """Words in random order, in Chinese characters and punctuation; spaces and line breaks stay where they are."""
    unit = _CHINESE_UNIT if language.startswith("zh") else re.compile(r"\S+")
    units = unit.findall(text)
    random.shuffle(units)
    rest = iter(units)
    return unit.sub(lambda _: next(rest), text), "shuffled"


def noisy(text: str, language: str, random: Random) -> tuple[str, str]:
    """NOISE of the characters wrong, as in a bad scan: letters become others, are lost or swapped, Han become others.

    In half of the Chinese documents these are common ones, the harder kind, in the others any of the main block.
    """
    characters = list(text)
    common = random.random() < 0.5
    some_han = HAN[language if common and language in HAN else "any"]
    for place, character in enumerate(characters):
        if random.random() >= NOISE:
            continue
        if _HAN.match(character):
            characters[place] = random.choice(some_han)
        elif character.isascii() and character.isalnum():
            kind = random.choice(["replace", "replace", "lose", "swap"])
            if kind == "swap" and place + 1 < len(characters) and characters[place + 1].isalnum():
                characters[place], characters[place + 1] = characters[place + 1], character
            else:
                characters[place] = "" if kind == "lose" else random.choice("abcdefghijklmnopqrstuvwxyzIl10O5S8B")
    return "".join(characters), ("common Han" if common else "any Han") if language != "en" else "letters"


def mojibake(text: str, language: str, random: Random) -> tuple[str, str]:
    """Bytes read in the wrong encoding: what a crawler makes of a page that declares none, or a false one.

    English in ASCII survives most mistakes, so that there it is taken for UTF-16, or for EBCDIC.
    """
    if language.startswith("zh"):
        own = "gb18030" if language == "zh-Hans" else "big5"
        mistakes = [("utf-8", "latin-1"), ("utf-8", "cp1252"), ("utf-8", own), (own, "latin-1"), (own, "utf-8")]
    else:
        mistakes = [("utf-8", "utf-16-le"), ("utf-16-le", "utf-16-be"), ("utf-8", "utf-16-be"), ("utf-8", "cp500")]
    written, read = random.choice(mistakes)
    broken = text.encode(written, "replace").decode(read, "replace")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", broken), f"{written} as {read}"


def repeated(text: str, language: str, random: Random) -> tuple[str, str]:
    """A passage over and over, as broken templates and models leave it: a whole text of it, or the second half."""
    del language
    sentences = [sentence for sentence in _SENTENCE.findall(text) if len(sentence.strip()) >= 8] or [text]
    start = random.randrange(len(sentences))
    passage = "".join(sentences[start : start + random.choice([1, 1, 2, 4])]).strip()
    times = max(4, len(text) // len(passage))
    joint = random.choice(["\n", "\n\n", " "])
    if random.random() < 0.5:
        return joint.join([passage] * times), "all of it"
    return text[: len(text) // 2].rstrip() + "\n" + joint.join([passage] * max(4, times // 2)), "second half"


OF_A_DOCUMENT: dict[str, Callable[[str, str, Random], tuple[str, str]]] = {
    "shuffled": shuffled,
    "4 % noise": noisy,
    "mojibake": mojibake,
    "repetition": repeated,
}


# ---- advertisements --------------------------------------------------------------------------------------------------

# By half, trade -> what it sells.
ENGLISH_TRADES = (
    {
        "casino": "online casino,slot machines,free spins,blackjack bonus,poker room,no deposit bonus,live roulette",
        "shoes": "running shoes,basketball sneakers,leather boots,designer sandals,walking shoes,outlet trainers",
        "loans": "payday loans,bad credit loans,cash advance,personal loan,debt consolidation,same day loan",
        "pills": "weight loss pills,fat burner,keto gummies,diet supplement,slimming tea,appetite suppressant",
        "essays": "essay writing service,term paper,dissertation help,custom essay,homework help,research paper",
    },
    {
        "watches": "replica watches,luxury watch,swiss movement,designer handbags,sunglasses outlet,silver bracelet",
        "plumbing": "emergency plumber,drain cleaning,water heater repair,leak detection,boiler service,pipe repair",
        "seo": "seo services,backlinks package,guest posts,website traffic,keyword ranking,instagram followers",
        "phones": "phone case,refurbished phone,screen protector,unlocked smartphone,wireless earbuds,fast charger",
        "software": "windows product key,cheap antivirus,office license,vpn deal,video converter,driver updater",
    },
)
ENGLISH_PLACES = ("London Dallas Leeds Phoenix Toronto Austin", "Chicago Sydney Bristol Miami Denver")
ENGLISH_PHRASES = (
    [
        "Looking for {k}? You have come to the right place for {k} in {c}.",
        "Our {k} is the best {k} you can buy online, and every {k} comes with free shipping.",
        "If you want {k}, our team offers the cheapest {k}, {k2} and {k3} in {c}.",
        "Click here to get {k} today and save up to {n}% on all {k2}.",
        "Customers who search for {k} also love our {k2} and our {k3}.",
        "Why choose our {k}? Because we are the number one provider of {k} in {c} and nearby areas.",
        "Order {k} now from only ${n}.99 and receive a free {k2}, no questions asked.",
        "Read our {k} reviews, compare {k2} prices and find the best {k3} deals of the year.",
        "{k} is very popular nowadays, and many people are searching for {k} with {k2}.",
        "Call us now on 0800 {n} {n2} for {k}, {k2} or a free quote.",
    ],
    [
        "Are you in need of {k} in {c}? We specialise in {k} and {k2} at unbeatable prices.",
        "Get the best {k} near you: affordable {k}, trusted {k2}, 100% satisfaction guaranteed.",
        "Buy {k} online with {n}% off, worldwide delivery and a money back guarantee.",
        "We provide {k}, {k2} and {k3} for all customers in {c} and the surrounding area.",
        "Don't miss out! Limited time offer on {k}, hurry while stocks last.",
        "The {k} that we offer is high quality {k} which is the top {k} of this season.",
        "Visit our shop for {k}: www.{s}-{n2}.com has the widest range of {k2} and {k3}.",
        "Sign up today for {k} and get {k2} worth ${n} absolutely free.",
        "When it comes to {k}, nobody beats our {k2}, so contact us for {k3} in {c} today.",
        "Top {n} {k} tips: how to find {k}, how to pick {k2}, and where to buy {k3} cheap.",
    ],
)
ENGLISH_MODIFIERS = (
    "cheap,best,buy,discount,top rated,affordable",
    "free,low cost,original,new,number one,professional",
)
ENGLISH_ENDINGS = (
    "online,near me,for sale,2024,free shipping",
    "reviews,coupon code,UK,in USA,price",
)

CHINESE_TRADES = (
    {
        "fp": "代开发票,增值税发票,餐饮发票,住宿费发票,建筑工程发票,普通发票代开",
        "bc": "真人娱乐城,时时彩平台,百家乐,体育投注,棋牌游戏下载,彩票计划群",
        "jf": "减肥产品,瘦身咖啡,排毒养颜茶,祛斑面膜,美白针,丰胸精油",
        "dk": "无抵押贷款,信用卡代还,小额贷款,车辆抵押贷款,征信修复,当天放款",
        "lw": "论文代写,职称论文发表,毕业设计代做,核心期刊发表,代写硕士论文,查重降重",
    },
    {
        "bj": "搬家公司,长途搬家,空调移机,家具拆装,疏通下水道,开锁换锁",
        "jz": "手机兼职,网上刷单,打字员兼职,宝妈兼职,日结工资,在家赚钱项目",
        "gf": "高仿手表,复刻名表,原单包包,精仿运动鞋,一比一皮带,奢侈品代理",
        "yh": "网站优化,关键词排名,百度推广,整站优化,外链代发,快速排名软件",
        "jx": "破碎机,制砂机,颗粒机设备,输送带厂家,不锈钢管件,球磨机价格",
    },
)
CHINESE_PLACES = ("北京 上海 广州 深圳 成都 武汉", "杭州 郑州 西安 长沙 青岛 东莞")
CHINESE_PHRASES = (
    [
        "{c}{k}哪家好？{c}{k}多少钱？专业{k}就找我们，{k2}诚信第一。",
        "本公司长期提供{k}、{k2}、{k3}，点数优惠，先验后付，欢迎来电咨询。",
        "需要{k}的朋友请加微信{w}，24小时在线，{k2}当天办理！",
        "{k}最新优惠，充{n}送{n}，注册即送{k2}大礼包，多充多送，名额有限！",
        "想要{k}吗？我们的{k}是市面上最好的{k}，无效退款，老客户都说好。",
        "{c}地区{k}价格，{c}{k2}电话，{c}{k3}公司，正规{k}，支持上门。",
        "联系电话：1{m} 联系人：陈经理 主营：{k} {k2} {k3}",
        "点击进入官网www.{s}{n}.com，{k}、{k2}一站式服务，立即领取{n}元红包。",
        "为什么选择我们的{k}？十年老店，{k2}行业第一品牌，全国{n}家分店。",
        "{k}推荐，{k}排行榜，{k}十大品牌，{k2}怎么样，{k3}好不好。",
    ],
    [
        "专业承接{c}{k}业务，{k2}服务热线：1{m}，价格最低，{k}快速上门。",
        "厂家直销{k}，{k}型号齐全，{k2}质量保证，欢迎新老客户来厂考察洽谈{k3}。",
        "招聘{k}，不收任何费用，每天{n}元，有手机就能做{k2}，加QQ{m}。",
        "{c}{k}_{c}{k2}_{c}{k3}-{c}鑫达{k}有限公司",
        "诚招代理！{k}一件代发，{k2}货到付款，支持退换，微信：{w}。",
        "你还在为{k}发愁吗？我们的{k2}团队帮你轻松搞定{k}，{n}天见效！",
        "{k}的优势：1、{k}价格低；2、{k2}速度快；3、{k3}售后有保障。",
        "全网最低价{k}，今日下单立减{n}元，{k2}限时抢购，错过再等一年！",
        "{c}{k}是一家集{k}、{k2}、{k3}于一体的综合性企业，竭诚为您服务。",
        "转发此消息到{n}个群，免费领取{k}一份，{k2}先到先得。",
    ],
)
CHINESE_MODIFIERS = ("专业,正规,便宜的,哪里有,最新,附近的", "优质,靠谱的,全国,本地,高端,免费")
CHINESE_ENDINGS = ("价格,多少钱,哪家好,公司,电话,官网", "厂家,批发,排名,怎么样,加盟,平台")


def spam(language: str, half: int, random: Random) -> tuple[str, str]:
    """An advertisement full of keywords: a doorway page, a list of keywords or of links, a shouting offer, or two."""
    chinese = language.startswith("zh")
    trades = (CHINESE_TRADES if chinese else ENGLISH_TRADES)[half]
    site = random.choice(sorted(trades))
    products = trades[site].split(",")
    phrases = (CHINESE_PHRASES if chinese else ENGLISH_PHRASES)[half]
    places = (CHINESE_PLACES if chinese else ENGLISH_PLACES)[half].split()
    before = (CHINESE_MODIFIERS if chinese else ENGLISH_MODIFIERS)[half].split(",")
    after = (CHINESE_ENDINGS if chinese else ENGLISH_ENDINGS)[half].split(",")
    space = "" if chinese else " "

    def keyword() -> str:
        words = [random.choice(products)]
        if random.random() < 0.5:
            words.insert(0, random.choice(before))
        if random.random() < 0.4:
            words.append(random.choice(after))
        return space.join(words)

    def sentence() -> str:
        slots: dict[str, Any] = {"k": keyword(), "k2": keyword(), "k3": keyword(), "c": random.choice(places)}
        slots |= {
            "n": random.randint(2, 99),
            "n2": random.randint(100, 999),
            "s": site,
            "w": f"{site}{random.random():.4f}"[:8],
        }
        return random.choice(phrases).format(**slots, m=random.randint(3_000_000_000, 9_999_999_999))

    def doorway() -> str:
        paragraphs = [space.join(sentence() for _ in range(random.randint(2, 5))) for _ in range(random.randint(2, 6))]
        return "\n\n".join(paragraphs)

    def keywords() -> str:
        return random.choice([", ", " | ", " ", "，", "、"] if chinese else [", ", " | ", "\n", "; "]).join(
            random.choice(places) + space + keyword() for _ in range(random.randint(20, 60))
        )

    def links() -> str:
        domains = ["com", "cn", "net"]
        return "\n".join(
            f"{keyword()} http://www.{site}{random.randint(1, 999)}.{random.choice(domains)}/{site}/{number}.html"
            for number in random.sample(range(10_000), random.randint(8, 25))
        )

    def offer() -> str:
        marks = random.choice(["★★★", "✔ ", ">>> ", "!!! ", "◆", "~~", "🔥"])
        lines = [
            marks + (line if chinese else line.upper()) for line in (sentence() for _ in range(random.randint(4, 10)))
        ]
        return "\n".join(
            line + random.choice(["!!!", "！！！" if chinese else "!!", "", marks.strip()]) for line in lines
        )

    kinds = {"doorway": doorway, "keywords": keywords, "links": links, "offer": offer}
    kind = random.choice(sorted(kinds))
    text = kinds[kind]()
    if random.random() < 0.3:
        text += "\n\n" + kinds[random.choice(sorted(kinds))]()
    return text, f"{kind}"


# ---- boilerplate -----------------------------------------------------------------------------------------------------

CHINESE_MENUS = (
    "首页 新闻中心 国内 国际 财经 体育 娱乐 科技 汽车 房产 教育 健康 视频 图片 论坛 博客 登录 注册 会员中心 购物车 "
    "收藏本站 设为首页 网站地图 手机版 客户端下载 热门标签 排行榜 更多>> 返回顶部 上一篇 下一篇 分享到微信 分享到微博 "
    "打印本页 关闭窗口 字号：大 中 小 评论(0) 点赞 举报",
    "公司简介 产品展示 解决方案 成功案例 服务支持 下载中心 联系我们 在线留言 人才招聘 企业文化 合作伙伴 技术文档 "
    "常见问题 用户协议 忘记密码 我的订单 优惠券 全部分类 品牌专区 限时特卖 帮助中心 配送方式 退换货政策 发票说明 "
    "客服热线 扫码关注 友情链接 English 繁體中文 搜索 高级检索 订阅 目录 附录 索引 展开全部 收起 相关推荐",
)
CHINESE_FOOTERS = (
    [
        "版权所有 © 2010-{y} 未经许可不得转载",
        "京ICP备{n}号-1 京公网安备{n}号",
        "关于我们 | 联系我们 | 广告服务 | 法律声明 | 隐私政策",
        "违法和不良信息举报电话：400-{n}",
        "本网站使用Cookie以改善您的浏览体验，继续浏览即表示同意。",
    ],
    [
        "Copyright © {y} All Rights Reserved 技术支持：某某网络",
        "粤ICP备{n}号 增值电信业务经营许可证B2-{n}",
        "服务条款 · 隐私权声明 · 网站导航 · 诚聘英才 · 意见反馈",
        "客服热线：400-{n}（周一至周日 9:00-18:00）",
        "请升级您的浏览器以获得更好的体验。本站点需要启用JavaScript。",
    ],
)


def composed_boilerplate(headings: Sequence[str], half: int, random: Random) -> tuple[str, str]:
    """Chinese menus, lists of headlines or tables of contents over real headings, and footers, a page's frame."""
    menu = random.sample(CHINESE_MENUS[half].split(), random.randint(10, 25))
    lines = [random.choice([" ", " | ", "\n", " > "]).join(menu)]
    if random.random() < 0.7:
        chosen = random.sample(list(headings), min(len(headings), random.randint(4, 12)))
        chapter = random.random() < 0.4
        lines += [f"{place}. {line} {place * 3}" if chapter else line for place, line in enumerate(chosen, 1)]
    footers = random.sample(CHINESE_FOOTERS[half], random.randint(1, 4))
    lines += [line.format(y=random.randint(2012, 2024), n=random.randint(10_000_000, 20_000_000)) for line in footers]
    return "\n".join(lines), "composed"


def leftover_lines(page: str, main: str, random: Random) -> Iterator[str]:
    """The lines of a page's visible text that its main text lacks, in runs of 8 to 40: menus, links, notices, footers.

    Not the runs that are mostly sentences: those are readers' comments, or main text that whoever marked it missed.
    """
    squeezed = re.sub(r"\s+", "", main)
    lines = [" ".join(line.split()) for line in page.split("\n")]
    lines = [line for line in lines if line and re.sub(r"\s+", "", line) not in squeezed]
    while lines:
        length = random.randint(8, 40)
        run, lines = lines[:length], lines[length:]
        prose = sum(len(line) for line in run if len(line) >= 20 and line[-1] in ".!?。！？…\"”'’")
        if prose * 2 < sum(map(len, run)):
            yield "\n".join(run)


# ---- all of them -----------------------------------------------------------------------------------------------------


def faulty_documents(
    clean: Sequence[Document], pages: Sequence[Page], sentences: Mapping[str, Sequence[str]], count: int
) -> Iterator[Document]:
    """Of each fault at most `count` documents for each language and part that clean documents have.

    `sentences` are those of FOREIGN's languages.
    """
    groups: dict[tuple[str, str], dict[str, list[Document]]] = defaultdict(lambda: defaultdict(list))
    for document in clean:
        groups[document.lang, document.part][document.domain].append(document)
    for (language, part), domains in groups.items():
        half = int(part == UNTOUCHED)
        for fault, function in OF_A_DOCUMENT.items():
            least = LEAST_NOISY_WORDS if function is noisy else LEAST_WORDS
            fitting = [[document for document in own if long_enough(document.text, least)] for own in domains.values()]
            for document in take_turns(fitting, count):
                text, kind = function(document.text, language, seeded(fault, document.text))
                yield document._replace(text=text, fault=fault, kind=kind)
        for number in range(count if language != "zh-Hant" else 0):  # there is no vocabulary in traditional characters
            text, kind = spam(language, half, seeded("spam", language, part, number))
            yield Document(text, language, part, "", "spam", kind)
        others = [
            own
            for (other, its), all_ in groups.items()
            if its == part and other[:2] != language[:2]
            for own in all_.values()
        ]
        for document in take_turns(others, count // 2):
            yield document._replace(lang=language, fault="wrong language", kind=document.lang)
        for number in range(count - count // 2):
            random = seeded("foreign", language, part, number)
            foreign = random.choice(FOREIGN[language].split())
            chosen = random.sample(sentences[foreign][half::2], random.randint(4, 15))
            yield Document(" ".join(chosen), language, part, "", "wrong language", foreign)
        yield from boilerplate(language, part, pages, count)


def take_turns(groups: Iterable[Sequence[Any]], count: int) -> list[Any]:
    """The first of each group, the second of each, and so on.

    >>> take_turns([["a", "b", "c"], ["A"]], 3)
    ['a', 'A', 'b']
    """
    groups = list(groups)
    longest = max(map(len, groups), default=0)
    return [group[place] for place in range(longest) for group in groups if place < len(group)][:count]


def boilerplate(language: str, part: str, pages: Sequence[Page], count: int) -> Iterator[Document]:
    """What stands around the main text of real pages; in Chinese, where these are few, made up as well.

    English pages of the two parts are of two collections, Chinese ones of different sites. None in Traditional Chinese.
    """
    half = int(part == UNTOUCHED)
    if language == "en":
        mine = [page for page in pages if page.lang == "en" and page.judged == bool(half)]
    elif language == "zh-Hans":
        mine = [page for page in pages if page.lang == "zh" and int(document_id(page.site)[-1], 16) % 2 == half]
    else:
        return
    real: list[Document] = []
    for page in mine:
        random = seeded("boilerplate", page.text)
        pieces = [text for text in leftover_lines(page.text, page.main, random) if long_enough(text)]
        random.shuffle(pieces)
        real += [Document(text, language, part, page.site, "boilerplate", "real") for text in pieces[:8]]
    real.sort(key=lambda document: document_id(document.text))
    real = real[: count if language == "en" else count // 2]
    yield from real
    if language == "zh-Hans":
        headings = [line for page in mine for line in page.text.split("\n") if 8 <= len(line) <= 30]
        for number in range(count - len(real)):
            text, kind = composed_boilerplate(headings, half, seeded("composed", part, number))
            yield Document(text, language, part, "", "boilerplate", kind)
