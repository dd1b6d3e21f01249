"""Time and size of a report, built from result files in a process of its own without torch.

    python benchmarks/report.py [RUN] [--json]

Without RUN a made-up run of every causal stage is used, with a page for each of 100 features. The
peers are the bounds that the project sets itself: 10 s and 5 MB.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lines import cost, show

SECONDS, MEGABYTES = 10.0, 5.0
FORBIDDEN = ("torch", "transformers", "sae_lens", "matplotlib.pyplot")
LEFT_BEHIND = ("activations", "figures", "report.html", ".lock")
STAGES = (
    "run",
    "sae",
    "search",
    "reads",
    "controls",
    "baselines",
    "effects",
    "screen",
    "mediation",
    "study",
)
BUILD = """
import json, sys, time
start, cpu = time.perf_counter(), time.process_time()
from pathlib import Path
from affectlens.report import build_report
page = build_report(Path(sys.argv[1]))
print(json.dumps({
    "seconds": time.perf_counter() - start,
    "cpu": time.process_time() - cpu,
    "bytes": page.stat().st_size,
    "imported": [name for name in sys.argv[2:] if name in sys.modules],
}))
"""


def made_up(folder: Path) -> Path:
    """A run folder with results for more than 100 features."""
    sys.path.append(str(Path(__file__).parents[1] / "tests/report"))
    from synthetic_run import Settings, write_run

    return write_run(folder, Settings(n_tested=1000, stages=STAGES))


def main() -> int:
    """Print time and size; exit 1 if it is too large or a forbidden module was imported."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        if args.run is None:
            made_up(run)
        else:
            shutil.copytree(args.run, run, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        command = [sys.executable, "-c", BUILD, str(run), *FORBIDDEN]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    show(
        cost("report build time", found["seconds"], SECONDS),
        as_json=args.json,
        more=f", {found['cpu']:.1f} s of processor time",
    )
    show(cost("report size", found["bytes"] / 1e6, MEGABYTES, "MB"), as_json=args.json)
    if found["imported"]:
        print(f"imported: {', '.join(found['imported'])}", file=sys.stderr)
    # The time is shown, not tested: it depends on the machine and on what else runs there.
    return 1 if found["bytes"] > MEGABYTES * 1e6 or found["imported"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
