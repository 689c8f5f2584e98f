"""Every reason a document can be dropped for: `<stage>.<rule>[.<detail>]`, and what it says to a reader.

Rules of the filter are built from its profile (`filter.<signal>.<min|max>`) and explained there.
"""

REASONS: dict[str, str] = {
    "scrape.duplicate_id": "an earlier source or row already brought a document with this id",
    "scrape.error.fetch": "the page could not be fetched: the detail says why",
    "scrape.error.status": "the server answered with an error status",
    "scrape.error.soft": "the page matches the source's soft_error: an error that the server calls a success",
    "scrape.error.redirect": "the redirects go in circles, or to an address that must not be asked",
    "scrape.robots": "robots.txt of the site forbids this page",
    "scrape.too_large": "the body is larger than the source's max_bytes",
    "scrape.content_type": "the body is not HTML, XHTML or plain text",
    "scrape.error.url": "a line of the list of addresses is no web address",
    "scrape.error.sitemap": "the sitemap cannot be read, or not in whole, or names one of another host",
    "scrape.trap": "links that look like endlessly many: the detail counts them and says why",
    "scrape.max_pages": "what was left when the crawl reached max_pages: the detail counts it",
    "scrape.error.json": "the line is not a JSON object",
    "scrape.error.encoding": "the line or field is not valid UTF-8",
    "scrape.error.text": "the text field is missing or not a string",
    "scrape.error.messages": "a dialogue that cannot be used: the detail says which message, and why",
    "scrape.error.csv": "the row has not as many fields as the header, or its quotes do not close",
    "scrape.error.archive": "a file or record that is broken or clipped: the detail says where and how",
    "scrape.annotated": "people who annotated it in Label Studio chose drop",
    "scrape.forgotten": "forget in params.yaml names it, its URL, or a pattern that its URL matches",
    "clean.empty": "nothing but white space was left",
    "clean.empty.extractor": "the extractor found no main text in a page that has some",
    "clean.error.decode": "the bytes are in no encoding we could tell",
    "clean.not_html": "the body is no text, whatever its content type says: an image, an archive, a PDF",
    "clean.error.parse": "the HTML parser failed on this page",
    "clean.error.timeout": "cleaning took longer than clean.timeout_s",
    "clean.error.memory": "the parser wanted more memory than a page may have",
    "clean.error.crash": "the parser brought its process down twice: the detail says how",
    "clean.too_large": "the body is larger than any parser takes in its stride",
    "clean.too_deep": "tags are nested deeper than any real page's",
    "clean.long_tag": "a single tag is longer, or has more attributes, than any parser takes in its stride",
    "clean.language": "the language is not among clean.languages",
    "clean.flagged": "more of its words are flagged words than clean.max_flagged allows",
    "clean.pii": "personal data was found and clean.pii is drop",
    "dedup.exact": "the normalised text equals that of a kept document",
    "dedup.near": "the exact Jaccard similarity to a kept document reaches dedup.threshold",
    "split.contaminated": "it holds 13 words in a row of a test set",
    "split.bridge": "it resembles earlier documents on two sides, which would meet in it",
    "augment.unchanged": "the generated text equals its parent",
    "augment.numbers": "numbers, URLs or placeholders of the parent were lost, changed or added",
    "augment.entities": "names of the parent were lost",
    "augment.length": "the length differs too much from the parent's",
    "augment.language": "the generated text is in another language",
    "augment.repetition": "it repeats itself more than its parent",
    "augment.copied": "too many of its sentences are the parent's: little was reworded",
    "augment.near": "chrF to the parent is above the band: no variation",
    "augment.far": "chrF to the parent is below the band: the meaning may be lost",
    "augment.perplexity": "a language model finds it far more surprising than its parent",
    "augment.answer": "the endpoint answered with no list of questions and answers: the text is what it said",
    "augment.refused": "the endpoint refused the request: the text is what it said",
    "augment.invented": "numbers, addresses or names of the answer are neither in the document nor in the question",
    "augment.empty": "question or answer is too short to say anything, or they are the same",
    "augment.corrected": "people decided on it in Label Studio: the corpus has their version of it, or none",
    "augment.held_out": "it holds 13 words in a row of validation, test or a test set that its parent has not",
    "augment.duplicate": "it equals a document of the corpus, or holds much of one that is not its parent",
    "shard.balance": "shard.weights, buckets and balance take only a part of the documents that are like it",
    "pack.no_answer": "nothing in it is to be learned: a dialogue in which the assistant answers nobody, or no text",
    "pack.template": "the chat template cannot render the dialogue turn by turn, or a prompt template the document",
    "pack.error": "a row that is no document: no JSON, no UTF-8, or neither text nor a dialogue",
    "pack.mixture": "pack.mixture takes only a part of its language's documents",
}


def explain(reason: str) -> str:
    """What a reason means, for the report; the rule itself where it is one of the filter's.

    >>> explain("dedup.exact")
    'the normalised text equals that of a kept document'
    >>> explain("filter.mattr.min")
    'mattr is below the bound of the profile'
    """
    if reason in REASONS:
        return REASONS[reason]
    if reason.startswith("filter.") and reason.endswith((".min", ".max")):
        signal, side = reason.removeprefix("filter.").rsplit(".", 1)
        return f"{signal} is {'below' if side == 'min' else 'above'} the bound of the profile"
    parent = reason.rsplit(".", 1)[0]
    return REASONS.get(parent, reason)
