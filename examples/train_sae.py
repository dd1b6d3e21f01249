"""Train an SAE on the output of one block and save it in sae-lens' format.

    python examples/train_sae.py --layer 15 --out my_sae

A minute of harvest for 100,000 tokens and a minute of training on two cores, embedded model.
"""

import argparse
from pathlib import Path

import affectlens as al

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="smollm2-135m-instruct")
parser.add_argument("--text", default="default", help="corpus: default, file, folder, hub:...")
parser.add_argument("--layer", type=int, default=15)
parser.add_argument("--max-tokens", type=int, default=None)
parser.add_argument("--out", type=Path, required=True)
args = parser.parse_args()

lm = al.load_model(args.model)
battery = al.load_battery()
store = al.harvest(
    lm,
    args.text,
    layer=args.layer,
    out=args.out / "activations",
    avoid=battery,
    max_tokens=args.max_tokens,
)
sae = al.train(store, lm=lm, out=args.out / "sae", arch="topk", d_sae=8 * lm.d_model, k=32)
print(sae)
print((args.out / "sae" / "metrics.json").read_text(encoding="utf-8")[:600])
