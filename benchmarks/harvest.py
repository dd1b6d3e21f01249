"""Throughput of `harvest` against the bare truncated forward pass over the same batches.

The peer is what the work cannot do without: the model's own forward pass, stopped after the wanted
block by one plain PyTorch hook, nothing kept. Ours is the whole stage: tokenising, capture, masks,
HDF5, hashes, fsync. Both alternate in one run, and the best time of each counts, so that other work
on the machine disturbs the comparison little. The model's fingerprint is computed beforehand.

    python benchmarks/harvest.py [--json] [--model NAME] [--corpus NAME] [--layer N] [--tokens N]
"""

import argparse
import contextlib
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The neighbour statistics.py bears the name of a standard module that other libraries import, so
# the folder is looked through last.
HERE = Path(__file__).resolve().parent
sys.path[:] = [*(p for p in sys.path if Path(p or ".").resolve() != HERE), str(HERE)]

import torch  # noqa: E402
from lines import Line, multiple, show  # noqa: E402

from affectlens.data.activations import harvest, length_batches, split_shards  # noqa: E402
from affectlens.data.config import HarvestConfig  # noqa: E402
from affectlens.data.corpus import Corpus, load_corpus, windows  # noqa: E402
from affectlens.data.models import Batch, LanguageModel, load_model  # noqa: E402


class Stop(Exception):  # noqa: N818 - it is no error
    pass


def make_batches(lm: LanguageModel, corpus: Corpus, config: HarvestConfig) -> list[Batch]:
    """The batches that harvest runs, made beforehand."""
    text = windows(corpus, lm, config.context_length, config.max_tokens)
    batches = []
    for shard in split_shards(text.windows, config.tokens_per_shard):
        lengths = [len(window.token_ids) for window in shard]
        batches += [
            lm.pad([shard[i].token_ids for i in batch])
            for batch in length_batches(lengths, config.tokens_per_batch)
        ]
    return batches


def bare_forward(lm: LanguageModel, layer: int, batches: list[Batch]) -> None:
    def stop(*_: Any) -> None:
        raise Stop

    handle = lm.blocks[layer].register_forward_hook(stop)
    try:
        with torch.inference_mode():
            for batch in batches:
                with contextlib.suppress(Stop):
                    lm.model(
                        input_ids=batch.input_ids,
                        attention_mask=batch.attention_mask.long(),
                        use_cache=False,
                    )
    finally:
        handle.remove()


def seconds(task: Callable[[], object]) -> float:
    begin = time.perf_counter()
    task()
    return time.perf_counter() - begin


def compare(lm: LanguageModel, corpus: Corpus, config: HarvestConfig, repeats: int) -> Line:
    """Best throughput of both in tokens per second."""
    batches = make_batches(lm, corpus, config)
    n_tokens = int(sum(int(batch.attention_mask.sum()) for batch in batches))
    layer = max(config.layers)
    _ = lm.fingerprint, lm.tokenizer_sha256
    bare_forward(lm, layer, batches[:1])
    ours, peer = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "acts"
            ours.append(seconds(lambda out=out: harvest(lm, corpus, config, out, quiet=True)))  # type: ignore[misc]
        peer.append(seconds(lambda: bare_forward(lm, layer, batches)))
    name = f"harvest of layer {layer} against the bare forward pass ({lm.name})"
    return multiple(name, n_tokens / min(ours), n_tokens / min(peer), "tokens/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--corpus", default="default")
    parser.add_argument("--layer", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    logging.getLogger("affectlens").setLevel(logging.ERROR)
    lm = load_model(options.model)
    config = HarvestConfig(
        layers=(options.layer,),
        max_tokens=options.tokens,
        tokens_per_shard=max(64, options.tokens // 2),
    )
    result = compare(lm, load_corpus(options.corpus), config, options.repeats)
    show(result, as_json=options.json)


if __name__ == "__main__":
    main()
