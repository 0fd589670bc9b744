"""GPT-2 124M beside the programs that people would use instead, all with the same weights, in turn.

    python bench/generate.py [--batches 1,16] [--prompts 128] [--rounds 5] [--widths float32,int8,int4] [--against …]

It is `neural bench generate` on a GPT-2 of random weights; results: bench/results/generate_<date>_<name>.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from gpt2_model import machine, write_gpt2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="gpt2", help="Of the file of results.")
    args, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        program, where = write_gpt2(Path(folder)), machine()
        command = [sys.executable, "-m", "neural", "bench", "generate", str(program), "--json", *rest]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    path = Path(__file__).parent / "results" / f"generate_{where['date'][:10]}_{args.name}.json"
    path.write_text(json.dumps({"machine": where, "arguments": rest, **json.loads(done.stdout)}, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
