"""Sample the default corpus from a causal language model, once and from a seed.

Draws distinct prompts from the prompt material, samples one response to each with the model's
chat template and writes the responses that pass the filters to ``default.jsonl.gz``, one
``{"id", "genre", "text"}`` object a line, with their provenance in ``default.json``.

Each finished batch is appended to ``default.partial`` next to the output, and a run that was cut
off goes on from there when the same command is given again; every batch has a generator of its
own, seeded from (seed, batch number), so an interruption does not change the result.
"""

import argparse
import gzip
import hashlib
import json
import platform
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = {
    "name": "SmolLM2-135M-Instruct",
    "licence": "Apache-2.0",
    "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gguf_sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}
LICENCE = "CC0-1.0: output of an Apache-2.0 model, sampled from prompts written for this project"
CORPORA = Path(__file__).resolve().parent.parent / "data" / "corpora"
REFUSALS = ("i'm sorry, but", "i am sorry, but", "as an ai", "i'm an ai", "i'm unable to")
MIN_TOKENS = 40
MIN_DISTINCT = 0.5


@dataclass(frozen=True)
class Sampling:
    """Settings of one sampling run; a partial file belongs to exactly one of them."""

    seed: int = 20250
    prompts: int = 3072
    batch_size: int = 96
    temperature: float = 0.85
    top_k: int = 200
    top_p: float = 0.95
    min_new_tokens: int = 48
    max_new_tokens: int = 240


@dataclass(frozen=True)
class Prompt:
    """A user prompt with its genre and its mood ("plain", "named/fear", "shown/joy", ...)."""

    genre: str
    mood: str
    text: str


def draw_prompt(spec: dict[str, Any], rng: np.random.Generator) -> Prompt:
    """Draw one prompt from the material; the same prompt may come up again."""

    def pick(items: Sequence[Any]) -> Any:
        return items[int(rng.integers(len(items)))]

    shares, genres = spec["shares"], spec["genres"]
    kind = str(rng.choice(list(shares), p=list(shares.values())))
    named = [name for name, entry in genres.items() if "forms" in entry]
    genre = pick({"plain": list(genres), "named": named, "shown": spec["shown_for"]}[kind])
    entry = genres[genre]
    topic = pick(spec["topics"][entry["topics"]])
    if kind == "plain":
        mood, parts = kind, [pick(entry["plain"]).format(topic=topic), pick(spec["plain_tones"])]
    else:
        family = pick(list(spec["situations"]))
        mood, form = f"{kind}/{family}", pick(entry["forms"])
        if kind == "named":
            other = pick([name for name in spec["feelings"] if name != family])
            feeling = pick(spec["feelings"][family][pick(["mild", "strong"])])
            second = pick(spec["feelings"][other][pick(["mild", "strong"])])
            # The frames need a noun phrase, and the topics of some genres are tasks.
            topic = pick(spec["topics"]["scene"]) if entry["topics"] == "task" else topic
            frame = pick(spec["feeling_frames"])
            parts = [frame.format(form=form, topic=topic, feeling=feeling, other=second)]
        else:
            frame, situation = pick(spec["situation_frames"]), pick(spec["situations"][family])
            parts = [frame.format(form=form, situation=situation), pick(spec["situation_hints"])]
    if genre in spec["extras_for"] and rng.random() < spec["extra_share"]:
        extra = pick(spec["extras"])
        parts.append(extra.format(name=pick(spec["names"]), place=pick(spec["places"])))
    return Prompt(genre, mood, " ".join(part for part in parts if part))


def build_prompts(spec: dict[str, Any], count: int, seed: int) -> list[Prompt]:
    """Draw ``count`` prompts with distinct texts."""
    rng = np.random.default_rng(seed)
    found: dict[str, Prompt] = {}
    for _ in range(50 * count):
        prompt = draw_prompt(spec, rng)
        found.setdefault(prompt.text, prompt)
        if len(found) == count:
            return list(found.values())
    raise ValueError(f"the prompt material gives only {len(found)} distinct prompts")


def make_batches(lengths: Sequence[int], size: int, seed: int) -> list[list[int]]:
    """Group prompts of like length, then shuffle the groups so that the first few are mixed."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    groups = [order[i : i + size].tolist() for i in range(0, len(order), size)]
    return [groups[i] for i in np.random.default_rng([seed, 1]).permutation(len(groups))]


def encode_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a chat with one user message, up to the start of the response."""
    chat = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


def pick_tokens(logits: torch.Tensor, opts: Sampling, generator: torch.Generator) -> torch.Tensor:
    """Sample one token a row by temperature, the top k and, within them, the top-p nucleus."""
    scaled = logits / opts.temperature
    values, ids = scaled.topk(opts.top_k, dim=-1)
    probs = (values - scaled.logsumexp(-1, keepdim=True)).exp()
    probs[probs.cumsum(-1) - probs >= opts.top_p] = 0.0
    return ids.gather(-1, torch.multinomial(probs, 1, generator=generator)).squeeze(-1)


@torch.inference_mode()
def sample_batch(
    model: Any, tokenizer: Any, rows: Sequence[list[int]], opts: Sampling, number: int
) -> list[str]:
    """Sample the stripped response text of each encoded prompt of batch ``number``."""
    generator = torch.Generator().manual_seed(opts.seed * 100_003 + number)
    width, eos = max(map(len, rows)), tokenizer.eos_token_id
    ids = torch.tensor([[eos] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    alive, cache, out = torch.arange(len(rows)), None, [[] for _ in rows]
    for step in range(opts.max_new_tokens):
        carried = {"attention_mask": mask, "position_ids": places, "past_key_values": cache}
        result = model(input_ids=ids, use_cache=True, logits_to_keep=1, **carried)
        cache, logits = result.past_key_values, result.logits[:, -1].float()
        if step < opts.min_new_tokens:
            logits[:, eos] = float("-inf")
        chosen = pick_tokens(logits, opts, generator)
        going = chosen != eos
        for row, token in zip(alive[going].tolist(), chosen[going].tolist(), strict=True):
            out[row].append(token)
        if not going.any():
            break
        if not going.all():  # drop the finished rows from everything that is carried on
            kept = going.nonzero().squeeze(-1)
            cache.batch_select_indices(kept)
            alive, chosen, mask, places = (t[kept] for t in (alive, chosen, mask, places))
        ids, places = chosen[:, None], places[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return [text.strip() for text in tokenizer.batch_decode(out, skip_special_tokens=True)]


def fault(text: str, tokens: int, seen: Container[str]) -> str | None:
    """Why a response is dropped, or None if it is kept."""
    if tokens < MIN_TOKENS:
        return "short" if text else "empty"
    if text.lower().replace("\u2019", "'").startswith(REFUSALS):
        return "refusal"
    words = text.lower().split()
    grams = list(zip(words, words[1:], words[2:], strict=False))
    if len(set(grams)) < MIN_DISTINCT * max(len(grams), 1):
        return "repetitive"
    return "duplicate" if text in seen else None


def read_partial(path: Path, header: dict[str, Any]) -> list[list[str]]:
    """Return the batches of an earlier run, after cutting off a line that was not finished."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    whole = text[: text.rfind("\n") + 1] or json.dumps(header) + "\n"
    path.write_text(whole, encoding="utf-8")
    first, *batches = map(json.loads, whole.splitlines())
    if first != header:
        raise SystemExit(f"{path.name} belongs to a run with other settings; remove it first")
    return batches


def main() -> None:
    """Run the sampling and write the corpus and its provenance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-dir", required=True, help="local folder of the model")
    parser.add_argument("--prompts", type=Path, default=CORPORA / "prompts.yaml")
    parser.add_argument("--output", type=Path, default=CORPORA / "default.jsonl.gz")
    parser.add_argument("--tokens", type=int, default=345_000, help="stop at this many kept")
    parser.add_argument("--seed", type=int, default=Sampling.seed)
    args = parser.parse_args()
    opts, raw = Sampling(seed=args.seed), args.prompts.read_bytes()
    settings = {**asdict(opts), "prompts_sha256": hashlib.sha256(raw).hexdigest()}
    stem = args.output.name.removesuffix(".jsonl.gz")
    partial = args.output.with_name(f"{stem}.partial")
    batches = read_partial(partial, settings)
    tokenizer = AutoTokenizer.from_pretrained(args.model_dir)
    model = AutoModelForCausalLM.from_pretrained(args.model_dir, dtype=torch.float32).eval()
    prompts = build_prompts(yaml.safe_load(raw), opts.prompts, opts.seed)
    rows = [encode_prompt(tokenizer, prompt.text) for prompt in prompts]
    kept: dict[str, Prompt] = {}  # by text
    drops: Counter[str] = Counter(empty=0, short=0, refusal=0, repetitive=0, duplicate=0)
    tokens = 0
    for number, batch in enumerate(make_batches([*map(len, rows)], opts.batch_size, opts.seed)):
        if number == len(batches):
            texts = sample_batch(model, tokenizer, [rows[i] for i in batch], opts, number)
            batches.append(texts)
            with partial.open("a", encoding="utf-8") as file:
                file.write(json.dumps(texts) + "\n")
        for index, text in zip(batch, batches[number], strict=True):
            size = len(tokenizer(text, add_special_tokens=False).input_ids)
            if reason := fault(text, size, kept):
                drops[reason] += 1
            else:
                kept[text], tokens = prompts[index], tokens + size
        print(f"batch {number}: {len(kept)} texts, {tokens} tokens, {dict(drops)}", flush=True)
        if tokens >= args.tokens:
            break
    else:
        raise SystemExit(f"all prompts are used up, but only {tokens} tokens were kept")
    data = b""
    for n, (text, prompt) in enumerate(kept.items(), start=1):
        item = {"id": f"d-{n:05d}", "genre": prompt.genre, "text": text}
        data += json.dumps(item, ensure_ascii=False).encode() + b"\n"
    args.output.write_bytes(gzip.compress(data, compresslevel=9, mtime=0))
    libraries = {module.__name__: module.__version__ for module in (torch, transformers, np)}
    provenance = {
        "licence": LICENCE,
        "model": MODEL,
        "sampling": {**settings, "token_target": args.tokens, "dtype": "float32"},
        "filters": {"min_tokens": MIN_TOKENS, "min_distinct_3grams": MIN_DISTINCT},
        "versions": {"python": platform.python_version(), **libraries},
        "documents": len(kept),
        "tokens": tokens,
        "dropped": drops,
        "moods": dict(sorted(Counter(prompt.mood for prompt in kept.values()).items())),
        "text_sha256": hashlib.sha256(data).hexdigest(),
    }
    args.output.with_name(f"{stem}.json").write_text(json.dumps(provenance, indent=2) + "\n")
    partial.unlink()


if __name__ == "__main__":
    main()
