"""A training step at real size on one GPU, side by side with TRL, and how near it comes to what the GPU can do.

    python benchmarks/gpu.py --out benchmarks/results/gpu.json
    python benchmarks/gpu.py --small --out gpu.json        # on any machine: does the script run?

The model has the shape of Gemma 2 2B with random weights in bfloat16; a step draws M completions of 512 tokens for one
prompt of 512 tokens, with the KL on. Both sides start from the same weights and take the same steps, each in a process
of its own. Results are written as they come, the table last.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import vs_trl

GEMMA_2B = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "vocab_size": 256_000,
}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 64,
    "vocab_size": vs_trl.VOCABULARY,
}
SIDES = ("bontune", "trl")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a tiny model and short texts")
    parser.add_argument("--samples", type=int, default=32, help="M (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=512, help="of the prompt, and of a completion")
    parser.add_argument("--steps", type=int, default=2, help="timed steps of a side, after one (default: %(default)s)")
    parser.add_argument("--micro-batches", type=int, default=8, help="parts of an update (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the results, as JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.small:
        given.samples, given.tokens, given.micro_batches = 4, 16, 2
    return given


def main() -> None:
    """Measure the limits, each side, and print the table."""
    given = parse()
    if given.worker:
        worker(json.loads(given.worker))
        return
    sides = SIDES if importlib.util.find_spec("trl") else SIDES[:1]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        request = {key: getattr(given, key) for key in ("small", "samples", "tokens", "steps", "micro_batches")}
        for task in ("limits", *sides, "profile"):
            command = [sys.executable, __file__, "--out", str(given.out), "--worker"]
            start = time.perf_counter()
            done = subprocess.run(
                [*command, json.dumps(request | {"task": task, "folder": folder})],
                stdout=subprocess.PIPE,
                text=True,
                check=False,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            )
            # One side that runs out of memory is a result, too.
            failed = {"failed": done.returncode}
            found[task] = failed if done.returncode else json.loads(done.stdout.splitlines()[-1])
            print(f"{task}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
            given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


def worker(request: dict[str, Any]) -> None:
    """One task in a process of its own; prints its result as the last line."""
    task = request["task"]
    print(json.dumps(limits(request) if task == "limits" else profile(request) if task == "profile" else step(request)))


def case_of(request: dict[str, Any]) -> vs_trl.Case:
    """The batch: one prompt, M samples."""
    return vs_trl.Case(
        title="Gemma 2 2B's shape",
        model="gemma",
        num_prompts=1,
        num_samples=request["samples"],
        max_new_tokens=request["tokens"],
        longest_prompt=request["tokens"],
        objective="rloo",
        reward="graded",
        device="auto",
    )


def limits(request: dict[str, Any]) -> dict[str, Any]:
    """Write the model; measure how fast the device multiplies and copies."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

    folder, has_gpu = Path(request["folder"]), torch.cuda.is_available()
    device = "cuda" if has_gpu else "cpu"
    with tempfile.TemporaryDirectory() as other:
        vs_trl.build_large(Path(other))  # for its tokenizer of whole words
        PreTrainedTokenizerFast.from_pretrained(other, padding_side="left").save_pretrained(folder)
    shape = SMALL if request["small"] else GEMMA_2B
    ids = {"eos_token_id": None, "bos_token_id": None, "pad_token_id": 0}
    config = Gemma2Config(**shape, **ids, attn_implementation="eager", dtype="bfloat16")
    torch.manual_seed(0)
    with torch.device(device):
        model = Gemma2ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    size = 8192 if has_gpu else 512
    a, b = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    large = torch.empty(2**31 if has_gpu else 2**24, device=device, dtype=torch.uint8)
    return {
        "device": torch.cuda.get_device_name() if has_gpu else "CPU",
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tflops": 2 * size**3 / seconds_of(lambda: a @ b) / 1e12,
        "gb_per_s": 2 * large.numel() / seconds_of(large.clone) / 1e9,
    }


def seconds_of(work: Any) -> float:
    """Median seconds of ten runs, after two."""
    import torch

    found = []
    for _ in range(12):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return statistics.median(found[2:])


def step(request: dict[str, Any]) -> dict[str, Any]:
    """Some steps of one side."""
    case = case_of(request)
    arguments = {"warmup": 1, "steps": request["steps"], "micro_batches": request["micro_batches"]}
    arguments["gradient_checkpointing"] = not request["small"]
    if request["task"] == "trl":
        return vs_trl.run_trl(case, request["folder"], arguments)
    return vs_trl.run_bontune(case, request["folder"], arguments, 1.0)


def profile(request: dict[str, Any]) -> dict[str, Any]:
    """What our step spends its time on, the kernels that take most."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    short = dataclasses.replace(case_of(request), max_new_tokens=min(request["tokens"], 64))
    with profiled(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        vs_trl.run_bontune(short, request["folder"], {"warmup": 0, "steps": 1, "micro_batches": 4}, 1.0)
    rows = seen.key_averages()
    has_gpu = any(row.self_device_time_total for row in rows)
    key = "self_device_time_total" if has_gpu else "self_cpu_time_total"
    rows = sorted(rows, key=lambda row: getattr(row, key), reverse=True)[:20]
    return {row.key[:80]: round(getattr(row, key) / 1e6, 4) for row in rows}


def table(found: dict[str, Any]) -> str:
    """Seconds, memory and shares of the limits."""
    lines = [f"{found['limits']}", "| side | s/step | peak GiB | seconds by phase |", "|---|---:|---:|---|"]
    for side in SIDES:
        row = found.get(side, {})
        if "seconds" not in row:
            lines.append(f"| {side} | {'failed' if row else 'TRL is not installed'} | | |")
            continue
        phases = ", ".join(f"{name} {seconds:.2f}" for name, seconds in row.get("stages", {}).items())
        lines.append(f"| {side} | {statistics.median(row['seconds']):.2f} | {row['peak_mib'] / 1024:.1f} | {phases} |")
    ours, trl, limit = found.get("bontune", {}), found.get("trl", {}), found["limits"]
    if "seconds" in ours and "seconds" in trl:
        faster = statistics.median(trl["seconds"]) / statistics.median(ours["seconds"])
        lines.append(f"{faster:.2f}× as fast, {ours['peak_mib'] / trl['peak_mib']:.2f}× the memory")
    if "stages" in ours:
        lines.append(shares(ours, limit))
    return "\n".join(lines)


def shares(ours: dict[str, Any], limit: dict[str, Any]) -> str:
    """How near decoding comes to the bandwidth, and the update to the matrix rate, by the arithmetic that must be done.

    Decoding a token of every row reads the weights once. The update is a forward and a backward pass of the policy and
    a forward pass of the reference, 2, 4 and 2 operations a parameter and token, with each activation computed twice
    under gradient checkpointing, which is not counted.
    """
    samples, tokens = ours["samples"], ours["mean_length"]
    decode = 2 * limit["parameters"] * tokens / ours["stages"]["sample"] / 1e9 / limit["gb_per_s"]
    operations = 8 * limit["parameters"] * (samples * tokens + ours["prompt_tokens"])
    update = operations / ours["stages"]["update"] / 1e12 / limit["tflops"]
    return (
        f"decode: {samples * tokens / ours['stages']['sample']:.0f} tokens/s, {decode:.0%} of the bandwidth; "
        f"update: {update:.0%} of the matrix rate"
    )


if __name__ == "__main__":
    main()
