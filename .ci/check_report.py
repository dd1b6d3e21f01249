"""Checks the contents of a finished run: every part is there, offline, and not a placeholder."""

import argparse
import json
import re
import sys
from pathlib import Path

import pandas as pd
import sae_lens
from safetensors import safe_open

PARTS = (
    "config.yaml",
    "run.json",
    "log.jsonl",
    "activations/manifest.json",
    "sae/cfg.json",
    "sae/sae_weights.safetensors",
    "sae/metrics.json",
    "search/features.parquet",
    "search/features.csv",
    "search/encoded.h5",
    "search/reads.parquet",
    "search/controls.parquet",
    "search/strict.parquet",
    "search/baselines.parquet",
    "validity/tests.parquet",
    "validity/matrix.parquet",
    "naming/names.jsonl",
    "effects/effects.parquet",
    "effects/verdicts.parquet",
    "effects/mediation.parquet",
    "effects/matrix.parquet",
    "effects/damage.parquet",
    "effects/generations.jsonl",
    "search/screen.parquet",
    "steering/texts.parquet",
    "steering/ranking.parquet",
    "steering/study.json",
    "report.html",
)
WORDS = (
    "FVU",
    "random features",
    "Words alone",
    "neutral twin",
    "Holm",
    "SHA-256",
    "Is it the words?",
    "What simpler methods reach",
    "Where the texts are read",
    "best single feature",
    "How sure:",
    "Controlled for:",
    "How to read a page",
    "How to cite",
)
MEGABYTES = 5
"""The most that a report may take."""
EDITED = ("chosen", "splice", "random", "random_direction", "diff_of_means", "dense_probe")
ARMS = {*EDITED, "no_edit", "shuffled_labels", "neurons", "prompt", "prompt_neutral"}
ABSENT = ("controls", "validity", "baselines", "name")
"""Stages of every run, by the command that a section names where its stage was not run."""


def check(run: Path, *, reused: bool) -> list[str]:
    """Everything that is wrong with the run; empty if nothing is."""
    wrong = [f"missing {part}" for part in PARTS if not (run / part).is_file()]
    if wrong:
        return wrong
    page = (run / "report.html").read_text(encoding="utf-8")
    wrong += [f"the report does not say {word!r}" for word in WORDS if word not in page]
    wrong += [f"{name} was not run" for name in ABSENT if f"affectlens {name} RUN" in page]
    if len(page.encode()) > MEGABYTES * 1_000_000:
        wrong.append(f"the report takes {len(page.encode()):,} bytes")
    if re.search(r"""(?:src|href)=["']?https?:""", page):
        wrong.append("the report refers to the network")
    if "Content-Security-Policy" not in page:
        wrong.append("the report has no content security policy")
    sae = sae_lens.SAE.load_from_disk(str(run / "sae"))
    with safe_open(str(run / "sae/sae_weights.safetensors"), "pt") as weights:
        shape = tuple(weights.get_slice("W_dec").get_shape())
    if shape != (sae.cfg.d_sae, sae.cfg.d_in):
        wrong.append(f"W_dec is {shape}")
    quality = json.loads((run / "sae/metrics.json").read_text(encoding="utf-8"))
    if quality["fvu"] > 0.25 or quality["ce_recovered_mean"] < 0.90 or quality["dead_share"] > 0.05:
        wrong.append(f"the SAE is worse than promised: {quality}")
    effects = pd.read_parquet(run / "effects/effects.parquet")
    missing = ARMS - set(effects["arm"])
    if missing:
        wrong.append(f"arms are missing from the effects: {', '.join(sorted(missing))}")
    if (effects.loc[effects["arm"].isin(EDITED), "hook_calls"] == 0).any():
        wrong.append("an edit was never called")
    if effects.loc[effects["arm"] == "no_edit", "effect"].any():
        wrong.append("no edit has an effect")
    if pd.read_parquet(run / "search/features.parquet")["attribution"].isna().all():
        wrong.append("the table of the search has no attribution")
    if len(pd.read_parquet(run / "steering/texts.parquet")) < 100:
        wrong.append("the steering study wrote hardly any texts")
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    if record["corpus"]["n_tokens"] < 300_000:
        wrong.append(f"the corpus has only {record['corpus']['n_tokens']} tokens")
    if reused:
        last = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        if json.loads(last)["event"] != "reused":
            wrong.append("the second run built something")
    return wrong


def main() -> int:
    """Print what is wrong; exit 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--reused", action="store_true")
    args = parser.parse_args()
    wrong = check(args.run, reused=args.reused)
    sys.stdout.write("\n".join(wrong) + "\n" if wrong else "the run is complete\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
