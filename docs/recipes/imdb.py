"""The guides' example: the sentiment of English film reviews, learned from 500, tested on 100, told honestly.

    python ../docs/recipes/imdb.py imdb.csv

The file (CSV, JSONL or Parquet) has `text` and `label`, neg or pos. Runs sentiment_zh.py with an English question, in
an empty folder. Prints accuracy and macro F1 beside those of baselines.py: a tiny base that has read 450 reviews and
nothing else stays at chance, where counting words does not. What guides show comes from models pretrained on billions
of words: name one as base.model in params.yaml, and say the commands again.
"""

import sys

from sentiment_zh import main

TASK = {"prompt": "{{ text }}\nOpinion: ", "answers": {}, "answer": "{{ answers[label] }}"}

if __name__ == "__main__":
    main(sys.argv[1], 500, 100, TASK, lang="en")
