"""What a text classifier has to beat: always saying the most frequent label, and naive Bayes on counted words.

    python docs/recipes/baselines.py train.jsonl test.jsonl [char]

Both files have `text` and `label` a line. Prints accuracy and macro F1 of each on the test rows. Counts words and pairs
of words, or with `char` characters and pairs of characters, as Chinese wants it.
"""

import sys

import polars as pl
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import accuracy_score, f1_score
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline


def main(train: str, test: str, analyzer: str = "word") -> None:
    learn, score = pl.read_ndjson(train), pl.read_ndjson(test)
    for name, model in {"most frequent label": DummyClassifier(), "naive Bayes": MultinomialNB()}.items():
        counts = CountVectorizer(analyzer=analyzer, ngram_range=(1, 2))
        said = make_pipeline(counts, model).fit(learn["text"], learn["label"]).predict(score["text"])
        accuracy, macro_f1 = accuracy_score(score["label"], said), f1_score(score["label"], said, average="macro")
        print(f"{name}: accuracy {accuracy:.3f}, macro F1 {macro_f1:.3f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
