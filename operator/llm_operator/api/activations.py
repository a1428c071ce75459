"""What the layers of a model keep between forward and backward: activations, by closed formulas. Pure.

Counted as Korthikanti et al. 2022 ("Reducing Activation Recomputation in Large Transformer Models", section 4) count
them, for the layers as transformers writes them: what autograd saves of each operation, each tensor once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from llm_operator.api.families import FAMILIES, ModelSize, size_by_formula, without_nulls
from llm_trainer.config import Architecture

Kernel = Literal["flash", "sdpa", "eager"]


@dataclass(frozen=True)
class Layer:
    """Elements of one token, in each of ``count`` like layers."""

    count: int
    width: int  # of the hidden state between layers
    norms: int  # what enters the norms
    inputs: int  # of products and of attention, beside what the norms give
    shared: int = 0  # keys and values
    repeated: int = 0  # the same, as wide as the queries: attention by a mask wants them so
    heads: int = 0
    scan: int = 0  # of a state-space model's scan, in float32 always
    states: int = 0  # of it, whose products want a copy in bfloat16
    fused_norms: bool = False  # on CPU too: torch's LayerNorm


@dataclass(frozen=True)
class Arithmetic:
    """How a stage computes. On a GPU half means weights in bfloat16, on CPU products alone."""

    half: bool
    gpu: bool
    kernel: Kernel

    @property
    def item(self) -> int:
        """Bytes of an element in products."""
        return 2 if self.half else 4


def kernel_of(architecture: Architecture, *, half: bool, gpu: bool) -> Kernel:
    """As the trainer chooses (models/attention.py), where flash-attn isn't there."""
    if architecture.family == "deepseek_v3" and not gpu:
        return "eager"  # values narrower than the keys: torch's CPU kernel keeps the scores, as eager does
    plain = architecture.family not in ("gpt2", "deepseek_v3")  # dropout; values narrower than the keys
    return "flash" if gpu and half and plain else "sdpa"


def bytes_per_token(layer: Layer, how: Arithmetic, length: int, tensor_parallel: int = 1) -> float:
    """Of one layer. ``length``: of a row."""
    if how.half and not how.gpu:
        # autocast: norms in float32, and a copy in bfloat16 for each product that reads one (3 of attention, 2 of MLP)
        norms = layer.norms * (4 * 2 + 2 * 2.5)
    else:
        norms = layer.norms * how.item * (2 if how.gpu or layer.fused_norms else 3)
    keys = layer.shared if how.kernel == "flash" else layer.repeated
    scores = 0
    if layer.heads and how.kernel == "sdpa":
        scores = length * how.item  # the mask of the packed row
    elif layer.heads and how.kernel == "eager":
        scores = layer.heads * length * (6 if how.half else 4)  # the softmax in float32, and as products want it
    scan = 4 * layer.scan + (2 * layer.states if how.half else 0)
    return norms + (how.item * (layer.inputs + keys) + scan) / tensor_parallel + scores


@dataclass(frozen=True)
class Activations:
    """Bytes of one micro-batch."""

    all_layers: float
    largest_layer: float
    between_layers: float  # the hidden states alone, which activation checkpointing keeps
    spread: float = 0.0  # that the backward pass of a scan in plain torch takes at once, and gives back

    def kept(self, *, made_again: bool) -> int:
        """At most, at the beginning of the backward pass; with the gradients of one layer's: about half of it, or what
        its scan spreads.

        ``made_again``: activation checkpointing (Chen et al. 2016), a layer at a time.
        """
        layers = self.between_layers + self.largest_layer if made_again else self.all_layers
        return round(layers + max(self.largest_layer / 2, self.spread))


def activations(
    architecture: Architecture, how: Arithmetic, tokens: float, length: int, tensor_parallel: int = 1
) -> Activations | None:
    """None for a family whose layers are not known here. ``tokens``: of a forward pass of one process."""
    if architecture.family not in FAMILIES:
        return None
    layers = [layer for layer in layers_of(architecture) if layer.count]
    each = [bytes_per_token(layer, how, length, tensor_parallel) for layer in layers]
    residual = how.item if how.gpu else 4
    return Activations(
        all_layers=tokens * sum(layer.count * size for layer, size in zip(layers, each, strict=True)),
        largest_layer=tokens * max(each),
        between_layers=tokens * sum(layer.count * layer.width * residual for layer in layers),
        spread=tokens * scan_spread(architecture, length, gpu=how.gpu) / tensor_parallel,
    )


# --- the layers of each family -------------------------------------------------------------------------------------


def layers_of(architecture: Architecture) -> Iterator[Layer]:
    keys = FAMILIES[architecture.family].resolve(architecture.config)
    given = without_nulls(architecture.config)
    match architecture.family:
        case "gpt2":
            yield gpt2_layer(keys)
        case "mamba" | "mamba2":
            yield mamba_layer(architecture.family, keys, keys["num_hidden_layers"])
        case "jamba":
            yield from jamba_layers(keys, size_by_formula(architecture, 1))
        case family:
            yield from decoder_layers(family, keys, given, size_by_formula(architecture, 1))


def gpt2_layer(keys: dict[str, Any]) -> Layer:
    """Its GELU is written in plain operations, so five tensors as wide as the MLP are kept."""
    width = keys["n_embd"]
    inner = keys["n_inner"] or 4 * width
    kept = width + 5 * inner + width  # queries, the MLP's, attention's output
    return Layer(keys["n_layer"], width, 2 * width, kept, 2 * width, 2 * width, heads=keys["n_head"], fused_norms=True)


def decoder_layers(family: str, keys: dict[str, Any], given: dict[str, Any], size: ModelSize) -> Iterator[Layer]:
    """Attention, then a gated MLP of four tensors (gate, its activation, up, their product) or experts."""
    layers, width = keys["num_hidden_layers"], keys["hidden_size"]
    norms, inputs, shared, repeated = attention_elements(family, keys, given)
    heads = keys["num_attention_heads"]
    expert_inner = keys["intermediate_size"] if family == "mixtral" else keys.get("moe_intermediate_size", 0)
    experts = keys.get("num_local_experts") or keys.get("n_routed_experts") or 0
    with_experts = size.routed // (3 * width * expert_inner * experts) if size.routed else 0
    chosen = keys.get("num_experts_per_tok", 0)
    common = 4 * expert_inner * keys.get("n_shared_experts", 0) if family == "deepseek_v3" else 0
    routed = chosen * (4 * expert_inner + 2 * width) + common + 3 * experts
    for count, mlp in ((layers - with_experts, 4 * keys["intermediate_size"]), (with_experts, routed)):
        yield Layer(count, width, norms + 2 * width, inputs + mlp, shared, repeated, heads)


def attention_elements(family: str, keys: dict[str, Any], given: dict[str, Any]) -> tuple[int, int, int, int]:
    """What enters norms of its own; queries and output; keys and values; these as wide as the queries."""
    width, heads = keys["hidden_size"], keys["num_attention_heads"]
    if family == "deepseek_v3":
        key, value = keys["qk_nope_head_dim"] + keys["qk_rope_head_dim"], keys["v_head_dim"]
        ranks = (keys["q_lora_rank"] or 0) + keys["kv_lora_rank"]
        return ranks, heads * (key + value), heads * (key + value), heads * (key + value)
    shared = (given.get("num_key_value_heads") or heads) if family == "llama" else keys["num_key_value_heads"] or heads
    size = (keys.get("head_dim") if family == "qwen3" else given.get("head_dim")) or width // heads
    own_norms = (heads + shared) * size if family.startswith("qwen3") else 0
    return own_norms, 2 * heads * size, 2 * shared * size, 2 * heads * size


def mamba_layer(family: str, keys: dict[str, Any], count: int, mlp: int = 0) -> Layer:
    """Gu and Dao 2023; Dao and Gu 2024. By transformers' plain torch, which takes far more than their kernels."""
    width = keys["hidden_size"]
    if family == "mamba2":
        inner, heads = int(keys["expand"] * width), keys["num_heads"]
        scan = 3 * heads * keys["chunk_size"] + 5 * heads * keys["state_size"]
        return Layer(count, width, width, round(12.5 * inner), scan=scan)
    inner = keys["mamba_expand"] * width if family == "jamba" else keys["expand"] * width
    state = keys["mamba_d_state"] if family == "jamba" else keys["state_size"]
    norms = 2 * width if family == "jamba" else width
    states = int(inner) * state
    return Layer(count, width, norms, 10 * int(inner) + mlp, scan=3 * states, states=states)


def scan_spread(architecture: Architecture, length: int, *, gpu: bool) -> float:
    """Bytes a token, in float32, of plain torch.

    Mamba goes back a token at a time, and each makes a tensor as large as all states for its gradients: one more beside
    the sums of those of the states' factors and of their inputs. Mamba2 makes products of (chunk or head, heads, state)
    for each token, and of each two chunks of a row, and their gradients.
    """
    if architecture.family not in ("mamba", "mamba2", "jamba"):
        return 0.0
    if architecture.family != "mamba2":
        return float(4 * 3 * max(layer.states for layer in layers_of(architecture)))
    keys = FAMILIES["mamba2"].resolve(architecture.config)
    if gpu:
        return float(4 * GPU_SPREAD * keys["chunk_size"] * keys["num_heads"] * keys["state_size"])
    chunks = -(-length // keys["chunk_size"]) + 1  # with what is before the first
    widest = max(keys["chunk_size"], keys["head_dim"], chunks**2 / length * keys["head_dim"])
    return float(4 * 2 * widest * keys["num_heads"] * keys["state_size"])


GPU_SPREAD = 10  # of such tensors at once, as docs/figures.md has it of a GPU


def jamba_layers(keys: dict[str, Any], size: ModelSize) -> Iterator[Layer]:
    """Counted by kind: attention or Mamba, each with an MLP; the experts' share is spread over all of them."""
    layers, width, heads = keys["num_hidden_layers"], keys["hidden_size"], keys["num_attention_heads"]
    inner, experts = keys["intermediate_size"], keys["num_experts"]
    attending = size.attention_width // (heads * (width // heads))
    routed = size.routed // (3 * width * inner * experts) if size.routed else 0
    dense, chosen = 4 * inner, keys["num_experts_per_tok"] * (4 * inner + 2 * width) + 3 * experts
    mlp = ((layers - routed) * dense + routed * chosen) // layers
    shared = 2 * (keys["num_key_value_heads"] or heads) * (width // heads)
    yield Layer(attending, width, 2 * width, 2 * width + mlp, shared, 2 * width, heads)
    yield mamba_layer("jamba", keys, layers - attending, mlp)
