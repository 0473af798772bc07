"""vLLM in this process: an inference engine that shares the machine with the training.

vLLM keeps weights of its own. :meth:`VLLMEngine.load` hands it the policy's, and on a GPU it sleeps between two draws,
so that the training has its memory. Whether it really computes with the weights that it was handed is tried out when
it is opened, because not every build does.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from bontune.base.errors import BontuneError
from bontune.base.signals import Poll
from bontune.engines.contract import (
    EngineFailed,
    Limits,
    Progress,
    Samples,
    SamplingOptions,
    StopReason,
    check_vllm_sampling,
    parameter_of,
)
from bontune.engines.prompts import Prompt
from bontune.engines.seeds import stream
from bontune.engines.texts import Decoder, context_of, encode_prompts, end_ids
from bontune.models import without_bars
from bontune.models.adapters import is_adapted, merged_copy
from bontune.models.chat import has_chat_template
from bontune.models.precision import cpu_dtype, saved_dtype
from bontune.models.saving import save_model

TOLERANCE = {torch.float32: 2e-3}
"""Mean difference of log-probabilities, in nats, that rounding explains in each dtype."""
TOLERANCE_OF_16_BITS = 0.1
OLDEST = (0, 32)
"""The oldest version of vLLM that this module has been tried with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VLLMOptions:
    """How vLLM is opened."""

    gpu_memory: float = 0.4
    """Share of the GPU's memory that it may hold while it draws, weights and cache together."""
    context: int | None = None
    """Longest prompt with its completion, in tokens; None: the model's own bound. vLLM holds room for one such text."""
    max_sequences: int = 256
    """Completions that are drawn at the same time."""


class VLLMEngine:
    """Draws with vLLM in this process (see :class:`bontune.engines.contract.Engine`).

    A draw as a whole follows from its keys on the same machine; a single completion does not, because vLLM's random
    numbers depend on what else is drawn beside it. ``limits.has_seeds`` is therefore False.

    References:
        Kwon et al., Efficient Memory Management for Large Language Model Serving with PagedAttention, arXiv 2309.06180.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        options: VLLMOptions | None = None,
        *,
        dtype: torch.dtype | None = None,
        is_replica: bool = False,
    ) -> None:
        """
        Args:
            model: a loaded causal LM (a peft model too), whose weights are handed over; or a folder or hub id, which
                vLLM reads by itself and whose weights then stay as they are.
            tokenizer: its tokenizer.
            options: how vLLM is opened.
            dtype: in which it computes; None: the model's own, or what suits the CPU.
            is_replica: whether other processes of the same training have an engine of their own.

        Raises:
            BontuneError: vLLM is not installed or too old, does not take the model, lacks memory, or does not compute
                what the model computes.
        """
        self.tokenizer = tokenizer
        self.options = options or VLLMOptions()
        self._policy = None if isinstance(model, str) else model
        self._described = description(model) if isinstance(model, str) else model
        self._weights: dict[str, Tensor] = {}
        self._asleep: set[str] = set()
        self.progress = Progress()
        bounds = [bound for bound in (self.options.context, context_of(self._described)) if bound]
        context = min(bounds, default=None)
        self.limits = Limits(has_seeds=False, has_tokens=True, can_load=self._policy is not None, context=context)
        self._vllm = import_vllm()
        self._on_gpu = bool(self._vllm.platforms.current_platform.is_cuda_alike())
        # Told, because vLLM's own choice makes 16 bits of float32.
        self._dtype = dtype or (cpu_dtype(model) or saved_dtype(model) if self._policy is None else self._policy.dtype)
        if self._policy is None:
            self._llm = self._open(model, is_replica)
            return
        with tempfile.TemporaryDirectory(prefix="bontune-vllm-") as folder:
            # transformers writes files in the main process alone.
            is_main = not is_replica or distributed.get_rank() == 0
            where = [str(Path(folder) / "model")]
            if is_main:
                save_model(self._policy, tokenizer, Path(where[0]))
            if is_replica:
                distributed.broadcast_object_list(where)
            self._llm = self._open(where[0], is_replica)
            if is_replica:
                distributed.barrier()
        self._check_computes_alike()
        self._sleep()

    def draw(
        self,
        prompts: Sequence[Prompt],
        options: SamplingOptions,
        keys: Sequence[tuple[object, ...]],
        poll: Poll | None = None,
    ) -> Samples:
        """Draw M completions of each prompt; see :meth:`bontune.engines.contract.Engine.draw`.

        Raises:
            BontuneError: a prompt cannot be drawn, or vLLM would draw otherwise than asked (``check_sampling``).
            EngineFailed: vLLM broke down.
        """
        check_vllm_sampling(options.temperature, options.top_p)
        encoded = self._encode(prompts, options.max_new_tokens)
        self._wake("weights", "kv_cache")
        decoder = Decoder(self.tokenizer, options.stop)
        outputs = self._outputs(encoded, options, keys, decoder, poll)
        self._sleep()
        return self._samples(encoded, outputs, options.num_samples, decoder)

    def takes_chat(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return has_chat_template(self.tokenizer)

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Refuse a prompt that is empty or does not fit the context."""
        self._encode(prompts, max_new_tokens)

    def origin(self) -> dict[str, Any]:
        """The engine's name and version: its random numbers and its rounding are its own."""
        return {"engine": f"vllm {self._vllm.__version__}"}

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Draw with these weights; see :meth:`bontune.engines.contract.Engine.load`. Adapters are merged in a copy."""
        if self._policy is None:
            raise BontuneError(
                "The engine vllm cannot be given weights where it read the model itself; open it with a loaded model."
            )
        parameters = dict(self._policy.named_parameters())
        for name, tensor in weights:
            parameter_of(parameters, name, tensor)
            self._weights[name] = tensor.detach()
        with self._policy_with(self._weights):
            self._hand_over()

    # ---- opening ----

    def _open(self, folder: str, is_replica: bool) -> Any:
        settings: dict[str, Any] = {
            "model": folder,
            "dtype": "auto" if self._dtype is None else str(self._dtype).removeprefix("torch."),
            "max_model_len": self.limits.context,
            "max_num_seqs": self.options.max_sequences,
            "logprobs_mode": "processed_logprobs",  # at the sampling temperature
            "generation_config": "vllm",  # none of the model's own penalties and truncations
            "seed": 0,
            "use_tqdm_on_load": False,
        }
        if self._on_gpu:
            settings |= {
                "gpu_memory_utilization": self.options.gpu_memory,
                "enable_sleep_mode": self._policy is not None,
            }
        else:
            settings |= {"enforce_eager": True}
        if is_replica:
            settings |= {"distributed_executor_backend": "external_launcher"}
        try:
            with torch.random.fork_rng(), without_bars():
                return self._vllm.LLM(**settings)
        except Exception as error:  # an edge: vLLM fails in many ways, mostly far from the cause
            raise BontuneError(why_not(error, self.options)) from error

    def _check_computes_alike(self) -> None:
        """Compare vLLM's log-probabilities with the model's, with its weights and with others.

        The other weights are the model's own in other places: every layer gets those of the next one. After a single
        step of training old and new weights would be too near to each other to tell them apart.

        Raises:
            BontuneError: they differ by more than rounding.
        """
        assert self._policy is not None
        self._compare("computes something else than the model in this process")
        moved = shifted(dict(self._policy.named_parameters()))
        with self._policy_with(moved):
            self._hand_over()
            tied = ", as some do with tied embeddings" if self._policy.config.tie_word_embeddings else ""
            self._compare(f"keeps some of its old weights when it is given new ones{tied}")
        self._hand_over()

    def _compare(self, what: str) -> None:
        assert self._policy is not None
        size = self._policy.get_input_embeddings().weight.shape[0]
        prompt = [i % size for i in range(5, 12)]
        options = SamplingOptions(num_samples=4, max_new_tokens=8)
        try:
            outputs = self._outputs([prompt], options, [("check",)], Decoder(self.tokenizer, ()), None)
        except EngineFailed as error:
            raise BontuneError(
                f"vLLM does not take the model ({reason(error)}): take the engine transformers."
            ) from None
        device, worst = self._policy.device, 0.0
        dtype = self._dtype or torch.float32
        for output in outputs[0]:
            tokens, found = list(output.token_ids), torch.tensor(_logprobs(output))
            ids = torch.tensor([prompt + tokens], device=device)
            is_small = dtype is not torch.float32
            with torch.no_grad(), torch.autocast(device.type, dtype=dtype if is_small else None, enabled=is_small):
                logits = self._policy(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
            own = logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None]).squeeze(-1).cpu()
            worst = max(worst, float((own - found).abs().mean()))
        if not worst <= TOLERANCE.get(dtype, TOLERANCE_OF_16_BITS):
            raise BontuneError(
                f"The engine vllm {what}: its log-probabilities are {worst:.2g} nats off; take the engine transformers."
            )

    # ---- drawing ----

    def _encode(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
        encoded = encode_prompts(self._described, self.tokenizer, prompts, max_new_tokens)
        context = self.options.context
        for ids in encoded if context else ():
            if context and len(ids) + max_new_tokens > context:
                raise BontuneError(
                    f"A prompt has {len(ids)} tokens; with {max_new_tokens} new ones that is more than the engine's "
                    f"context of {context}: raise engine.context, or shorten the prompt."
                )
        return encoded

    def _outputs(
        self,
        encoded: list[list[int]],
        options: SamplingOptions,
        keys: Sequence[tuple[object, ...]],
        decoder: Decoder,
        poll: Poll | None,
    ) -> list[list[Any]]:
        """vLLM's outputs of each prompt, in order."""
        is_greedy = options.temperature == 0  # of which vLLM draws one
        params = self._vllm.SamplingParams(
            n=1 if is_greedy else options.num_samples,
            temperature=options.temperature,
            max_tokens=options.max_new_tokens,
            stop=list(options.stop) or None,
            stop_token_ids=end_ids(self._described, self.tokenizer),
            skip_special_tokens=not decoder.shown_special,
            detokenize=bool(options.stop),
            logprobs=0,
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )
        engine, found = self._llm.llm_engine, {}
        names = [str(p) for p in range(len(encoded))]
        with torch.random.fork_rng():
            torch.manual_seed(int(stream("vllm", *keys).integers(2**62)))
            try:
                for name, ids in zip(names, encoded, strict=True):
                    engine.add_request(name, {"prompt_token_ids": ids}, params.clone())
                while engine.has_unfinished_requests():
                    if poll is not None:
                        poll()
                    for out in engine.step():
                        if out.finished:
                            found[out.request_id] = out.outputs
                            self.progress.num_samples += options.num_samples
                            self.progress.num_tokens += sum(len(one.token_ids) for one in out.outputs)
            except BaseException as error:
                if not isinstance(error, Exception):
                    self._abort(names)
                    raise
                with suppress(Exception):  # it may be past that
                    self._abort(names)
                # An edge: vLLM breaks down in many ways.
                raise EngineFailed(f"The engine vllm broke down while it drew: {reason(error)}.") from error
        rows = [sorted(found[name], key=lambda output: output.index) for name in names]
        return [row * options.num_samples for row in rows] if is_greedy else rows

    def _abort(self, names: list[str]) -> None:
        engine = self._llm.llm_engine
        engine.abort_request(names)
        while engine.has_unfinished_requests():
            engine.step()

    def _samples(
        self, encoded: list[list[int]], outputs: list[list[Any]], num_samples: int, decoder: Decoder
    ) -> Samples:
        flat = [output for row in outputs for output in row]
        lengths_B = torch.tensor([len(output.token_ids) for output in flat])
        tokens_BT = torch.zeros(len(flat), int(lengths_B.max()), dtype=torch.int64)
        logprobs_BT = torch.zeros(tokens_BT.shape)
        for b, output in enumerate(flat):
            tokens_BT[b, : lengths_B[b]] = torch.tensor(output.token_ids)
            logprobs_BT[b, : lengths_B[b]] = torch.tensor(_logprobs(output))
        texts = decoder.texts(encoded, tokens_BT, lengths_B)
        return Samples(
            prompts=encoded,
            tokens_BT=tokens_BT,
            lengths_B=lengths_B,
            logprobs_BT=logprobs_BT,
            stops=[_stop_reason(output) for output in flat],
            texts=[texts[i : i + num_samples] for i in range(0, len(texts), num_samples)],
        )

    # ---- weights and memory ----

    @contextmanager
    def _policy_with(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """While the context lasts, the policy has these weights; storage is exchanged, not copied."""
        assert self._policy is not None
        named = dict(self._policy.named_parameters())
        before = {name: named[name].data for name in weights}
        try:
            for name, tensor in weights.items():
                named[name].data = tensor
            yield
        finally:
            for name, tensor in before.items():
                named[name].data = tensor

    @torch.no_grad()
    def _hand_over(self) -> None:
        """Copy the policy's weights, as they are now, into vLLM."""
        assert self._policy is not None
        plain = merged_copy(self._policy) if is_adapted(self._policy) else self._policy
        self._wake("weights")
        weights = ((name, parameter.data.clone()) for name, parameter in plain.named_parameters())
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            self._llm.reset_prefix_cache()
        except Exception as error:  # an edge, as above
            raise EngineFailed(f"The engine vllm could not take new weights: {reason(error)}.") from error

    def _sleep(self) -> None:
        """Leave the GPU's memory to the training; weights wait in the CPU's, so that no load is needed to go on."""
        if self._on_gpu and self._policy is not None:
            self._llm.sleep(level=1)
            self._asleep = {"weights", "kv_cache"}

    def _wake(self, *parts: str) -> None:
        if sleeping := [part for part in parts if part in self._asleep]:
            self._llm.wake_up(tags=sleeping)
            self._asleep -= set(sleeping)


def _logprobs(output: Any) -> list[float]:
    return [at[token].logprob for token, at in zip(output.token_ids, output.logprobs, strict=True)]


def _stop_reason(output: Any) -> StopReason:
    if output.finish_reason == "length":
        return StopReason.LENGTH
    if output.finish_reason == "stop":
        return StopReason.STOP if isinstance(output.stop_reason, str) else StopReason.END
    return StopReason.OTHER


if TYPE_CHECKING:
    import torch
    from torch import Tensor


def import_vllm() -> Any:
    """Import vLLM so that it runs in this process, quietly, and leaves our threads alone."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
        import vllm.platforms
        import vllm.sampling_params
    except ImportError as error:
        raise BontuneError(
            f"The engine vllm needs vLLM, which cannot be imported here ({reason(error)}): install "
            "'bontune[vllm]', or take the engine transformers."
        ) from None
    version = tuple(int(part) for part in vllm.__version__.split(".")[:2] if part.isdigit())
    if version < OLDEST:
        raise BontuneError(
            f"The engine vllm needs vLLM {OLDEST[0]}.{OLDEST[1]} or newer, and {vllm.__version__} is installed."
        )
    return vllm


def description(name: str) -> Any:
    """What is asked of a model that vLLM reads: its config and its generation config."""
    from transformers import AutoConfig, GenerationConfig

    try:
        generation = GenerationConfig.from_pretrained(name)
    except OSError:
        generation = None
    return SimpleNamespace(config=AutoConfig.from_pretrained(name), generation_config=generation)


def shifted(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights in other places: each layer's in the one before it, and matrices without a like rolled by a row.

    Adapters start with zeros that would stay zeros, so that they are filled.
    """
    alike: dict[tuple[str, torch.Size], list[str]] = {}
    for name, parameter in parameters.items():
        kind = ".".join("#" if part.isdigit() else part for part in name.split("."))
        alike.setdefault((kind, parameter.shape), []).append(name)
    shifted = {}
    for (kind, shape), names in alike.items():
        for name, source in zip(names, [*names[1:], names[0]], strict=True):
            data = parameters[source].data
            if "lora_B" in kind:
                data = data.new_full(data.shape, 0.02)
            elif len(names) == 1 and len(shape) == 2:
                data = data.roll(1, dims=0)
            shifted[name] = data
    return shifted


def why_not(error: Exception, options: VLLMOptions) -> str:
    """Say in one sentence why vLLM was not opened and what to do."""
    told = reason(error)
    hint = "take the engine transformers"
    if any(word in told.lower() for word in ("memory", "kv cache")):
        hint = (
            f"change engine.gpu_memory (it is {options.gpu_memory}), lower engine.context, or {hint}; on a CPU "
            "VLLM_CPU_KVCACHE_SPACE is the size of its cache in GiB"
        )
    return f"vLLM does not open the model ({told}): {hint}."


def reason(error: BaseException) -> str:
    """The innermost cause's first sentence; vLLM wraps it several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0].strip().rstrip(".:")
