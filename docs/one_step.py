"""One step of Best-of-N training in plain PyTorch: the first step of `bontune train countdown`, without its machinery.

Shapes: P prompts, M samples of each, B = P·M rows, T tokens of prompt and completion.
"""

import copy

import torch

from bontune.config import load_recipe
from bontune.engines.contract import Samples, SamplingOptions
from bontune.engines.prompts import stop_of
from bontune.engines.seeds import order_of
from bontune.engines.transformers import TransformersEngine
from bontune.models import load_model
from bontune.objectives import bon_rl
from bontune.tasks import load_task


def token_logprobs(model: torch.nn.Module, samples: Samples, rows: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log π over the vocabulary at each place of some rows, and the completions' tokens there, else −1."""
    owners, lengths = (
        [samples.prompts[b // samples.num_samples] for b in rows],
        [int(samples.lengths_B[b]) for b in rows],
    )
    texts = [[*owner, *samples.tokens_BT[b, :n].tolist()] for b, owner, n in zip(rows, owners, lengths, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
    place, starts = torch.arange(ids.shape[1] - 1), torch.tensor([[len(owner) - 1] for owner in owners])
    is_token = (place >= starts) & (place < starts + torch.tensor(lengths)[:, None])
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # padding comes last and nothing earlier sees it
    return torch.log_softmax(logits.float(), dim=-1), torch.where(is_token, ids[:, 1:], -1)


def main(*overrides: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Take the first step of the recipe `countdown`; return the policy and its moving anchor."""
    recipe = load_recipe("countdown", overrides)
    sampling, training = recipe.sampling, recipe.training
    model, tokenizer = load_model(recipe.model, dtype=torch.float32)
    model.eval()
    anchor = copy.deepcopy(model).requires_grad_(False)
    rate = training.lr / training.warmup
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=training.weight_decay)

    # Draw: P problems in the order of the seed, M completions of each; every completion has a seed of its own.
    task = load_task(recipe.task.name, **recipe.task.options())
    train = task.problems(recipe.task.split)
    problems = [train[int(i)] for i in order_of(len(train), recipe.seed, 0)[: training.prompts_per_step]]
    options = SamplingOptions(
        num_samples=sampling.samples, max_new_tokens=sampling.max_new_tokens, stop=stop_of(task, problems, False)
    )
    keys = [(recipe.seed, "train", i, problem.id) for i, problem in enumerate(problems)]
    samples = TransformersEngine(model, tokenizer).draw([problem.prompt for problem in problems], options, keys)

    # Grade, and turn rewards into advantages for Best-of-N; the verifier of this recipe scores by the reward itself.
    grades = task.grade(problems, samples.texts)
    rewards = torch.tensor([[grade.reward for grade in row] for row in grades], dtype=torch.float64)
    advantages = bon_rl(rewards, scores=rewards, n=recipe.objective.n, baseline="loo").flatten().float()

    # Loss: −(1/B) Σ A·log π(y), plus β times the KL to the anchor, which is exact in each token's distribution.
    for p in range(len(problems)):  # prompt by prompt, because all logits at once would fill the memory
        rows = range(p * sampling.samples, (p + 1) * sampling.samples)
        logprobs, targets = token_logprobs(model, samples, rows)
        with torch.no_grad():
            anchor_logprobs, _ = token_logprobs(anchor, samples, rows)
        drawn = logprobs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        drawn_sum = torch.where(targets >= 0, drawn, 0.0).sum(-1)
        kl = (logprobs.exp() * (logprobs - anchor_logprobs)).sum(-1)[targets >= 0].sum()
        loss = -(advantages[rows.start : rows.stop] * drawn_sum).sum() + recipe.kl.start * kl
        (loss / len(advantages)).backward()

    # Update: one step of AdamW; then the anchor moves towards the policy.
    torch.nn.utils.clip_grad_norm_(model.parameters(), training.max_grad_norm)
    optimizer.step()
    for reference, parameter in zip(anchor.parameters(), model.parameters(), strict=True):
        reference.lerp_(parameter.detach(), recipe.kl.anchor_ema)
    return model, anchor


if __name__ == "__main__":
    main()
