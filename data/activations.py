"""Harvest: run a model over a corpus and keep the residual stream of some blocks on disk.

1. Documents are cut into token windows in corpus order; windows fill shards of about equal size.
2. Within a shard windows are batched by length, one truncated forward pass gives all layers, and
   the rows are put back into document order.
3. The norm limit of each layer is a multiple of the median norm of the non-first tokens among the
   first 64 windows (all of them in the first shard); see `masking`.
4. Each finished shard is written aside and renamed, while the next one is computed; the manifest
   comes last. A run that was cut off keeps its finished shards, and its result is byte for byte
   that of a run in one go on the same machine and versions.

Memory: about two shards of float32 rows for each layer, plus one in the storage format.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from affectlens.data.addresses import Address
from affectlens.data.artifacts import (
    clear_staged,
    folder_lock,
    read_json,
    sha256_json,
    write_json,
)
from affectlens.data.config import HarvestConfig
from affectlens.data.corpus import (
    Corpus,
    OverlapReport,
    TokenizedCorpus,
    TokenWindow,
    check_overlap,
    windows,
)
from affectlens.data.errors import ArtifactError, ConfigError, MachineError
from affectlens.data.hooks import capture
from affectlens.data.manifest import MANIFEST, STORE_VERSION, write_manifest
from affectlens.data.masking import MaskRule, norm_limit
from affectlens.data.models import LanguageModel
from affectlens.data.progress import Progress, track
from affectlens.data.shards import (
    SHARD_VERSION,
    STORAGE,
    ShardInfo,
    TokenIndex,
    check_shard,
    write_shard,
)
from affectlens.data.store import ActivationStore
from affectlens.data.store_writer import hook_rows, shard_name

CALIBRATION_WINDOWS = 64
PLAN = "plan.json"
_VERSIONED = ("affectlens", "torch", "transformers", "tokenizers", "h5py", "numpy")
logger = logging.getLogger("affectlens")


def harvest(
    lm: LanguageModel,
    corpus: Corpus,
    config: HarvestConfig,
    out: str | Path,
    *,
    avoid: Iterable[str] = (),
    quiet: bool | None = None,
) -> ActivationStore:
    """Store the residual stream of `config.layers` for every token of a corpus.

    A finished store of the same model, text and settings is checked and returned as it is; an
    unfinished or damaged one is completed.

    Args:
        lm: the model.
        corpus: the text.
        config: layers, window length, storage.
        out: the store's folder.
        avoid: texts (the battery's) that may share no run of eight words with the corpus.
        quiet: no progress; None leaves it to the level of the logger "affectlens".

    Raises:
        ArtifactError: the folder holds a store of something else; the differing fields are named.
        ConfigError: windows longer than the context, or values too large for float16.
        CorpusError: a text to avoid occurs in the corpus.
        HookError: a layer outside the model.
        MachineError: the disk is full or too small, or the folder is in use.
    """
    out = Path(out)
    overlap = check_overlap(corpus, avoid)
    job = _plan_job(lm, corpus, config)
    with folder_lock(out):
        cleared = clear_staged(out)
        if cleared:
            logger.info("%s: removed %d unfinished files of an interrupted run", out, cleared)
        store = _finished_store(out, job)
        if store is not None:
            return store
        _claim(out, job)
        shards = _run(job, out, quiet=quiet)
        write_manifest(
            out,
            [d.id for d in corpus.documents[: job.text.n_documents]],
            shards,
            _provenance(job, corpus, overlap),
            n_prefix=job.text.n_prefix,
        )
    store = ActivationStore.open(out)
    for name in store.hook_names:
        kept = store.n_kept(name)
        logger.info("%s: %s of %s tokens kept", name, f"{kept:,}", f"{store.n_rows:,}")
    return store


def split_shards(text: Sequence[TokenWindow], tokens: int) -> list[tuple[TokenWindow, ...]]:
    """Cut windows, in order, into shards that end with the window that reaches `tokens`."""
    shards: list[tuple[TokenWindow, ...]] = []
    current: list[TokenWindow] = []
    count = 0
    for window in text:
        current.append(window)
        count += len(window.token_ids)
        if count >= tokens:
            shards.append(tuple(current))
            current, count = [], 0
    if current:
        shards.append(tuple(current))
    return shards


def length_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices of like length, longest first, at most `tokens` when padded (but at least one)."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@dataclass(frozen=True)
class _Job:
    """What one harvest has to do; `identity` says which store it makes."""

    lm: LanguageModel
    config: HarvestConfig
    names: tuple[str, ...]
    text: TokenizedCorpus
    shards: list[tuple[TokenWindow, ...]]
    identity: dict[str, Any]

    @property
    def key(self) -> str:
        return sha256_json(self.identity)


def _plan_job(lm: LanguageModel, corpus: Corpus, config: HarvestConfig) -> _Job:
    names = tuple(Address.parse(layer).check(lm.n_layers).name for layer in config.layers)
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"layers {list(config.layers)} must be distinct, and at least one")
    text = windows(corpus, lm, config.context_length, config.max_tokens)
    settings = config.model_dump(mode="json")
    identity = {
        "format_version": [STORE_VERSION, SHARD_VERSION],
        "model_fingerprint": lm.fingerprint,
        "model_dtype": str(lm.dtype).removeprefix("torch."),
        "tokenizer_sha256": lm.tokenizer_sha256,
        "corpus_sha256": corpus.sha256,
        **{f"config.{key}": value for key, value in settings.items()},
    }
    shards = split_shards(text.windows, config.tokens_per_shard)
    return _Job(lm, config, names, text, shards, identity)


def _finished_store(out: Path, job: _Job) -> ActivationStore | None:
    """The store if it is there, complete and of this job; a damaged one is opened for repair."""
    if not (out / MANIFEST).exists():
        return None
    manifest = read_json(out / MANIFEST)
    found = manifest.get("provenance", {}).get("identity") if isinstance(manifest, dict) else None
    _refuse_other(out, found, job.identity)
    try:
        return ActivationStore.open(out, verify=True)
    except ArtifactError as error:
        logger.warning("%s; the damaged parts are made again", error)
        (out / MANIFEST).unlink()
        return None


def _claim(out: Path, job: _Job) -> None:
    """Note in the folder which store is being made there, or check the note of an earlier run."""
    plan = {"identity": job.identity, "versions": _versions(job.lm)}
    if not (out / PLAN).exists():
        write_json(out / PLAN, plan)
        return
    found = read_json(out / PLAN)
    found = found if isinstance(found, dict) else {}
    _refuse_other(out, found.get("identity"), job.identity)
    _refuse_other(out, found.get("versions"), plan["versions"])


def _refuse_other(out: Path, found: Any, wanted: dict[str, Any]) -> None:
    if found == wanted:
        return
    found = found if isinstance(found, dict) else {}
    differing = [
        f"{key} (there {found.get(key)!r}, now {wanted.get(key)!r})"
        for key in sorted(set(found) | set(wanted))
        if found.get(key) != wanted.get(key)
    ]
    raise ArtifactError(
        f"{out} holds activations of something else: {'; '.join(differing)}. Choose another "
        "folder, or delete this one"
    )


def _run(job: _Job, out: Path, *, quiet: bool | None) -> list[ShardInfo]:
    """Make the missing shards; write each one while the next is computed."""
    infos: dict[int, ShardInfo] = {}
    for number, text in enumerate(job.shards):
        info = _resumed(out / shard_name(number), text, job)
        if info is not None:
            infos[number] = info
    missing = [number for number in range(len(job.shards)) if number not in infos]
    done = sum(info.rows for info in infos.values())
    if infos:
        logger.info("%s: %d of %d shards are there already", out, len(infos), len(job.shards))
    _check_space(out, job, job.text.n_tokens - done)
    rules = {name: infos[0].hooks[name].rule for name in job.names} if 0 in infos else {}
    pending: tuple[int, Future[ShardInfo]] | None = None
    with (
        track(job.text.n_tokens, "tokens", "harvest", start=done, quiet=quiet) as progress,
        ThreadPoolExecutor(1, thread_name_prefix="shard-writer") as writer,
    ):
        for number in missing:
            index, acts = _compute(job, job.shards[number], progress)
            rules = rules or _calibrate(acts, job.shards[number], job.config.outlier_factor)
            # One shard waits at most, so that memory stays bounded.
            if pending is not None:
                infos[pending[0]] = pending[1].result()
            path = out / shard_name(number)
            pending = number, writer.submit(_store_shard, path, index, acts, rules, job)
            del acts
        if pending is not None:
            infos[pending[0]] = pending[1].result()
    return [infos[number] for number in range(len(job.shards))]


def _resumed(path: Path, text: Sequence[TokenWindow], job: _Job) -> ShardInfo | None:
    if not path.exists():
        return None
    try:
        return check_shard(path, _token_index(text), list(job.names), job.key)
    except ArtifactError as error:
        logger.warning("%s; it is made again", error)
        return None


def _compute(
    job: _Job, text: Sequence[TokenWindow], progress: Progress
) -> tuple[TokenIndex, dict[str, Tensor]]:
    """Rows of one shard, float32 [n, d_model] for each hook, in document order."""
    lengths = [len(window.token_ids) for window in text]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    acts = {name: torch.empty(int(starts[-1]), job.lm.d_model) for name in job.names}
    for batch in length_batches(lengths, job.config.tokens_per_batch):
        captured = capture(job.lm, job.names, job.lm.pad([text[i].token_ids for i in batch]))
        for name, resid in captured.items():
            for row, i in enumerate(batch):
                acts[name][starts[i] : starts[i + 1]] = resid[row, : lengths[i]]
        progress.update(sum(lengths[i] for i in batch))
    return _token_index(text), acts


def _token_index(text: Sequence[TokenWindow]) -> TokenIndex:
    lengths = [len(window.token_ids) for window in text]
    doc = np.repeat(np.array([w.doc_index for w in text], dtype=np.int32), lengths)
    position = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
    token = np.concatenate([np.array(w.token_ids, dtype=np.int32) for w in text])
    return TokenIndex(doc, position, token)


def _calibrate(
    acts: dict[str, Tensor], text: Sequence[TokenWindow], factor: float
) -> dict[str, MaskRule]:
    """The mask rule of each hook, from the first windows of the first shard."""
    first = text[:CALIBRATION_WINDOWS]
    content = torch.from_numpy(_token_index(first).position > 0)
    return {
        name: MaskRule(norm_limit=norm_limit(rows[: len(content)][content].norm(dim=-1), factor))
        for name, rows in acts.items()
    }


def _store_shard(
    path: Path,
    index: TokenIndex,
    acts: dict[str, Tensor],
    rules: dict[str, MaskRule],
    job: _Job,
) -> ShardInfo:
    hooks = {}
    for name in job.names:
        # Taken out of the dictionary, so that a converted hook's float32 rows are freed at once.
        rows = acts.pop(name)
        hooks[name] = hook_rows(rows, index, rules[name], job.config.storage, name)
    return write_shard(path, index, hooks, job.key)


def _check_space(out: Path, job: _Job, n_rows: int) -> None:
    """Refuse at once what cannot fit, not after hours."""
    item = torch.finfo(STORAGE[job.config.storage]).bits // 8
    needed = n_rows * (len(job.names) * (job.lm.d_model * item + 1) + 12)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise MachineError(
            f"the activations of {n_rows:,} tokens need {needed / 1e9:,.1f} GB, but {out} has "
            f"{free / 1e9:,.1f} GB left; free some space, keep fewer layers, lower max_tokens, or "
            "set storage to bfloat16"
        )


def _provenance(job: _Job, corpus: Corpus, overlap: OverlapReport) -> dict[str, Any]:
    lm, text = job.lm, job.text
    # Paths are left out: they say where, not what.
    source = {key: value for key, value in lm.source.as_dict().items() if key != "path"}
    return {
        "identity": job.identity,
        "model": {
            "name": Path(lm.name).name,
            "fingerprint": lm.fingerprint,
            "n_layers": lm.n_layers,
            "d_model": lm.d_model,
            **source,
        },
        "tokenizer_sha256": lm.tokenizer_sha256,
        "corpus": {
            "name": corpus.name,
            "sha256": corpus.sha256,
            "n_documents": text.n_documents,
            "n_tokens": text.n_tokens,
            "n_windows": len(text.windows),
            "n_cut": text.n_cut,
            "origin": corpus.provenance,
        },
        "overlap": asdict(overlap),
        "config": job.config.model_dump(mode="json"),
        "calibration_windows": min(CALIBRATION_WINDOWS, len(job.shards[0])),
        "versions": _versions(lm),
    }


def _versions(lm: LanguageModel) -> dict[str, str]:
    return {name: version(name) for name in _VERSIONED} | {"device": lm.device.type}
