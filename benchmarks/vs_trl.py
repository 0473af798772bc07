"""Time and memory of one training step, against TRL's GRPOTrainer on the same CPU: ratios of medians.

A step is everything: generation, reward, advantages, reference, update. Both sides start from the same weights, see the
same prompts, draw the same number of completions, and take one optimizer step per batch, in float32, with the KL on and
a reference that follows the policy at the same rate. Each side runs in a process of its own; sides take turns.

    python benchmarks/vs_trl.py
    python benchmarks/vs_trl.py --cases large-all --repeats 5 --threads 4 --micro-batches 4
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "vs_trl.json"
BETA, REFERENCE_RATE, LEARNING_RATE = 0.05, 0.01, 1e-6  # so slow that completions keep their length
VOCABULARY, PROMPT_TOKENS = 4096, 192
POSITIVES = 0.15
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model, one batch shape, one kind of reward."""

    title: str
    model: str
    num_prompts: int
    num_samples: int = 32
    max_new_tokens: int
    longest_prompt: int
    """In tokens; with the rows it gives the size of a micro-batch."""
    objective: str
    reward: str
    """``task``, or by a hash of the text: ``graded`` in [0, 1), ``sparse`` 1 for a share of them and else 0."""
    baseline: str | None = None
    """The objective's; None: its default."""
    lora_layers: tuple[int, int] | None = None
    """First and last decoder layer with adapters, on both sides; None: all weights are trained."""
    device: str = "cpu"
    """``cpu``: in float32; ``auto``: what there is, a GPU in bfloat16."""


CASES = {
    "countdown": Case(
        title="countdown-tiny, Countdown's grader",
        model="countdown-tiny",
        num_prompts=32,
        max_new_tokens=24,
        longest_prompt=16,
        objective="bon_rl",
        reward="task",
    ),
    "large-all": Case(
        title="10M Qwen2, every sample weighted",
        model="large",
        num_prompts=2,
        max_new_tokens=64,
        longest_prompt=PROMPT_TOKENS,
        objective="rloo",
        reward="graded",
    ),
    "large-positives": Case(
        title="10M Qwen2, positives only (no baseline)",
        model="large",
        num_prompts=2,
        max_new_tokens=64,
        longest_prompt=PROMPT_TOKENS,
        objective="bon_rlbp",
        baseline="none",
        reward="sparse",
    ),
}
SMOLLM2: dict[str, Any] = {
    "model": "smollm2",
    "num_prompts": 4,
    "num_samples": 16,
    "max_new_tokens": 24,
    "longest_prompt": 128,
}
CASES |= {
    "smollm2-all": Case(title="SmolLM2, every sample weighted", objective="rloo", reward="graded", **SMOLLM2),
    "smollm2-positives": Case(
        title="SmolLM2, positives only (no baseline)", objective="bon_rlbp", baseline="none", reward="sparse", **SMOLLM2
    ),
    "smollm2-lora": Case(
        title="SmolLM2, LoRA on layers 20 to 29, every sample weighted",
        objective="rloo",
        reward="graded",
        lora_layers=(20, 29),
        **SMOLLM2,
    ),
}
LORA_R, LORA_ALPHA = 16, 32

SIDES = {"trl": "TRL", "bontune": "bontune", "bontune-full-kl": "bontune, KL on all samples"}


# ---- what both sides share ----


def build_large(folder: Path) -> None:
    """A random Qwen2 of 10M parameters and a tokenizer of whole words, as a Hugging Face folder.

    No completion can end early: the tokenizer's end token lies just outside the model's vocabulary.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = ["<pad>", "<unk>", *(f"w{i}" for i in range(2, VOCABULARY)), "<eos>"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=320,
            intermediate_size=1024,
            num_hidden_layers=6,
            num_attention_heads=5,
            num_key_value_heads=5,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load(case: Case, folder: str) -> tuple[Any, Any]:
    """The model in float32 and its tokenizer, the same on both sides.

    Not AutoTokenizer: for a Qwen2 it takes Qwen2's own class, whatever tokenizer the folder holds.
    """
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
    if case.model == "smollm2":  # as in build_large: an end token that lies just outside the model's vocabulary
        tokenizer.add_special_tokens({"eos_token": "<never>"})
    lengths = [len(tokenizer(problem.prompt)["input_ids"]) for problem in make_task(case).problems("train")]
    if max(lengths) > case.longest_prompt or (case.reward != "task" and set(lengths) != {case.longest_prompt}):
        raise RuntimeError(f"the prompts have {min(lengths)} to {max(lengths)} tokens, not {case.longest_prompt}")
    dtype = torch.float32 if case.device == "cpu" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    if case.model == "smollm2":
        model.config.eos_token_id = model.generation_config.eos_token_id = None
    return model, tokenizer


def by_hash(kind: str, problem_id: str, text: str) -> float:
    """A reward that depends on nothing but the text, the same on both sides."""
    digest = hashlib.sha256(f"{problem_id} {text}".encode()).digest()
    value = int.from_bytes(digest[:6], "little") / 2**48
    return value if kind == "graded" else float(value < POSITIVES)


def make_task(case: Case) -> Any:
    """A task with exactly the case's prompts, so that every step of either side sees all of them."""
    from bontune.base.problems import Problem
    from bontune.grading.verdict import Grade, Verdict
    from bontune.tasks.countdown import Countdown

    class BenchmarkTask:
        name, splits, stop = "benchmark", ("train",), ()

        def problems(self, split: str) -> list[Problem]:
            if case.reward == "task":
                return Countdown().problems("train")[: case.num_prompts]
            if case.model == "smollm2":  # every digit is a token
                digits = ("".join(str((7 * p + i * (i + p)) % 10) for i in range(128)) for p in range(case.num_prompts))
                return [Problem(id=str(p), prompt=prompt, reference="") for p, prompt in enumerate(digits)]
            prompts = (
                " ".join(f"w{2 + (7919 * p + 31 * i * i) % (VOCABULARY - 2)}" for i in range(case.longest_prompt))
                for p in range(case.num_prompts)
            )
            return [Problem(id=str(p), prompt=prompt, reference="") for p, prompt in enumerate(prompts)]

        def grade(
            self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], poll: Any = None
        ) -> list[list[Grade]]:
            if case.reward == "task":
                return Countdown().grade(problems, completions)
            return [
                [by_hash_graded(problem, text) for text in texts]
                for problem, texts in zip(problems, completions, strict=True)
            ]

    def by_hash_graded(problem: Problem, text: str) -> Grade:
        reward = by_hash(case.reward, problem.id, text)
        return Grade(reward=reward, verdict=Verdict.PASSED if reward else Verdict.FAILED, answer=None)

    return BenchmarkTask()


class Meter:
    """Step times, and how far memory rose above what the process held before the first step."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []
        self.before = self.peak = 0.0

    def start(self) -> None:
        """Call when the trainer is built."""
        import torch

        self.cuda = torch.cuda if torch.cuda.is_available() else None
        if self.cuda is not None:
            self.cuda.reset_peak_memory_stats()
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the construction
        self.before = self._status("VmRSS") if self.cuda is None else self.cuda.memory_allocated() / 2**20
        self.ends = [(time.perf_counter(), time.process_time())]

    def step_ended(self) -> None:
        """Call at the end of each step."""
        if self.cuda is not None:
            self.cuda.synchronize()
        self.ends.append((time.perf_counter(), time.process_time()))
        self.peak = self._status("VmHWM") if self.cuda is None else self.cuda.max_memory_allocated() / 2**20

    @staticmethod
    def _status(key: str) -> float:
        """MiB."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":"))

    def result(self, warmup: int, **more: Any) -> dict[str, Any]:
        """All of it; the first ``warmup`` steps do not count as times."""
        wall, cpu = ([b - a for a, b in pairwise(t)][warmup:] for t in zip(*self.ends, strict=True))
        return {"seconds": wall, "cpu_seconds": cpu, "peak_mib": self.peak, "step_mib": self.peak - self.before, **more}


# ---- the sides, each in a process of its own ----


def run_bontune(case: Case, model_folder: str, arguments: dict[str, Any], kl_share: float | None) -> dict[str, Any]:
    """Steps of our trainer."""
    from bontune.base.errors import Interrupted
    from bontune.config import Recipe
    from bontune.training.trainer import Trainer

    share = {} if kl_share is None else {"share": kl_share}
    baseline = {} if case.baseline is None else {"baseline": case.baseline}
    lora = None
    if case.lora_layers is not None:
        lora = {"r": LORA_R, "alpha": LORA_ALPHA, "layers": "{}-{}".format(*case.lora_layers)}
    rows = -(-case.num_prompts * case.num_samples // arguments["micro_batches"])
    steps = arguments["warmup"] + arguments["steps"]
    meter, weighted, lengths, stages = Meter(), [], [], []

    class Measured(Trainer):
        def record(self, graded: Any, result: Any, stage_times: Any) -> None:
            super().record(graded, result, stage_times)
            meter.step_ended()
            weighted.append(result.weighted)
            lengths.append(graded.samples.lengths_B.double().mean().item())
            stages.append(dict(stage_times.seconds))
            if self.step == steps:
                raise Interrupted("SIGINT")  # leave before the model and the report are written

        def save(self) -> None:
            pass

    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.from_dict(
            {
                "model": model_folder,
                "run": folder,
                "objective": {"name": case.objective, "n": 16, **baseline},
                "sampling": {"samples": case.num_samples, "max_new_tokens": case.max_new_tokens},
                "training": {
                    "steps": steps,
                    "prompts_per_step": case.num_prompts,
                    "lr": LEARNING_RATE,
                    "warmup": 0,
                    "device": case.device,
                    "decay": "constant",
                    "precision": "fp32" if case.device == "cpu" else "auto",
                    "checkpoint_every": 0,
                    "gradient_checkpointing": arguments.get("gradient_checkpointing", "auto"),
                    "lora": lora,
                    "token_budget": rows * (case.longest_prompt + case.max_new_tokens),
                },
                "kl": {"start": BETA, "end": BETA, "anchor_ema": REFERENCE_RATE, **share},
                "eval": {"every": 0},
            }
        )
        model, tokenizer = load(case, model_folder)
        trainer = Measured(recipe, task=make_task(case), model=model, tokenizer=tokenizer, is_quiet=True)
        meter.start()
        with contextlib.suppress(Interrupted):
            trainer.train()
    counted = stages[arguments["warmup"] :]
    return meter.result(
        arguments["warmup"],
        mean_length=statistics.mean(lengths),
        weighted=statistics.mean(weighted),
        samples=case.num_prompts * case.num_samples,
        prompt_tokens=case.num_prompts * case.longest_prompt,
        kl_share=recipe.kl.share,
        stages={name: statistics.median(row[name] for row in counted) for name in counted[0]},
    )


def run_trl(case: Case, model_folder: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Steps of TRL's GRPOTrainer."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    task, meter = make_task(case), Meter()
    problems = {problem.id: problem for problem in task.problems("train")}
    steps = arguments["warmup"] + arguments["steps"]

    def reward(completions: list[str], problem_id: list[str], **_: Any) -> list[float]:
        return [
            task.grade([problems[i]], [[text]])[0][0].reward for i, text in zip(problem_id, completions, strict=True)
        ]

    class Measure(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.step_ended()

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            max_steps=steps,
            num_generations=case.num_samples,
            num_iterations=1,
            beta=BETA,
            per_device_train_batch_size=case.num_prompts * case.num_samples // arguments["micro_batches"],
            gradient_accumulation_steps=arguments["micro_batches"],
            max_completion_length=case.max_new_tokens,
            temperature=1.0,
            loss_type="grpo",
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            sync_ref_model=case.lora_layers is None,  # TRL refuses it with adapters
            ref_model_mixup_alpha=REFERENCE_RATE,
            ref_model_sync_steps=1,
            disable_dropout=True,
            mask_truncated_completions=False,
            gradient_checkpointing=arguments.get("gradient_checkpointing", False),
            bf16=case.device != "cpu" and torch.cuda.is_available(),
            use_cpu=case.device == "cpu" or not torch.cuda.is_available(),
            use_vllm=False,
            shuffle_dataset=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="steps",
            logging_steps=steps,  # once, after the last step was timed
        )
        model, tokenizer = load(case, model_folder)
        peft_config = None
        if case.lora_layers is not None:
            names = {
                name.rpartition(".")[2] for name, m in model.model.named_modules() if isinstance(m, torch.nn.Linear)
            }
            first, last = case.lora_layers
            peft_config = LoraConfig(
                r=LORA_R,
                lora_alpha=LORA_ALPHA,
                target_modules=sorted(names),
                layers_to_transform=list(range(first, last + 1)),
                task_type="CAUSAL_LM",
            )
        trainer = GRPOTrainer(
            model=model,
            peft_config=peft_config,
            processing_class=tokenizer,
            reward_funcs=reward,
            args=config,
            callbacks=[Measure()],
            train_dataset=Dataset.from_list([{"prompt": p.prompt, "problem_id": i} for i, p in problems.items()]),
        )
        meter.start()
        trainer.train()
    logged = next(row for row in trainer.state.log_history if "completions/mean_length" in row)
    return meter.result(
        arguments["warmup"],
        mean_length=logged["completions/mean_length"],
        lengths=[logged["completions/min_length"], logged["completions/max_length"]],
        reward=logged["reward"],
    )


def worker(request: dict[str, Any]) -> None:
    """Run one side and print its result as the last line."""
    import torch

    torch.set_num_threads(request["threads"])
    case, side, folder = CASES[request["case"]], request["side"], request["model_folder"]
    share = 1.0 if side == "bontune-full-kl" else None
    print(json.dumps(run_trl(case, folder, request) if side == "trl" else run_bontune(case, folder, request, share)))


# ---- the comparison ----


def in_a_process(request: dict[str, Any]) -> dict[str, Any]:
    """Run a side in a fresh interpreter."""
    threads = str(request["threads"])
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps(request)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{request['case']}, {request['side']} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over all timed steps and all repeats, with what was measured at least and at most."""
    row: dict[str, Any] = {}
    for key in ("seconds", "cpu_seconds"):
        values = [value for run in runs for value in run[key]]
        row |= {key: statistics.median(values), f"{key}_range": [min(values), max(values)]}
    for key in ("step_mib", "peak_mib", "mean_length", "weighted", "kl_share"):
        if key in runs[0]:
            row[key] = statistics.median(run[key] for run in runs)
    if "stages" in runs[0]:
        row["stages"] = {name: statistics.median(run["stages"][name] for run in runs) for name in runs[0]["stages"]}
    return row


def compare(sides: dict[str, dict[str, Any]]) -> None:
    """Write our ratios to TRL into our rows: how many times as fast, and what share of the memory."""
    for side, row in sides.items():
        if side != "trl" and "trl" in sides:
            faster = {f"faster_{key}": sides["trl"][key] / row[key] for key in ("seconds", "cpu_seconds")}
            row["versus_trl"] = faster | {key: row[key] / sides["trl"][key] for key in ("step_mib", "peak_mib")}


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """GitHub's Markdown, which is also readable."""
    head = (
        "case",
        "side",
        "s/step, median (min–max)",
        "step MiB",
        "peak MiB",
        "tokens",
        "faster",
        "by CPU time",
        "step memory",
        "peak memory",
    )
    print(f"| {' | '.join(head)} |\n|---|---|{'---:|' * (len(head) - 2)}")
    for name, sides in results.items():
        for side, row in sides.items():
            low, high = row["seconds_range"]
            cells = [CASES[name].title, SIDES[side], f"{row['seconds']:.2f} ({low:.2f}–{high:.2f})"]
            cells += [f"{row['step_mib']:.0f}", f"{row['peak_mib']:.0f}", f"{row['mean_length']:.1f}"]
            ratios = row.get("versus_trl", {})
            cells += [f"{ratios[key]:.1f}×" if ratios else "" for key in ("faster_seconds", "faster_cpu_seconds")]
            cells += [f"{ratios[key]:.2f}×" if ratios else "" for key in ("step_mib", "peak_mib")]
            print(f"| {' | '.join(cells)} |")


def machine(threads: int) -> dict[str, Any]:
    """What the numbers belong to."""
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    versions = {name: importlib.metadata.version(name) for name in ("bontune", "trl", "transformers", "torch")}
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": threads, "python": platform.python_version(), **versions}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=CASES,
        default=[n for n in CASES if not n.startswith("smollm2")],
        help="default: all of built models",
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES), help="default: all")
    parser.add_argument("--repeats", type=int, default=3, help="processes a side and case (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="timed steps a process (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="steps before those (default: %(default)s)")
    parser.add_argument("--trl-steps", type=int, help="timed steps of TRL's, which are slow (default: as --steps)")
    parser.add_argument("--trl-warmup", type=int, help="steps before those of TRL's (default: as --warmup)")
    parser.add_argument("--threads", type=int, default=1, help="of each side (default: %(default)s)")
    parser.add_argument("--micro-batches", type=int, default=1, help="parts of an update (default: %(default)s)")
    parser.add_argument("--smollm2", default=HUB_ID, help="folder or id of the model (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file (default: %(default)s)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if min(arguments.repeats, arguments.steps, arguments.threads, arguments.micro_batches, arguments.warmup + 1) < 1:
        parser.error("--repeats, --steps, --threads and --micro-batches must be at least 1, --warmup at least 0")
    if not arguments.worker:
        if not Path("/proc/self/status").exists():
            parser.error("peak memory is read from /proc, which only Linux has")
        if importlib.util.find_spec("trl") is None:
            parser.error("TRL is not installed: install the extra `trl` (pip install 'bontune[trl]')")
    return arguments


def main() -> None:
    arguments = parse()
    if arguments.worker:
        worker(json.loads(arguments.worker))
        return
    settings = {key: getattr(arguments, key) for key in ("repeats", "steps", "warmup", "threads", "micro_batches")}
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {c: {s: [] for s in arguments.sides} for c in arguments.cases}
    with tempfile.TemporaryDirectory() as folder:
        from bontune.models import resolve

        build_large(Path(folder))
        for repeat in range(arguments.repeats):
            for case in arguments.cases:
                for side in arguments.sides:
                    models = {"large": folder, "smollm2": arguments.smollm2}
                    where = models.get(CASES[case].model) or resolve(CASES[case].model)
                    own = {"case": case, "side": side, "model_folder": where}
                    if side == "trl":
                        slow = {"steps": arguments.trl_steps, "warmup": arguments.trl_warmup}
                        own |= {key: value for key, value in slow.items() if value is not None}
                    run = in_a_process(settings | own)
                    runs[case][side].append(run)
                    seconds = f"{statistics.median(run['seconds']):.2f} s/step"
                    print(f"{repeat + 1}/{arguments.repeats} {case} {side}: {seconds}", file=sys.stderr)
    results = {case: {side: summary(run) for side, run in sides.items()} for case, sides in runs.items()}
    for sides in results.values():
        compare(sides)
    print_table(results)
    report = {"machine": machine(arguments.threads), "settings": settings, "results": results, "runs": runs}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
