"""DeepSpeed's engine as our own loops use it: ZeRO 0 to 3, AdamW or Muon, a learning rate set from outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.nn import Module
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from llm_trainer.checkpoint.snapshot import Snapshot
from llm_trainer.config import CriticOptimizer, ResolvedOptimizer, TrainingSettings
from llm_trainer.models.activation_checkpointing import checkpoint_activations
from llm_trainer.models.compiled_layers import CompiledLayers, Seconds
from llm_trainer.models.engine_config import (
    actual_zero_stage,
    deepspeed_config,
    expert_parallel,
    mend_deepspeed,
    parameter_groups,
    peak_of,
)
from llm_trainer.models.engine_files import TAG, saving_into
from llm_trainer.models.expert_parallel import expert_parallel_config, stored_experts
from llm_trainer.models.experts import Routing, experts_per_token, routing
from llm_trainer.models.inference import Inference
from llm_trainer.models.language_loss import IGNORED, Told
from llm_trainer.models.optimizer_function import optimizer_maker
from llm_trainer.models.packing import innermost, leaks, unpack
from llm_trainer.models.placement import is_spread, whole
from llm_trainer.models.resharding import reading
from llm_trainer.models.sequence_parallel import check_shared_rows, share_rows
from llm_trainer.models.shards import Weights
from llm_trainer.models.size import shape_of
from llm_trainer.models.tensor_parallel import stored_matrices, tensor_parallel_config
from llm_trainer.models.width import base_width, narrowed, width_ratio
from llm_trainer.runtime.process_group import ProcessGroup


class Engine(Inference):
    """The same, in training: DeepSpeed's engine of one model."""

    def __init__(
        self,
        module: Module,
        settings: TrainingSettings,
        group: ProcessGroup,
        accumulation_steps: int,
        optimizer: ResolvedOptimizer | None = None,
        *,
        own_loss: bool = True,
    ) -> None:
        """``optimizer``: the settings' own by default; ``own_loss``: it is `nats`, else the caller's."""
        self._own_loss = own_loss
        self._peaks: list[float] = []  # learning rates of the optimizer's groups
        self._optimizer, self._accumulation_steps = optimizer or settings.optimizer, accumulation_steps
        self._has_frozen = any(not parameter.requires_grad for parameter in module.parameters())
        super().__init__(module, settings, group)
        self.model.train()  # what was read comes for evaluation, without dropout
        half = self.bfloat16 and group.device.type == "cuda"
        self._plain = actual_zero_stage(settings, half=half) == 0  # then torch's own optimizer steps on the gradients
        self._experts_per_token = experts_per_token(self.model.config)
        if settings.sequence_parallel > 1:
            self._share_rows(settings.sequence_parallel)

    def _share_rows(self, size: int) -> None:
        """Raises ConfigurationError for a model that can't."""
        self._shared = share_rows(self.model, size, self.group)
        with self._shared.whole():
            self._wanted()
        check_shared_rows(
            self._shared, self._packed_logits, self.model, self.group, apart=self._apart, bfloat16=self.bfloat16
        )

    def _wrap(self, module: Module) -> Any:
        import deepspeed

        if self.settings.checkpoints_activations(self.group.device.type):
            checkpoint_activations(innermost(module), asked=bool(self.settings.activation_checkpointing))
        config = deepspeed_config(
            self.settings,
            self.group.device,
            self._accumulation_steps,
            self._optimizer,
            bfloat16=self.bfloat16,
            learning=sum(shape_of(parameter).numel() for parameter in module.parameters() if parameter.requires_grad),
        )
        config |= expert_parallel_config(expert_parallel(self.settings), self.model.config.model_type)
        config |= tensor_parallel_config(self.settings.tensor_parallel, self.model.config)
        groups = list(parameter_groups(module, self._optimizer, *self._narrowed(module)))
        mend_deepspeed()
        if self.bfloat16 and self.group.device.type == "cuda":
            as_the_spread(module, torch.bfloat16)
        if not (name := self._optimizer.function):
            made = deepspeed.initialize(model=module, model_parameters=groups, config=config)[0]
            if self.settings.tensor_parallel > 1:
                made.first_dataloader_check.remove()  # would pickle the first rows; `DataRank` gives the ranks the same
            self._peaks = [peak_of(self._optimizer, group) for group in made.optimizer.param_groups]
            return made
        field = f"{'ppo.criticOptimizer' if isinstance(self._optimizer, CriticOptimizer) else 'optimizer'}.function"
        maker = optimizer_maker(name, self._optimizer, field, flat=config["zero_optimization"]["stage"] > 0)
        del config["optimizer"]
        made = deepspeed.initialize(model=module, model_parameters=groups, optimizer=maker, config=config)[0]
        self._peaks = [float(group["lr"]) for group in made.optimizer.param_groups]
        return made

    def _narrowed(self, module: Module) -> tuple[AbstractSet[int], float]:
        """Which weights' rates go with the width, and how. Raises ConfigurationError."""
        if base_width(self.settings) is None or not isinstance(module, PreTrainedModel):
            return frozenset(), 1.0
        return narrowed(module), width_ratio(module, self.settings)

    def nats_alone(self, tokens: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor) -> float:
        """As `nats`, without its gradient; also of an engine whose loss is the caller's, by way of the logits."""
        if self._own_loss:
            return float(self.nats(tokens, positions, targets)[0])
        self.keeps_documents_apart()
        logits = self.logits(tokens, positions).flatten(0, 1).float()
        return float(cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum"))

    def nats(
        self, tokens: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, Routing | None]:
        """Sum over the targets, all three (batch, length), that are not IGNORED; a language model's alone.

        Where ranks share their rows: over those of the rank's part. And what the routers did, None for a model without
        experts.
        """
        wanted = self._wanted()
        if not self._apart:
            own, aims = self._own(tokens), self._own(targets)
            output = self._run(input_ids=own, targets=aims, **self._places(positions), **wanted)
            return output.nats, self._routing([output.get("router_logits") or ()])
        nats, routers = [], []
        for documents in unpack(tokens, positions, every_length=self.settings.zero_stage == 3):
            output = self._run(input_ids=documents.tokens, targets=documents.spread(targets, IGNORED), **wanted)
            nats.append(output.nats)
            routers.append([layer[documents.there.flatten()] for layer in output.get("router_logits") or ()])
        return torch.stack(nats).sum(), self._routing(routers)

    def tells_its_loss(self) -> bool:
        """Whether `told_nats` is there: documents are kept apart, and the loss is made without logits. A collective."""
        return self._of_hidden and self.keeps_documents_apart()

    def told_nats(
        self, tokens: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, Told]:
        """The same sum, and what else is told of the targets; no routers."""
        output = self._run(input_ids=tokens, targets=targets, tells=True, **self._places(positions))
        return output.nats, output.told

    def outputs(self, tokens: torch.Tensor, positions: torch.Tensor) -> tuple[CausalLMOutputWithPast, Routing | None]:
        """As transformers gives them, for a loss of the user's; and what the routers did."""
        wanted = self._wanted()
        logits, routers = self._logits_and_routers(tokens, positions, **wanted)
        return CausalLMOutputWithPast(logits=logits), self._routing(routers)

    def _wanted(self) -> dict[str, Any]:
        """What the model is asked for beside its loss; before the first pass it is known how it takes documents."""
        self.keeps_documents_apart()
        return {} if self._experts_per_token is None else {"output_router_logits": True}

    def _routing(self, routers: Sequence[Sequence[torch.Tensor]]) -> Routing | None:
        """Of the passes that a batch took, each with its layers. None where the family shows no router."""
        experts = self._experts_per_token
        if experts is None or not any(routers):
            return None
        mean = self._shared.mean if self._shared else None
        return routing(tuple(map(torch.cat, zip(*routers, strict=True))), experts, mean)

    def keeps_documents_apart(self) -> bool:
        """Whether several in a row see nothing of each other; a collective."""
        if not self._asked:
            self._ask()
        return not self._apart

    def _ask(self) -> None:
        """Whether documents need rows of their own, of the model itself, where no test has seen its family."""
        training, self._asked = self.model.training, True
        self.model.eval()
        tokens = innermost(self.model).get_input_embeddings().num_embeddings  # type: ignore[operator]
        self._apart = self.group.any(leaks(self._packed_logits, tokens, self.group.device))
        self.model.train(training)

    def compare_compiled(self, layers: CompiledLayers, rows: int, length: int, alive: Callable[[], None]) -> Seconds:
        """Of micro-batches whose rows are one document, and two: attention has a mask for the latter alone.

        No weight and no gradient changes, and no other rank is asked. Raises what `CompiledLayers.compare` raises.
        """
        positions = torch.arange(length, device=self.group.device).expand(rows, -1)
        tokens = positions % innermost(self.model).get_input_embeddings().num_embeddings  # type: ignore[operator]
        dtype, found = torch.bfloat16 if self.bfloat16 else torch.float32, []
        for longest in (length, -(-length // 2)):
            with layers.calls() as calls, torch.no_grad(), torch.random.fork_rng():
                self.nats_alone(tokens, positions % longest, tokens)
            found.append(layers.compare(calls, self._autocast, dtype, alive))
        return Seconds(*map(fmean, zip(*found, strict=True)))

    @property
    def deepspeed(self) -> Any:
        """DeepSpeed's own engine, which TRL's trainers call as their model."""
        return self._engine

    @contextmanager
    def whole(self) -> Iterator[PreTrainedModel]:
        """The model with all its weights on every rank, for text to be written; in evaluation mode.

        With ZeRO-3 the weights are gathered once: a gather for every token would be 90 times slower, and would hang
        where ranks write answers of different lengths.
        """
        import deepspeed
        from trl.models.utils import add_hooks, remove_hooks

        spread = self.settings.zero_stage == 3
        rows = self._shared.whole() if self._shared else nullcontext()
        self.model.eval()
        with deepspeed.zero.GatheredParameters(list(self.model.parameters()), enabled=spread), rows, self._autocast():
            if spread:
                remove_hooks(self._engine)
            yield self.model
            if spread:
                add_hooks(self._engine)
        self.model.train()

    def backward(self, loss: torch.Tensor) -> None:
        """One micro-batch; the last one of a step also sums the gradients over the ranks."""
        self._engine.backward(loss)

    def learn(self, loss: torch.Tensor, *, last: bool) -> bool:
        """A micro-batch whose loss is this one's share of the step's already, as TRL's losses are; after the last one
        the update. False if that was left out because a gradient is not finite.
        """
        self._engine.set_gradient_accumulation_boundary(is_boundary=last)
        self._engine.backward(loss, scale_wrt_gas=False)
        return self.step() if last else True

    def share_of(self, count: float) -> float:
        """Factor of a micro-batch's sum in a mean over the `count` of all micro-batches and ranks.

        DeepSpeed divides by the learners and the micro-batches.
        """
        return self.learners * self._accumulation_steps / count

    @property
    def learners(self) -> int:
        """Ranks over which DeepSpeed takes the mean of gradients: those that share matrices are one."""
        return self.group.world_size // self.settings.tensor_parallel

    def share_rows_by(self, micro_batch_size: int, accumulation_steps: int) -> None:
        """Between two steps: in micro-batches of another size, which are as many rows in all."""
        self.settings = self.settings.model_copy(update={"micro_batch_size": micro_batch_size})
        self._accumulation_steps, engine = accumulation_steps, self._engine
        engine.set_train_micro_batch_size(micro_batch_size)
        engine.set_train_batch_size(micro_batch_size * accumulation_steps * engine.dp_world_size)
        engine.micro_steps = 0  # a step's end is told by its multiples

    def set_learning_rate(self, share: float) -> None:
        """As a share of the peak, for the next step."""
        for peak, group in zip(self._peaks, self._engine.optimizer.param_groups, strict=True):
            group["lr"] = share * peak

    def step(self) -> bool:
        """After each micro-batch; False if the step was left out because a gradient is not finite."""
        last = self._engine.is_gradient_accumulation_boundary()
        if last and self._plain and self._has_bad_gradients():
            self._engine.zero_grad()
            self._engine.micro_steps += 1  # which DeepSpeed's step would count, but it can't clip what isn't there
            return False
        self._engine.step()
        return not last or self._engine.was_step_applied()

    @property
    def gradient_norm(self) -> float:
        """Of the last step, before clipping."""
        norm = self._engine.get_global_grad_norm()
        return float(norm) if norm is not None else math.nan

    def save(self, snapshot: Snapshot, name: str = "") -> None:
        """What is trained, and the rest of the model only if there is no other copy of it; in a folder ``name``."""
        if self._has_frozen:
            leave_out_frozen(self._engine)
        folder = str(snapshot.folder / name)
        with saving_into(self._engine, snapshot):
            self._engine.save_checkpoint(folder, tag=TAG, exclude_frozen_parameters=self._has_frozen)

    def load(self, folder: Path) -> None:
        """Whatever number of processes has written it."""
        with reading(self._engine, folder / TAG, self.group.rank, self.group.world_size):
            loaded, _ = self._engine.load_checkpoint(str(folder), tag=TAG, load_module_strict=not self._has_frozen)
        if loaded is None:
            raise RuntimeError(f"DeepSpeed found nothing to load in {folder}")

    def weights(self) -> Weights:
        """All that the model is. Within `at_rest`."""
        state = self.model.state_dict(keep_vars=True)
        if expert_parallel(self.settings) > 1:
            state = stored_experts(self.model, state)
        if self.settings.tensor_parallel > 1:
            state = stored_matrices(self.model, state)
        return Weights(self.model, state, self.group)

    def trained_state(self) -> dict[str, torch.Tensor]:
        """What is trained of a model with an adapter, on CPU, on every process. Within `at_rest`."""
        trained = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        with whole(trained.values()):
            return {name: weight.detach().to("cpu", copy=True) for name, weight in trained.items()}

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """While spread weights are gathered outside of a step: none is whole before. A collective."""
        optimizer = self._engine.optimizer
        spread = self.settings.zero_stage == 3
        if spread:
            optimizer.checkpoint_event_prologue()
        yield
        if spread:
            optimizer.checkpoint_event_epilogue()

    def _has_bad_gradients(self) -> bool:
        """ZeRO 1 to 3 leave such a step out by themselves, ZeRO 0 would put NaN into the weights."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        finite = [torch.isfinite(gradient).all() for gradient in gradients]
        return bool(finite) and not bool(torch.stack(finite).all())  # read once: a GPU would have to wait for each


def as_the_spread(module: Module, dtype: torch.dtype) -> None:
    """Weights that came to a spread model, as an adapter's do, get its type: DeepSpeed refuses a mixture."""
    if any(is_spread(parameter) for parameter in module.parameters()):
        for parameter in module.parameters():
            if not is_spread(parameter):
                parameter.data = parameter.data.to(dtype)


def leave_out_frozen(engine: Any) -> None:
    """DeepSpeed leaves frozen weights out of a checkpoint, but not under the second name of tied ones."""
    frozen = {name for name, p in engine.module.named_parameters(remove_duplicate=False) if not p.requires_grad}
    whole = type(engine).module_state_dict

    def state(*arguments: Any, **named: Any) -> dict[str, Any]:
        return {name: value for name, value in whole(engine, *arguments, **named).items() if name not in frozen}

    engine.module_state_dict = state
