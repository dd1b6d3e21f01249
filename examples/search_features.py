"""Search an SAE for emotion features, control them for words, and test the best of one emotion.

    python examples/search_features.py my_sae --emotion grief

Reads what train_sae.py wrote to the folder and writes search/, effects/ and figures beside it.
"""

import argparse
from pathlib import Path

import affectlens as al

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="what train_sae.py wrote")
parser.add_argument("--model", default="smollm2-135m-instruct")
parser.add_argument("--battery", default="affectlens-vignettes", help="a name, folder or file")
parser.add_argument("--emotion", default="grief", help="an emotion of the battery, or all")
parser.add_argument("--limit", type=int, default=None, help="pairs, for a quick look")
parser.add_argument("--fast", action="store_true", help="no controls, no screen, few random sets")
args = parser.parse_args()

lm = al.load_model(args.model)
sae = al.load_sae(args.folder / "sae")
battery = al.load_battery(args.battery).select(limit=args.limit)
store = al.ActivationStore.open(args.folder / "activations")

card = al.audit(battery)  # before any model: how far do words alone tell the members apart?
found = al.search(
    lm,
    sae,
    battery,
    store=store,
    out=args.folder,
    lexical_warning=card.warning,
    controls=not args.fast,
    screen=not args.fast,
)
print(found)
columns = ["contrast", "feature", "d_z", "p_fwer", "confirm_d_z", "confirm_p_holm", "confirmed"]
own = found.table[found.table["contrast"] == args.emotion]
print(own[columns].head(10).to_string(index=False))
if found.controls is not None:  # words, or what they say?
    print(found.controls)

chosen = found.top(args.emotion, 5)
few = {"n_random_sets": 3, "controls": {"arms": ["random"]}, "interventions": ["clamp"]}
effect = al.intervene(lm, sae, chosen, battery, out=args.folder, **(few if args.fast else {}))
print(effect)
print(effect.verdicts.T.to_string())

found.plot.ranked(args.emotion).figure.savefig(args.folder / "ranked.png")
effect.plot.forest("clamp").figure.savefig(args.folder / "forest.png")
print(f"next: python examples/steer_features.py {args.folder} --emotion {args.emotion}")
