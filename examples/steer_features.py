"""Clamp features while the model writes, beside the text it writes without.

    python examples/steer_features.py my_sae --emotion grief --strength 1

Reads the SAE and the search of the folder and writes steered.json beside them.
"""

import argparse
import json
from pathlib import Path

import affectlens as al

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="what search_features.py wrote")
parser.add_argument("--model", default="smollm2-135m-instruct")
parser.add_argument("--emotion", default="grief", help="an emotion of the battery, or all")
parser.add_argument("--n", type=int, default=5, help="features to clamp")
parser.add_argument("--strength", type=float, default=1.0, help="times each feature's maximum")
parser.add_argument("--prompt", default="The day began like any other, and then")
parser.add_argument("--tokens", type=int, default=40, help="tokens to write")
args = parser.parse_args()

lm = al.load_model(args.model)
sae = al.load_sae(args.folder / "sae")
found = al.read_search(args.folder)

# By what features do to the output, if the search screened them; else by what they respond to.
by = "output" if found.screen is not None else "input"
chosen = found.top(args.emotion, args.n, by=by)
values = chosen.at(args.strength)

plain = lm.generate(args.prompt, max_new_tokens=args.tokens)
with al.clamped(lm, sae, values) as tally:
    steered = lm.generate(args.prompt, max_new_tokens=args.tokens)

print("unedited:", plain)
print("clamped: ", steered)
print(
    f"{len(values)} features by {by}; {tally.tokens} tokens changed by {tally.mean_norm:.1f} each"
)
said = {"prompt": args.prompt, "clamped_to": values, "unedited": plain, "clamped": steered}
(args.folder / "steered.json").write_text(json.dumps(said, indent=2), encoding="utf-8")
