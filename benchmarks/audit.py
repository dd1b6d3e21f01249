"""The lexical audit of 10,000 pairs, beside one scikit-learn TF-IDF pipeline over the same folds.

The peer fits `TfidfVectorizer` + `LogisticRegression` (liblinear) on words alone, with pairs and
with clusters left out: two of the 24 rows that the audit gives, without intervals.

    python benchmarks/audit.py [--pairs 10000] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np

from affectlens.data.stimuli import Battery, Stimulus, load_battery, make_battery
from affectlens.data.taxonomy import EMOTIONS
from affectlens.features.lexical import audit

N_WORDS, N_CLUSTERS = 60, 240


def made(n_pairs: int, seed: int = 0) -> Battery:
    """Pairs of random texts from the words of the embedded battery; a third of words shared."""
    words = sorted({w for text in load_battery().texts for w in text.split()})
    generator = np.random.default_rng(seed)
    items = []
    for number in range(n_pairs):
        shared = list(generator.choice(words, N_WORDS // 3))
        emotion = EMOTIONS[number % len(EMOTIONS)]
        domain = str(number % N_CLUSTERS)
        for kind, split in (("V", "clinical"), ("N", "neutral")):
            text = " ".join([*shared, *generator.choice(words, N_WORDS - len(shared))])
            twin = f"N{number}" if kind == "V" else None
            items.append(
                Stimulus(f"{kind}{number}", emotion, "", domain, "", twin, N_WORDS, text, split)  # type: ignore[arg-type]
            )
    return make_battery(f"made-{n_pairs}", items, "benchmark")


def peer(battery: Battery) -> list[float]:
    """Paired accuracy of a plain pipeline with pairs and with clusters left out."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline

    texts = np.array([i.text for p in battery.pairs for i in (p.clinical, p.neutral)])
    labels = np.tile([1, 0], len(battery.pairs))
    found = []
    groupings = [[p.id for p in battery.pairs], [p.cluster for p in battery.pairs]]
    for groups in (np.repeat(g, 2) for g in groupings):
        scores = np.zeros(len(texts))
        for train, test in GroupKFold(5).split(texts, labels, groups):
            model = make_pipeline(
                TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10, solver="liblinear")
            )
            model.fit(texts[train], labels[train])
            scores[test] = model.decision_function(texts[test])
        found.append(float(np.mean(scores[::2] > scores[1::2])))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line for a person, or one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    battery = made(options.pairs)
    start = time.perf_counter()
    card = audit(battery)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    peer(battery)
    theirs = time.perf_counter() - start
    rows = len(card.controls)
    line = {
        "name": f"audit of {options.pairs} pairs, {rows} rows with intervals; peer: 2 rows",
        "ours": round(ours, 2),
        "peer": round(theirs, 2),
        "ratio": round(theirs / 2 / (ours / rows), 2),
        "unit": "s (ratio: speed a row)",
    }
    print(json.dumps(line) if options.json else line)


if __name__ == "__main__":
    main()
