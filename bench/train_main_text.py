"""Train the block classifier of `corpus/clean/main_text.py` and write its weights.

    python bench/train_main_text.py --data WEB_PAGES [--cross-validate] [--write]

A block's target is the share of its text that extractors find, each with its weight on a page by how well it does on
the page's pieces known to be main text or not; those pieces then overrule it. Only `trafilatura_multi` is trained on.
`--cross-validate` scores its pages by networks that have seen no page of their hosts, and all others' by one trained on
all of it; `aeb_en` and `gne_zh` are for that alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from clean import Page, load_pages, score

from corpus.clean.blocks import blocks_of
from corpus.clean.extract import auto_text, text_by
from corpus.clean.main_text import WEIGHTS, WORDS, block_features, ready
from corpus.clean.markup import parse

Floats = npt.NDArray[np.float64]
TRAINED_ON = "trafilatura_multi"
TEACHERS = {"trafilatura": 0.3, "precise": 0.5, "readability": 0.2}  # and their weights where all do equally well
SHARPNESS = 5.0  # of the weights' dependence on the F1 of a page's pieces
PIECE_WEIGHT = 3.0  # of a block that holds a known piece
HIDDEN, LAYERS, DROPOUT = 16, 4, 0.15
EPOCHS, PAGES_A_STEP, RATE, DECAY = 20, 8, 4e-3, 0.02
GAP = 2 ** (LAYERS - 1)  # rows between pages, as far as the last layer sees
NETWORKS, FOLDS, DIGITS = 3, 3, 3

_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]+")


class Example(NamedTuple):
    """A page as the network sees it."""

    page: Page
    features: npt.NDArray[np.float32]
    target: Floats
    weight: Floats  # of its blocks, of a sum near 1


# ---- targets ---------------------------------------------------------------------------------------------------------


def tokens(text: str) -> list[str]:
    """Words, and Chinese, Japanese and Korean characters, in lower case."""
    return _TOKEN.findall(text.lower())


def shares(blocks: Sequence[str], text: str) -> Floats:
    """The share of each block's runs of three tokens that a text has; for shorter blocks whether a line is alike.

    >>> shares(["a b c d", "x", "y"], "0 a b c\\nx")
    array([0.5, 1. , 0. ])
    """
    runs = set(_runs(tokens(text)))
    ends = {
        end for line in map(tokens, text.split("\n")) for n in (1, 2) for end in (tuple(line[:n]), tuple(line[-n:]))
    }
    found = []
    for own in map(tokens, blocks):
        if len(own) < 3:
            found.append(float(tuple(own) in ends and own != []))
        else:
            found.append(float(np.mean([run in runs for run in _runs(own)])))
    return np.array(found)


def _runs(own: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip(own, own[1:], own[2:], strict=False))


def known(blocks: Sequence[str], page: Page) -> Floats:
    """1 for blocks with a piece of the main text, 0 for those with a piece that is none of it, else not a number.

    A piece that occurs in many blocks tells of none.
    """
    flat = [" ".join(block.split()) for block in blocks]
    said = np.full(len(blocks), np.nan)
    for pieces, value, most in ((page.included, 1.0, 2), (page.excluded, 0.0, 6)):
        for piece in filter(None, (" ".join(piece.split()) for piece in pieces)):
            holders = [n for n, text in enumerate(flat) if piece in text or (len(text) > 25 and text in piece)]
            if len(holders) <= most:
                for n in holders:
                    said[n] = value if np.isnan(said[n]) or said[n] == value else np.nan
    return said


def teach(page: Page) -> dict[str, str]:
    """What each teacher finds."""
    import trafilatura

    def attempt(work: Callable[[], str | None]) -> str:
        try:
            return work() or ""
        except Exception as error:
            print(f"{page.key}: {type(error).__name__}")
            return ""

    return {
        "trafilatura": attempt(lambda: trafilatura.extract(page.html, include_comments=False)),
        "precise": attempt(lambda: trafilatura.extract(page.html, include_comments=False, favor_precision=True)),
        "readability": attempt(lambda: text_by("readability", page.html, "text")),
    }


def example(page: Page, taught: dict[str, str]) -> Example:
    """A page's features, targets and weights."""
    markup = parse(page.html)
    blocks = blocks_of(markup)
    features, counts = block_features(markup, blocks)
    trust = {name: prior * np.exp(SHARPNESS * _piece_f1(page, taught[name])) for name, prior in TEACHERS.items()}
    target = sum(trust[name] * shares(blocks.text, taught[name]) for name in TEACHERS) / sum(trust.values())
    said = known(blocks.text, page)
    weight = np.sqrt(counts[:, WORDS] + 1)
    weight = weight / weight.sum() * np.where(np.isnan(said), 1, PIECE_WEIGHT)
    return Example(page, features, np.where(np.isnan(said), target, said), weight)


def _piece_f1(page: Page, text: str) -> float:
    flat = " ".join(text.split())
    right = sum(" ".join(piece.split()) in flat for piece in page.included)
    wrong = sum(" ".join(piece.split()) in flat for piece in page.excluded)
    return 2 * right / max(right + wrong + len(page.included), 1)


# ---- training --------------------------------------------------------------------------------------------------------


class Network(torch.nn.Module):
    """As `logits` in corpus/clean/main_text.py computes it, on pages one below the other with gaps between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = torch.nn.Linear(width, HIDDEN)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(3 * HIDDEN, HIDDEN) for _ in range(LAYERS)])
        self.page = torch.nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.output = torch.nn.Linear(HIDDEN, 1)
        self.dropout = torch.nn.Dropout(DROPOUT)

    def forward(self, values: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        """Log odds of each row; `number` is the page that a row is of, -1 in the gaps."""
        real = (number >= 0)[:, None]
        pages = int(number.max()) + 1
        hidden = torch.relu(self.input(self.dropout(values))) * real
        for n, layer in enumerate(self.layers):
            step = 2**n
            padded = torch.nn.functional.pad(hidden, (0, 0, step, step))
            seen = torch.cat([padded[: len(hidden)], hidden, padded[2 * step :]], dim=1)
            hidden = (hidden + self.dropout(torch.relu(layer(seen)))) * real
            if n == 1:
                own = number.clamp(min=0)
                sums = torch.zeros(pages, HIDDEN).index_add(0, own, hidden)
                means = sums / torch.zeros(pages).index_add(0, own, real[:, 0].float())[:, None]
                hidden = (hidden + self.page(means)[own]) * real
        return self.output(hidden)[:, 0]


def train(examples: Sequence[Example], seed: int) -> dict[str, Any]:
    """The weights of one network as lists, rounded."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    features = np.concatenate([one.features for one in examples]).astype(np.float64)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-3
    rows = [_padded(np.clip((one.features - mean) / deviation, -5, 5)) for one in examples]
    targets = [_padded(one.target[:, None])[:, 0] for one in examples]
    weights = [_padded(one.weight[:, None])[:, 0] for one in examples]
    network = Network(features.shape[1])
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    steps = -(-len(examples) // PAGES_A_STEP)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=EPOCHS * steps)
    for _ in range(EPOCHS):
        order = generator.permutation(len(examples))
        for chosen in (order[start : start + PAGES_A_STEP] for start in range(0, len(order), PAGES_A_STEP)):
            number = torch.cat([_numbers(n, len(rows[one])) for n, one in enumerate(chosen)])
            said = network(torch.cat([rows[one] for one in chosen]), number)
            wanted, weight = (torch.cat([column[one] for one in chosen]) for column in (targets, weights))
            losses = torch.nn.functional.binary_cross_entropy_with_logits(said, wanted, reduction="none")
            loss = (losses * weight).sum() / len(chosen)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return {
        "mean": np.round(mean, DIGITS + 1).tolist(),
        "deviation": np.round(deviation, DIGITS + 1).tolist(),
        "input": _rounded(network.input.weight.T),
        "input_bias": _rounded(network.input.bias),
        "convolutions": [_rounded(layer.weight.T) for layer in network.layers],
        "biases": [_rounded(layer.bias) for layer in network.layers],
        "page": _rounded(network.page.weight.T),
        "output": _rounded(network.output.weight[0]),
        "output_bias": _rounded(network.output.bias[0]),
    }


def _padded(rows: Floats) -> torch.Tensor:
    return torch.tensor(np.pad(rows, ((0, GAP), (0, 0))), dtype=torch.float32)


def _numbers(page: int, rows: int) -> torch.Tensor:
    numbers = torch.full((rows,), page)
    numbers[rows - GAP :] = -1
    return numbers


def _rounded(tensor: torch.Tensor) -> Any:
    return np.round(tensor.detach().double().numpy(), DIGITS).tolist()


def ensemble(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Networks that differ in their seed."""
    return [train(examples, seed) for seed in range(NETWORKS)]


# ---- evaluation ------------------------------------------------------------------------------------------------------


def fold_of(host: str) -> int:
    """Which part of the cross-validation a host is in."""
    return int(hashlib.sha256(host.encode()).hexdigest(), 16) % FOLDS


def find(page: Page, networks: Sequence[dict[str, Any]]) -> str:
    """The text of a page by `auto` with other networks than those it has."""
    markup = parse(page.html)
    blocks = blocks_of(markup)
    return auto_text(page.html, markup, blocks, "text", list(map(ready, networks)))[0] if blocks.text else ""


def cross_validate(taught: Sequence[Example], others: Sequence[Page]) -> dict[str, str]:
    """The text of each page by its key: of those taught by networks that know no page of its host."""
    networks = ensemble(taught)
    found = {page.key: find(page, networks) for page in others}
    for fold in range(FOLDS):
        networks = ensemble([one for one in taught if fold_of(one.page.host) != fold])
        found |= {one.page.key: find(one.page, networks) for one in taught if fold_of(one.page.host) == fold}
    return found


def main() -> None:
    """Read, teach, train, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    torch.set_num_threads(1)  # the matrices are small
    folder = Path(os.environ.get("CORPUSMILL_TEST_DATA", ".")) / "web_pages"
    parser.add_argument("--data", type=Path, default=folder)
    parser.add_argument("--cache", type=Path, help="a JSON file that keeps what the teachers found")
    parser.add_argument("--cross-validate", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"the weights into {WEIGHTS.name}")
    options = parser.parse_args()
    pages = [page for page in load_pages(options.data) if blocks_of(parse(page.html)).text]
    taught = json.loads(options.cache.read_text()) if options.cache and options.cache.exists() else {}
    taught = {page.key: taught.get(page.key) or teach(page) for page in pages if page.collection == TRAINED_ON}
    if options.cache:
        options.cache.write_text(json.dumps(taught))
    own = [example(page, taught[page.key]) for page in pages if page.collection == TRAINED_ON]
    if options.cross_validate:
        found = cross_validate(own, [page for page in pages if page.collection != TRAINED_ON])
        for collection in dict.fromkeys(page.collection for page in pages):
            here = [page for page in pages if page.collection == collection]
            result = score(collection, here, [found[page.key] for page in here])
            print(f"{collection}: F1 {result.f1:.4f}, precision {result.precision:.4f}, recall {result.recall:.4f}")
    if options.write:
        WEIGHTS.write_text(json.dumps({"networks": ensemble(own)}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
