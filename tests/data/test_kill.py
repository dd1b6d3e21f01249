"""A harvest killed at any moment is finished by the same command, with the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("kill_harvest.py")


def test_killed_at_random_times(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["killed"] >= 4, outcome
    assert outcome["resumed"] >= 1, "no kill left finished shards behind: nothing was resumed"
    assert outcome["different"] == []
