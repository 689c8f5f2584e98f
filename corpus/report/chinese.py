"""What the page says in Chinese beside the English: sentences in two languages, and the reasons."""

from __future__ import annotations

from typing import NamedTuple

from corpus.reasons import REASONS


class Said(NamedTuple):
    """A sentence in English and in Simplified Chinese; the page shows the one that its reader chose."""

    en: str
    zh: str


EXPLAINED = {
    "scrape.duplicate_id": "更早的来源或行已带来同一 id 的文档",
    "scrape.error.fetch": "页面无法获取，详情中有原因",
    "scrape.error.status": "服务器返回错误状态码",
    "scrape.error.soft": "页面符合来源的 soft_error：服务器说成功，其实是错误页",
    "scrape.error.redirect": "重定向成环，或指向不允许访问的地址",
    "scrape.robots": "站点的 robots.txt 禁止抓取此页",
    "scrape.too_large": "正文超过来源的 max_bytes",
    "scrape.content_type": "正文不是 HTML、XHTML 或纯文本",
    "scrape.error.url": "地址列表中的一行不是网址",
    "scrape.error.sitemap": "站点地图读不出或读不全，或列出了别的主机",
    "scrape.trap": "疑似无穷无尽的链接，详情中有数目和原因",
    "scrape.max_pages": "抓取达到 max_pages 时剩下的，详情中有数目",
    "scrape.error.json": "该行不是 JSON 对象",
    "scrape.error.encoding": "该行或字段不是合法的 UTF-8",
    "scrape.error.text": "文本字段缺失或不是字符串",
    "scrape.error.messages": "对话无法使用，详情说明是哪条消息及原因",
    "scrape.error.csv": "字段数与表头不符，或引号没有闭合",
    "scrape.error.archive": "文件或记录损坏或被截断，详情说明位置和情形",
    "scrape.annotated": "标注者在 Label Studio 中选择了丢弃",
    "scrape.forgotten": "params.yaml 的 forget 点名了它、它的网址或与之匹配的模式",
    "clean.empty": "清洗后只剩空白",
    "clean.empty.extractor": "页面有文字，但提取器没有找到正文",
    "clean.error.decode": "无法判断字节的编码",
    "clean.not_html": "正文不是文本：图片、压缩包或 PDF",
    "clean.error.parse": "HTML 解析失败",
    "clean.error.timeout": "清洗时间超过 clean.timeout_s",
    "clean.error.memory": "解析所需内存超过单页上限",
    "clean.error.crash": "解析器两次使进程崩溃，详情中有情形",
    "clean.too_large": "正文大到解析器难以承受",
    "clean.too_deep": "标签嵌套之深为真实页面所未见",
    "clean.long_tag": "单个标签过长或属性过多",
    "clean.language": "语言不在 clean.languages 之列",
    "clean.flagged": "敏感词比例超过 clean.max_flagged",
    "clean.pii": "发现个人信息，而 clean.pii 为 drop",
    "dedup.exact": "规范化后的文本与某篇保留的文档相同",
    "dedup.near": "与某篇保留文档的精确 Jaccard 相似度达到 dedup.threshold",
    "split.contaminated": "含有测试集中连续的 13 个词",
    "split.bridge": "与分属两边的较早文档相似，会把两边连在一起",
    "augment.unchanged": "生成的文本与原文相同",
    "augment.numbers": "原文的数字、网址或占位符丢失、改变或新增",
    "augment.entities": "原文的名称丢失",
    "augment.length": "长度与原文相差过大",
    "augment.language": "生成的文本是另一种语言",
    "augment.repetition": "比原文更多重复",
    "augment.copied": "照抄原文的句子太多，改写太少",
    "augment.near": "与原文的 chrF 高于范围：没有变化",
    "augment.far": "与原文的 chrF 低于范围：意思可能已丢失",
    "augment.perplexity": "语言模型认为它远比原文反常",
    "augment.answer": "接口没有返回问答列表，文本是它的原话",
    "augment.refused": "接口拒绝了请求，文本是它的原话",
    "augment.invented": "答案中的数字、地址或名称在文档和问题中都没有",
    "augment.empty": "问题或答案过短，或两者相同",
    "augment.corrected": "人已在 Label Studio 中裁定：语料采用人的版本，或不采用",
    "augment.held_out": "含有验证集、测试集中连续的 13 个词，而原文没有",
    "augment.duplicate": "与语料中某篇文档相同，或大量包含非其原文的文档",
    "shard.balance": "shard.weights、buckets 与 balance 只取同类文档的一部分",
    "pack.no_answer": "没有可学的内容：对话中助手未作回答，或没有文本",
    "pack.template": "对话模板无法逐轮渲染此对话，或提示模板无法渲染此文档",
    "pack.error": "此行不是文档：不是 JSON、不是 UTF-8，或既无文本也无对话",
    "pack.mixture": "pack.mixture 只取该语言文档的一部分",
}


def explain_in_chinese(reason: str) -> str:
    """As `corpus.reasons.explain`.

    >>> explain_in_chinese("filter.mattr.min")
    'mattr 低于所用阈值的下限'
    """
    if reason in EXPLAINED:
        return EXPLAINED[reason]
    if reason.startswith("filter.") and reason.endswith((".min", ".max")):
        signal, side = reason.removeprefix("filter.").rsplit(".", 1)
        return f"{signal} {'低于所用阈值的下限' if side == 'min' else '高于所用阈值的上限'}"
    return EXPLAINED.get(reason.rsplit(".", 1)[0], reason)


def untranslated() -> set[str]:
    """Reasons that have no Chinese yet."""
    return REASONS.keys() - EXPLAINED.keys()
