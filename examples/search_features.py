"""Search an SAE for emotion features and test the best of one emotion.

python examples/search_features.py my_sae --emotion grief
"""

import argparse
from pathlib import Path

import affectlens as al

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="what train_sae.py wrote")
parser.add_argument("--model", default="smollm2-135m-instruct")
parser.add_argument("--battery", default="affectlens-vignettes")
parser.add_argument("--emotion", default="grief")
args = parser.parse_args()

lm = al.load_model(args.model)
sae = al.load_sae(args.folder / "sae")
battery = al.load_battery(args.battery)
store = al.ActivationStore.open(args.folder / "activations")

card = al.audit(battery)
print(card.warning or "No lexical control exceeds its threshold.")
found = al.search(lm, sae, battery, store=store, lexical_warning=card.warning)
columns = ["contrast", "feature", "d_z", "auroc_paired", "p_fwer", "confirm_d_z", "confirmed"]
print(found.table[found.table["contrast"].isin(["all", args.emotion])][columns].head(20))
if found.controls is not None:  # words, or what they say?
    print(found.controls.table[["contrast", "feature", "class", "why"]].head(20))

effect = al.intervene(lm, sae, found.top(args.emotion, 5), battery)
print(effect.verdicts.T)
