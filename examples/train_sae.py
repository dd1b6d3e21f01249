"""Train an SAE on the output of one block, save it in sae-lens' format and check it.

    python examples/train_sae.py my_sae --layer 15

Writes my_sae/activations, my_sae/sae, my_sae/check.json and a figure. On two cores and the default
model the embedded texts take about a minute to read and a minute to train on.
"""

import argparse
from pathlib import Path

import affectlens as al

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="where to write")
parser.add_argument("--model", default="smollm2-135m-instruct", help="name, hub id, folder or GGUF")
parser.add_argument("--text", default="default", help="corpus: default, a file, a folder, hub:...")
parser.add_argument("--layer", type=int, default=15)
parser.add_argument("--d-sae", type=int, default=None, help="latents; 8 times the width if not set")
parser.add_argument("--k", type=int, default=32, help="latents active on a token")
parser.add_argument("--n-samples", type=int, default=1_000_000, help="activations to train on")
args = parser.parse_args()

lm = al.load_model(args.model)
store = al.harvest(
    lm,
    args.text,
    layer=args.layer,
    out=args.folder / "activations",
    avoid=al.load_battery(),  # texts that features are searched with must not be trained on
)
sae = al.train(
    store,
    lm=lm,
    out=args.folder / "sae",
    arch="topk",
    d_sae=args.d_sae or 8 * lm.d_model,
    k=args.k,
    n_samples=args.n_samples,
)
print(sae)

check = al.sae_check(sae, lm=lm, store=store)  # does it fit the model, is it any good?
check.write(args.folder / "check.json")
print(check)

axes = sae.plot.nearest()  # latents that nearly coincide are copies of each other
axes.figure.savefig(args.folder / "nearest.png")
print(f"next: python examples/search_features.py {args.folder} --model {args.model}")
