"""What TRL, transformers, peft, vLLM and verl call a setting, and which key of a recipe means it here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ours:
    """What stands here for a word of other trainers."""

    key: str | None
    """Key of a recipe; None: there is no such setting here."""
    note: str = ""
    """A sentence about what is different here; empty: the key says it all."""

    def hint(self) -> str:
        """What an error message says of it."""
        return " ".join(part for part in (f"Did you mean {self.key!r}?" if self.key else "", self.note) if part)


def ours(word: str) -> Ours | None:
    """Find what stands here for a word of other trainers, whatever section it was put into.

    Example:
        >>> ours("training.learning_rate").key, ours("--max-new-tokens").key
        ('training.lr', 'sampling.max_new_tokens')
    """
    return _OURS.get(word.rpartition(".")[2].lstrip("-").replace("-", "_").lower())


TABLE: tuple[tuple[str | None, str, str], ...] = (
    # ---- what is trained, on what ----
    ("model", "", "model_name model_name_or_path pretrained_model_name_or_path model_id model_path base_model"),
    (
        "task.data",
        "task.name=jsonl reads rows of your own.",
        "data dataset dataset_name dataset_path data_path data_files train_data train_dataset train_file train_files",
    ),
    ("task.prompt", "It names the column of the questions.", "prompt_column prompt_key text_column dataset_text_field"),
    ("task.answer", "It names the column of the answers.", "answer_column answer_key reference_column label_column"),
    ("task.template", "", "prompt_template system_prompt"),
    (
        "task.grader",
        "It takes exact, last_number, or your function as file.py:function.",
        "grader reward_fn reward_func reward_funcs reward_function reward_functions",
    ),
    ("task.split", "", "dataset_split dataset_train_split train_split"),
    ("task.stop", "", "stop stop_strings stop_sequences stop_words"),
    ("eval.split", "", "dataset_test_split eval_split test_split validation_split"),
    ("eval.task", "", "eval_data eval_dataset eval_file val_files validation_file test_file"),
    (
        "verifier.path",
        "With verifier.name=reward_model it selects; what a sample is worth is the task's reward.",
        "reward_model reward_model_path reward_model_name reward_model_name_or_path",
    ),
    (
        "objective.name",
        "`bontune objectives` lists them.",
        "loss_type algo algorithm adv_estimator advantage_estimator scale_rewards",
    ),
    ("objective.n", "", "n best_of best_of_n bon_n"),
    # ---- how completions are drawn ----
    (
        "sampling.samples",
        "",
        "num_generations num_return_sequences num_samples n_samples samples_per_prompt group_size rollout_n",
    ),
    ("sampling.temperature", "", "temperature"),
    ("sampling.top_p", "", "top_p"),
    (
        "sampling.max_new_tokens",
        "",
        "max_new_tokens max_tokens max_completion_length max_completion_tokens max_response_length response_length "
        "max_length max_seq_length generate_max_len",
    ),
    (
        None,
        "Training draws from the whole distribution, whose gradient it takes; only sampling.top_p can be lowered.",
        "top_k min_p repetition_penalty presence_penalty frequency_penalty",
    ),
    (
        None,
        "Prompts are never cut: one that does not fit the model is refused before work begins.",
        "max_prompt_length max_prompt_tokens prompt_max_len",
    ),
    ("engine.name", "vLLM is engine.name=vllm.", "use_vllm vllm vllm_mode rollout_backend backend"),
    ("engine.gpu_memory", "", "gpu_memory_utilization vllm_gpu_memory_utilization"),
    ("engine.context", "", "max_model_len vllm_max_model_len vllm_max_model_length"),
    ("engine.max_sequences", "", "max_num_seqs"),
    (
        None,
        "Each process draws from a whole copy of the model, on one GPU.",
        "tensor_parallel_size vllm_tensor_parallel_size",
    ),
    # ---- how it is trained ----
    ("training.lr", "", "lr learning_rate peak_lr actor_lr"),
    (
        "training.prompts_per_step",
        "It counts prompts, each with sampling.samples completions.",
        "batch_size train_batch_size per_device_train_batch_size global_batch_size generation_batch_size "
        "rollout_batch_size num_prompts prompts_per_batch",
    ),
    (
        "training.steps",
        "It counts updates: E epochs are E × problems / training.prompts_per_step of them.",
        "epochs num_epochs max_epochs total_epochs num_train_epochs",
    ),
    ("training.steps", "", "steps max_steps num_steps total_steps train_steps num_train_steps total_training_steps"),
    (
        None,
        "No key is needed: a step of training.prompts_per_step prompts is computed in parts of training.token_budget "
        "tokens, which changes no result.",
        "gradient_accumulation_steps gradient_accumulation micro_batch_size ppo_micro_batch_size_per_gpu",
    ),
    (
        None,
        "The memory of an evaluation is bounded by sampling.token_budget.",
        "eval_batch_size per_device_eval_batch_size",
    ),
    ("training.warmup", "", "warmup_steps num_warmup_steps lr_warmup_steps"),
    ("training.warmup", "It counts steps: the ratio times training.steps.", "warmup_ratio lr_warmup_steps_ratio"),
    (
        "training.decay",
        "It takes linear, cosine or constant.",
        "lr_scheduler lr_scheduler_type lr_schedule lr_decay_style",
    ),
    ("training.lr_end", "", "min_lr min_learning_rate lr_min"),
    ("training.weight_decay", "", "weight_decay wd"),
    (
        "training.max_grad_norm",
        "",
        "max_grad_norm grad_clip clip_grad clip_grad_norm gradient_clip_val gradient_clipping",
    ),
    (
        None,
        "The optimizer is AdamW with PyTorch's own settings.",
        "optim optimizer adam_beta1 adam_beta2 adam_epsilon betas",
    ),
    ("training.updates_per_batch", "", "num_iterations ppo_epochs num_ppo_epochs inner_epochs mu"),
    (
        "training.minibatches",
        "It counts the parts of a batch.",
        "num_mini_batches num_minibatches mini_batch_size ppo_mini_batch_size",
    ),
    ("training.clip_range", "", "epsilon epsilon_high epsilon_low clip_eps clip_epsilon clip_ratio cliprange"),
    ("training.clip", "It takes token or sequence.", "importance_sampling_level"),
    ("training.importance", "", "vllm_importance_sampling_correction vllm_importance_sampling_mode"),
    ("training.importance_cap", "", "vllm_importance_sampling_cap tis_imp_ratio_cap"),
    (
        "kl.start",
        "The coefficient moves from kl.start to kl.end.",
        "beta kl_coef kl_coeff kl_beta init_kl_coef kl_loss_coef",
    ),
    (
        "kl.anchor_ema",
        "The anchor is a moving average of the policy.",
        "ref_model sync_ref_model ref_model_sync_steps ref_model_mixup_alpha",
    ),
    ("training.lora", "training.lora={} trains adapters.", "use_peft use_lora peft peft_config lora_config"),
    ("training.lora.r", "", "r lora_r lora_rank rank"),
    ("training.lora.alpha", "", "alpha lora_alpha"),
    ("training.lora.targets", "", "target_modules lora_target_modules lora_targets"),
    (None, "Adapters have no dropout here: a log-probability must not depend on chance.", "lora_dropout dropout"),
    ("training.precision", "It takes fp32, bf16 or auto.", "bf16 fp16 fp32 dtype torch_dtype mixed_precision"),
    ("training.device", "It takes auto or cpu.", "device cuda device_map use_cpu no_cuda"),
    ("training.shard", "", "fsdp fsdp_config deepspeed zero_stage"),
    (None, "torchrun or `accelerate launch` starts several processes.", "num_gpus n_gpus num_processes nproc_per_node"),
    # ---- what is written, and when ----
    ("run", "", "output output_dir output_path out out_dir save_dir save_path log_dir logging_dir run_name run_dir"),
    ("seed", "", "seed random_seed data_seed"),
    (
        "eval.every",
        "It counts steps.",
        "eval_steps eval_every eval_freq eval_interval eval_strategy evaluation_strategy test_freq val_check_interval",
    ),
    (
        "training.checkpoint_every",
        "It counts steps.",
        "save_steps save_every save_freq save_interval save_strategy checkpoint_interval checkpoint_steps",
    ),
    ("training.keep_checkpoints", "", "save_total_limit max_checkpoints keep_last max_ckpt_to_keep"),
    ("eval.keep", "It is a list of metrics, such as [pass@16].", "metric_for_best_model load_best_model_at_end"),
    (None, "Every step is written to metrics.jsonl in the run's folder.", "logging_steps log_every log_interval"),
    (
        "training.track",
        "It is a list, such as [wandb].",
        "report_to logger log_with tracker trackers wandb tensorboard use_wandb wandb_project",
    ),
    (None, "The same command goes on from the run's last checkpoint.", "resume resume_from_checkpoint"),
    (None, "`bontune push RUN OWNER/NAME` uploads a finished run.", "push_to_hub hub_model_id"),
)
"""Our key, a sentence, and the others' words."""
_OURS = {word: Ours(key, note) for key, note, words in TABLE for word in words.split()}
