"""Tokens per second of the engines on one model: ours, ``model.generate``, and vLLM where it is installed.

    .venv-vllm/bin/python benchmarks/engines.py --out benchmarks/results/engines.json

Every engine draws M completions of each prompt, of the same length because the end token is never allowed to
come, in a process of its own on one pinned core, one engine after the other. Seconds are the process's own, so that
what else runs on the core does not count; each number is the median of the repeats.
The model has the shape of Gemma 3 270M with the 35,201 tokens that GSM8K uses (123 million parameters) and random
weights: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SHAPE = {
    "vocab_size": 35_201,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "max_position_embeddings": 1024,
    "sliding_window": 512,
    "bos_token_id": 2,
    "eos_token_id": None,
    "pad_token_id": 0,
}
ENGINES = ("bontune", "generate", "vllm")


def main() -> None:
    """Time every engine in every case and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 8, 32, 128], help="M, samples per prompt")
    parser.add_argument("--prompt", type=int, nargs="+", default=[32, 512], help="tokens of the prompts")
    parser.add_argument("--prompts", type=int, default=2, help="prompts of a draw")
    parser.add_argument("--new", type=int, default=32, help="tokens of a completion")
    parser.add_argument("--repeats", type=int, default=3, help="timed draws of each engine in each case")
    parser.add_argument("--core", type=int, default=0, help="the core that all engines run on")
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"], help="fewer, for a quick try")
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.engine:
        time_engine(given)
        return
    folder = given.folder or Path("runs") / "benchmark-engines" / f"gemma-{given.layers}"
    if not (folder / "config.json").is_file():
        make_model(folder, given.layers)
    found: dict[str, dict[str, float]] = {}
    for engine in ENGINES if find_spec("vllm") else ENGINES[:2]:
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--engine", engine, "--folder", str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"},
        )
        found[engine] = json.loads(done.stdout.splitlines()[-1])
        print(f"{engine}: {found[engine]}", file=sys.stderr)
    print(table(found))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def make_model(folder: Path, layers: int) -> None:
    """Write the model and a tokenizer whose token i is the word ``ti``."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

    torch.manual_seed(0)
    kinds = ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(layers)]
    config = Gemma3TextConfig(**(SHAPE | {"num_hidden_layers": layers, "layer_types": kinds}))
    Gemma3ForCausalLM(config).save_pretrained(folder)
    core = Tokenizer(models.WordLevel({f"t{i}": i for i in range(SHAPE["vocab_size"])}, unk_token="t1"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="t0", unk_token="t1").save_pretrained(folder)


def time_engine(given: argparse.Namespace) -> None:
    """Print tokens per second of one engine by case."""
    os.sched_setaffinity(0, {given.core})
    import torch

    torch.set_num_threads(1)
    draw = {"bontune": ours, "generate": generate, "vllm": vllm}[given.engine](given.folder)
    found = {}
    for length in given.prompt:
        for samples in given.samples:
            draw(prompts_of(length, given.prompts), samples, 2)
            seconds = []
            for _ in range(given.repeats):
                prompts = prompts_of(
                    length, given.prompts
                )  # new ones, because vLLM keeps what it has computed for others
                start = time.process_time()
                draw(prompts, samples, given.new)
                seconds.append(time.process_time() - start)
            found[f"M={samples} prompt={length}"] = round(
                given.prompts * samples * given.new / statistics.median(seconds), 1
            )
            if given.engine == "bontune":
                rate, limit = matrix_rates(
                    functools.partial(draw, prompts_of(length, given.prompts), samples, given.new)
                )
                print(
                    f"M={samples} prompt={length}: products at {rate / limit:.0%} of {limit:.0f} GFLOP/s",
                    file=sys.stderr,
                )
    print(json.dumps(found))


def matrix_rates(draw: Callable[[], None]) -> tuple[float, float]:
    """GFLOP/s of the matrix products within a draw, prefill included, and of one large product on the same core."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as seen:
        draw()
    products = [row for row in seen.key_averages() if row.key in ("aten::mm", "aten::addmm")]
    rate = sum(row.flops for row in products) / sum(row.self_cpu_time_total for row in products) / 1e3
    size = 1536
    a, b = torch.randn(2, size, size)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        a @ b
        seconds.append(time.process_time() - start)
    return rate, 2 * size**3 / statistics.median(seconds) / 1e9


NUMBERS = itertools.count(10)


def prompts_of(length: int, num: int) -> list[list[int]]:
    """Prompts that were not drawn from before."""
    starts = [next(NUMBERS) for _ in range(num)]
    return [[10 + (7 * i + 131 * start) % 30_000 for i in range(length)] for start in starts]


def loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    return AutoModelForCausalLM.from_pretrained(folder).eval(), PreTrainedTokenizerFast.from_pretrained(folder)


def ours(folder: Path) -> Any:
    """The engine that ships."""
    return drawing(*loaded(folder), "transformers")


def vllm(folder: Path) -> Any:
    """vLLM, as the package opens it."""
    from bontune.engines.vllm import VLLMEngine

    _, tokenizer = loaded(folder)
    return drawing(None, tokenizer, VLLMEngine(str(folder), tokenizer))


def drawing(model: Any, tokenizer: Any, engine: Any) -> Any:
    """A function that draws with one of our engines."""
    from bontune.engines.contract import SamplingOptions
    from bontune.engines.transformers import TransformersEngine

    if engine == "transformers":
        engine = TransformersEngine(model, tokenizer)

    def draw(prompts: list[list[int]], samples: int, new: int) -> None:
        texts = [" ".join(f"t{i}" for i in prompt) for prompt in prompts]
        options = SamplingOptions(num_samples=samples, max_new_tokens=new)
        drawn = engine.draw(texts, options, [(new, p) for p in range(len(texts))])
        assert drawn.lengths_B.tolist() == [new] * (len(texts) * samples)

    return draw


def generate(folder: Path) -> Any:
    """transformers' own sampling."""
    import torch

    model, _ = loaded(folder)

    @torch.no_grad()
    def draw(prompts: list[list[int]], samples: int, new: int) -> None:
        ids = torch.tensor(prompts)
        mask = torch.ones_like(ids)
        given = {"do_sample": True, "max_new_tokens": new, "num_return_sequences": samples, "top_k": 0}
        out = model.generate(ids, attention_mask=mask, **given)
        assert out.shape == (len(prompts) * samples, ids.shape[1] + new)

    return draw


def table(found: dict[str, dict[str, float]]) -> str:
    """Tokens per second, and ours over the others."""
    others = [name for name in found if name != "bontune"]
    head = ["case", *(f"{name}, tokens/s" for name in found), *(f"ours / {name}" for name in others)]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for case, own in found["bontune"].items():
        ratios = [f"{own / found[name][case]:.2f}×" for name in others]
        lines.append(f"| {case} | " + " | ".join([*(f"{found[name][case]:g}" for name in found), *ratios]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
