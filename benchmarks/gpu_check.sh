#!/usr/bin/env bash
# Does it run on this GPU? The tests that compare it with the CPU, then 20 steps of Countdown on either.
#
#     benchmarks/gpu_check.sh OUT      # results in the folder OUT, a short table last
#
# PYTHON names the interpreter (default: python). BONTUNE_DEVICE_TESTS=cpu tries the script itself without a GPU.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?give a folder for the results}
mkdir -p "$out"
python=${PYTHON:-python}
device=${BONTUNE_DEVICE_TESTS:-auto}
export PYTHONPATH="$PWD/src:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
"$python" -c 'import torch, transformers; print(torch.__version__, transformers.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")' | tee "$out/machine.txt"
"$python" -m pytest -q -m gpu tests/training/test_devices.py -p no:cacheprovider 2>&1 | tail -60 | tee "$out/tests.txt"
steps=${STEPS:-20}
for where in cpu "$device"; do
    "$python" -m bontune train countdown run="$out/countdown-$where" training.steps="$steps" training.device="$where" eval.every=0 ||
        echo "the training on $where failed"
done
"$python" - "$out" "$device" <<'END' | tee "$out/rewards.txt"
import json, statistics, sys
from pathlib import Path

for where in ("cpu", sys.argv[2]):
    rows = [json.loads(line) for line in (Path(sys.argv[1]) / f"countdown-{where}" / "metrics.jsonl").open()]
    rows = [row for row in rows if row["kind"] == "step"]
    rewards, seconds = ([float(x) for x in v] for v in zip(*((r["reward"], sum(r["seconds"].values())) for r in rows)))
    print(f"{where}: reward {rewards[0]:.3f}, last five {statistics.mean(rewards[-5:]):.3f}; first entropy {rows[0]['entropy']:.4f}; {statistics.median(seconds):.3f} s/step")
END
