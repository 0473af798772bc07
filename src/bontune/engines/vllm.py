"""vLLM runs in this process and shares the machine with the training.

vLLM keeps its own copy of the weights. :meth:`VLLMEngine.load` copies the policy's weights into it, and on a GPU it
sleeps between two draws, so that the training can use its memory. Some builds keep computing with old weights; this is
tested when the engine is opened.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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

OLDEST = (0, 32)
"""The oldest version of vLLM that this module has been tested with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VLLMOptions:
    """Settings with which vLLM is opened."""

    gpu_memory: float = 0.4
    """Share of the GPU's memory that vLLM may hold while it samples, weights and cache together."""
    context: int | None = None
    """Longest prompt with its completion, in tokens; None: the model's own bound. vLLM reserves that much."""
    max_sequences: int = 256
    """Completions that are sampled at the same time."""


class VLLMEngine:
    """An engine that samples with vLLM in this process (see :class:`bontune.engines.contract.Engine`).

    The same call with the same keys gives the same completions on the same machine. A single completion does not follow
    from its key alone, because vLLM's random numbers depend on the rest of the batch: ``limits.has_seeds`` is False.

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
            model: a loaded causal LM (a peft model too), whose weights are copied into vLLM; or a folder or hub id,
                which vLLM reads itself and whose weights cannot be replaced later.
            tokenizer: the model's tokenizer.
            options: settings with which vLLM is opened.
            dtype: dtype of the computation; None: the model's own, or float32 where the CPU lacks units for it.
            is_replica: whether other processes of the same training run their own engines.

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
        # By itself vLLM would compute a float32 model in 16 bits.
        self._dtype = dtype or (cpu_dtype(model) or saved_dtype(model) if self._policy is None else self._policy.dtype)
        if self._policy is None:
            self._llm = self._open(model, is_replica)
            return
        with tempfile.TemporaryDirectory(prefix="bontune-vllm-") as folder:
            # transformers writes files in the main process alone, so the other processes read the folder it wrote.
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
            BontuneError: a prompt cannot be continued, or vLLM would not sample as requested (see
                :func:`bontune.engines.contract.check_vllm_sampling`).
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
        """Return whether the tokenizer has a chat template."""
        return has_chat_template(self.tokenizer)

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Refuse a prompt that is empty or does not fit the context."""
        self._encode(prompts, max_new_tokens)

    def origin(self) -> dict[str, Any]:
        """Return the engine's name and version, whose random numbers and rounding are its own."""
        return {"engine": f"vllm {self._vllm.__version__}"}

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Sample with these weights from now on; see :meth:`bontune.engines.contract.Engine.load`.

        Adapters are merged in a copy of the model.

        Raises:
            BontuneError: vLLM read the model itself, so that there is no policy to take weights from.
        """
        if self._policy is None:
            raise BontuneError(
                "The engine vllm cannot load weights where it read the model itself; open it with a loaded model."
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
            "logprobs_mode": "processed_logprobs",  # log-probabilities at the sampling temperature
            "generation_config": "vllm",  # ignore the model's own penalties and truncations
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
        except Exception as error:  # vLLM fails in many ways, mostly far from the cause
            raise BontuneError(why_not(error, self.options)) from error

    def _check_computes_alike(self) -> None:
        """Compare vLLM's log-probabilities with the model's, first with the model's weights and then with others.

        The other weights are the model's own, permuted: every layer gets those of the next one. After a single step of
        training, old and new weights would be too close for the comparison to tell them apart.

        Raises:
            BontuneError: the log-probabilities differ by more than rounding.
        """
        assert self._policy is not None
        self._compare("computes something else than the model in this process")
        with self._policy_with(_shifted(dict(self._policy.named_parameters()))):
            self._hand_over()
            tied = ", as some do with tied embeddings" if self._policy.config.tie_word_embeddings else ""
            self._compare(f"keeps some of its old weights when it loads new ones{tied}")
        self._hand_over()

    def _compare(self, failure: str) -> None:
        """Refuse a vLLM whose log-probabilities of a few sampled tokens are not the policy's; ``failure`` names why."""
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
        is_small = dtype is not torch.float32
        for output in outputs[0]:
            ids = torch.tensor([[*prompt, *output.token_ids]], device=device)
            with torch.no_grad(), torch.autocast(device.type, dtype=dtype if is_small else None, enabled=is_small):
                logits = self._policy(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
            own = logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None]).squeeze(-1).cpu()
            worst = max(worst, float((own - torch.tensor(_logprobs(output))).abs().mean()))
        if not worst <= (2e-3 if dtype is torch.float32 else 0.1):  # nats; rounding explains less; NaN fails, too
            raise BontuneError(
                f"The engine vllm {failure}: its log-probabilities are {worst:.2g} nats off; take the engine "
                "transformers."
            )

    # ---- drawing ----

    def _encode(self, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
        encoded = encode_prompts(self._described, self.tokenizer, prompts, max_new_tokens)
        context, longest = self.options.context, max(map(len, encoded), default=0)
        if context and longest + max_new_tokens > context:
            raise BontuneError(
                f"A prompt has {longest} tokens; with {max_new_tokens} new ones that is more than the engine's "
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
        """Run vLLM until every prompt is finished, and return its outputs for each of the P prompts, in order."""
        is_greedy = options.temperature == 0  # vLLM takes n = 1 only when it decodes greedily: copied to M below
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
        engine, outputs = self._llm.llm_engine, {}
        names = [str(p) for p in range(len(encoded))]
        # vLLM draws from torch's global generator: seed it from the keys, and leave the training's stream untouched.
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
                            outputs[out.request_id] = out.outputs
                            self.progress.num_samples += options.num_samples
                            self.progress.num_tokens += sum(len(one.token_ids) for one in out.outputs)
            except BaseException as error:
                if not isinstance(error, Exception):  # a signal: vLLM is sound and must serve the next draw
                    self._abort(names)
                    raise
                with suppress(Exception):  # a broken vLLM may be unable to abort requests
                    self._abort(names)
                raise EngineFailed(f"The engine vllm broke down while it drew: {reason(error)}.") from error
        rows = [sorted(outputs[name], key=lambda output: output.index) for name in names]
        return [row * options.num_samples for row in rows] if is_greedy else rows

    def _abort(self, names: list[str]) -> None:
        engine = self._llm.llm_engine
        engine.abort_request(names)
        while engine.has_unfinished_requests():
            engine.step()

    def _samples(
        self, encoded: list[list[int]], outputs: list[list[Any]], num_samples: int, decoder: Decoder
    ) -> Samples:
        flat = [output for row in outputs for output in row]  # B = P·M, prompt by prompt
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
        """Let the policy have these weights while the context lasts; storage is exchanged, not copied."""
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
        except Exception as error:  # vLLM fails in many ways here, too
            raise EngineFailed(f"The engine vllm could not take new weights: {reason(error)}.") from error

    def _sleep(self) -> None:
        """Free the GPU's memory for the training; the weights wait in the CPU's memory until the next draw."""
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


def import_vllm() -> Any:
    """Import vLLM so that it runs in this process, prints no log, and does not pin our threads.

    Raises:
        BontuneError: vLLM is missing or older than ``OLDEST``.
    """
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
    """Return the config and generation config of a model that vLLM reads itself, as attributes like a model's."""
    from transformers import AutoConfig, GenerationConfig

    try:
        generation = GenerationConfig.from_pretrained(name)
    except OSError:
        generation = None
    return SimpleNamespace(config=AutoConfig.from_pretrained(name), generation_config=generation)


def _shifted(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each layer the weights of the next one, and roll matrices that no other layer has by one row.

    Adapters' B matrices start as zeros, which a shift would not change, so they are filled with a constant.
    """
    layers: dict[tuple[str, torch.Size], list[str]] = {}  # the same parameter of all layers, in order
    for name, parameter in parameters.items():
        kind = ".".join("#" if part.isdigit() else part for part in name.split("."))
        layers.setdefault((kind, parameter.shape), []).append(name)
    shifted = {}
    for (kind, shape), names in layers.items():
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
    cause = reason(error)
    hint = "take the engine transformers"
    if any(word in cause.lower() for word in ("memory", "kv cache")):
        hint = (
            f"change engine.gpu_memory (it is {options.gpu_memory}), lower engine.context, or {hint}; on a CPU "
            "VLLM_CPU_KVCACHE_SPACE is the size of its cache in GiB"
        )
    return f"vLLM does not open the model ({cause}): {hint}."


def reason(error: BaseException) -> str:
    """Return the first sentence of the innermost cause; vLLM wraps exceptions several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(". ")[0].strip().rstrip(".:")
