#!/usr/bin/env bash
# SmolLM2-135M on SVAMP and GSM8K, from weights to statement: SFT, a verifier, then plain RL against Best-of-N.
#
#     benchmarks/gpu_wordproblems.sh WEIGHTS DATA OUT
#
# WEIGHTS is SmolLM2-135M-Instruct.Q4_1.gguf; it may lie in pieces WEIGHTS.part0, WEIGHTS.part1 … that are put together
# first. DATA holds svamp.json and gsm8k_{train,test}.jsonl.gz. OUT takes everything, as it comes: the same command
# resumes. PYTHON names the interpreter; SIZE is cores, gpu (the default) or gpus; TASKS are those to run; SMALL=1 tries
# the script itself, in minutes on a CPU.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
weights=$(realpath -m "${1:?give the GGUF file}") data=$(realpath "${2:?give the folder with the data}") out=${3:?give a folder for the results}
python=${PYTHON:-python} size=${SIZE:-gpu}
export PYTHONPATH="$here/src${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
bontune() { "$python" -m bontune "$@"; }
mkdir -p "$out" && cd "$out"
[ -f "$weights" ] || cat "$weights".part* > "$weights"

train=() draw=(-n 16) fit=() suite=()
if [ -n "${SMALL:-}" ]; then
    size=cores
    train=(training.steps=2 training.prompts_per_step=2 eval.problems=2 eval.samples=4 "eval.k=[1, 4]")
    draw=(-n 4 --limit 8) fit=(--epochs 1)
    suite=(recipe.training.steps=2 recipe.training.prompts_per_step=2 evaluations=1 measuring.samples=32
        "measuring.ks=[1, 16]" measuring.validation_problems=2 measuring.test_problems=3 "claims=[]")
fi
if [ ! -d model ]; then
    bontune models prune "$weights" --data "$data/svamp.json" --data "$data/gsm8k_train.jsonl.gz" --data "$data/gsm8k_test.jsonl.gz" -o model
fi
for name in ${TASKS:-svamp gsm8k}; do
    file=$data tokens=128
    [ "$name" = svamp ] && file=$data/svamp.json tokens=24
    options=(task.name="$name" task.format=equations task.data="$file")
    bontune train smollm2-sft size="$size" model=model "${options[@]}" sampling.max_new_tokens=$tokens run="$name/sft" "${train[@]}"
    if [ ! -d "$name/verifier" ]; then
        bontune sample "$name/sft" "$name" format=equations data="$file" --split train --max-new-tokens $tokens "${draw[@]}" -o "$name/train.parquet"
        bontune verify fit "$name/train.parquet" --model "$name/sft" --out "$name/verifier" "${fit[@]}"
    fi
    bontune reproduce wordproblems size="$size" recipe.model="$name/sft" "${options[@]/#/recipe.}" recipe.sampling.max_new_tokens=$tokens \
        measuring.other_verifiers.fitted="$name/verifier" --out "$name/results" --work "$name/runs" ${SMALL:+--workers 1} "${suite[@]}"
done
