"""Clamp features while the model writes, beside the text it writes without.

python examples/steer_features.py my_sae --emotion grief --strength 1
"""

import argparse
from pathlib import Path

import affectlens as al

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="what train_sae.py wrote")
parser.add_argument("--model", default="smollm2-135m-instruct")
parser.add_argument("--emotion", default="grief")
parser.add_argument("--strength", type=float, default=1.0, help="in units of each latent's maximum")
parser.add_argument("--prompt", default="The day began like any other, and then")
args = parser.parse_args()

lm = al.load_model(args.model)
sae = al.load_sae(args.folder / "sae")
store = al.ActivationStore.open(args.folder / "activations")
found = al.search(lm, sae, al.load_battery(), store=store)
largest = found.stats.set_index("feature")["max_active"]
values = {f: args.strength * float(largest[f]) for f in found.top(args.emotion, 5)}

print("unedited:", lm.generate(args.prompt, max_new_tokens=40))
with al.clamped(lm, sae, values) as tally:
    print("clamped: ", lm.generate(args.prompt, max_new_tokens=40))
print(f"{tally.tokens} tokens changed by {tally.mean_norm:.1f} on average")
