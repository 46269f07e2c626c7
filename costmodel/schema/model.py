"""ModelSpec: a network as an ordered run of layer kinds, each a short list of residual blocks.

Field names are Hugging Face's where Hugging Face has one.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from costmodel.schema.base import Spec

NonNegativeInt = Annotated[int, Field(ge=0)]


class Block(Spec):
    """One residual branch. ``norms`` counts the hidden-size norms that belong to it (pre, post or both)."""

    norms: NonNegativeInt = 1


class AttentionBlock(Block):
    """Softmax attention with grouped keys and values."""

    kind: Literal["attention"] = "attention"
    num_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt
    causal: bool = True
    sliding_window: PositiveInt | None = None
    cross: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: Literal["none", "head", "hidden"] = "none"
    rotary: bool = True
    output_gate: bool = False
    sinks: bool = False


class MLABlock(Block):
    """Multi-head latent attention (DeepSeek-V2): low-rank queries, and keys and values from one latent."""

    kind: Literal["mla"] = "mla"
    num_heads: PositiveInt
    q_lora_rank: PositiveInt | None = None
    kv_lora_rank: PositiveInt
    qk_nope_head_dim: PositiveInt
    qk_rope_head_dim: NonNegativeInt
    v_head_dim: PositiveInt
    causal: bool = True


class Mamba2Block(Block):
    """Mamba-2 state-space mixer. Inner width is num_heads · head_dim."""

    kind: Literal["mamba2"] = "mamba2"
    num_heads: PositiveInt
    head_dim: PositiveInt
    state_size: PositiveInt
    n_groups: PositiveInt
    conv_kernel: PositiveInt = 4
    chunk_size: PositiveInt = 256
    conv_bias: bool = True
    proj_bias: bool = False


class Mamba1Block(Block):
    """Mamba-1 selective scan. ``dt_rank`` is the low rank of the step size."""

    kind: Literal["mamba1"] = "mamba1"
    inner_size: PositiveInt
    state_size: PositiveInt
    dt_rank: PositiveInt
    conv_kernel: PositiveInt = 4
    conv_bias: bool = True
    proj_bias: bool = False
    inner_norms: bool = False


class LinearAttentionBlock(Block):
    """Chunked linear attention with a gate or a delta rule (Gated DeltaNet and its kin)."""

    kind: Literal["linear_attention"] = "linear_attention"
    num_key_heads: PositiveInt
    num_value_heads: PositiveInt
    key_head_dim: PositiveInt
    value_head_dim: PositiveInt
    conv_kernel: NonNegativeInt = 4
    output_gate: bool = True
    chunk_size: PositiveInt = 64


class MLPBlock(Block):
    """Dense feed-forward; ``gated`` has three matrices (SwiGLU, GeGLU), otherwise two."""

    kind: Literal["mlp"] = "mlp"
    intermediate_size: PositiveInt
    gated: bool = True
    bias: bool = False


class MoEBlock(Block):
    """Routed experts, ``experts_per_token`` of ``num_experts``, plus shared ones of a total width.

    ``n_group``, ``topk_group``: a token's experts all lie in ``topk_group`` of ``n_group`` equal groups of experts.
    """

    kind: Literal["moe"] = "moe"
    num_experts: PositiveInt
    experts_per_token: PositiveInt
    intermediate_size: PositiveInt
    gated: bool = True
    bias: bool = False
    shared_intermediate_size: NonNegativeInt = 0
    shared_gate: bool = False
    router_bias: bool = False
    latent_size: PositiveInt | None = None
    n_group: PositiveInt = 1
    topk_group: PositiveInt = 1


class ProjectionBlock(Block):
    """A plain linear map, such as the (2h -> h) projection at the entry of a multi-token-prediction module."""

    kind: Literal["projection"] = "projection"
    in_features: PositiveInt
    out_features: PositiveInt
    bias: bool = False


AnyBlock = Annotated[
    AttentionBlock
    | MLABlock
    | Mamba2Block
    | Mamba1Block
    | LinearAttentionBlock
    | MLPBlock
    | MoEBlock
    | ProjectionBlock,
    Field(discriminator="kind"),
]


class LayerKind(Spec):
    """Layers that are equal in shape. ``parallel``: the blocks read the same normed input (GPT-J, Phi).

    ``extra_params``: parameters of each such layer that no block describes.
    """

    name: str
    blocks: tuple[AnyBlock, ...]
    parallel: bool = False
    encoder: bool = False
    mtp: bool = False
    extra_params: NonNegativeInt = 0


class LayerRun(Spec):
    """``count`` consecutive layers of one kind."""

    kind: str
    count: PositiveInt


class LoRA(Spec):
    """Low-rank adapters on the named linear maps; everything else is frozen."""

    rank: PositiveInt
    targets: tuple[str, ...] = ("q", "k", "v", "o")


class ModelSpec(Spec):
    """A network. ``runs`` in model order; multi-token-prediction layers last, with ``mtp`` set on their kind.

    ``trains``: all parameters, adapters beside frozen ones, or none. ``frozen_parts``: networks that see every sequence
    before this one does.
    """

    name: str
    architecture: str = ""
    hidden_size: PositiveInt
    vocab_size: NonNegativeInt
    max_position_embeddings: PositiveInt | None = None
    tie_word_embeddings: bool = False
    norm: Literal["rmsnorm", "layernorm", "layernorm_no_bias", "unparametrised"] = "rmsnorm"
    norm_eps: float = 1e-5
    activation: str = "silu"
    rope_theta: float | None = 10000.0
    kinds: tuple[LayerKind, ...]
    runs: tuple[LayerRun, ...]
    learned_positions: NonNegativeInt = 0
    embedding_norms: NonNegativeInt = 0
    final_norms: NonNegativeInt = 1
    has_head: bool = True
    head_bias: bool = False
    extra_params: NonNegativeInt = 0
    hidden_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    trains: Literal["full", "frozen"] | LoRA = "full"
    frozen_parts: tuple[FrozenPart, ...] = ()
    published_params: NonNegativeInt | None = None
    published_active_params: NonNegativeInt | None = None
    source: str = ""

    @model_validator(mode="after")
    def _runs_name_kinds(self) -> ModelSpec:
        known = {kind.name for kind in self.kinds}
        for run in self.runs:
            if run.kind not in known:
                raise ValueError(
                    f"runs name the layer kind {run.kind!r}, which kinds does not define ({', '.join(sorted(known))})"
                )
        return self

    @property
    def num_layers(self) -> int:
        """Layers of every kind, multi-token-prediction ones included."""
        return sum(run.count for run in self.runs)

    def layer_kinds(self) -> list[int]:
        """For every layer in model order, the index of its kind in ``kinds``."""
        index = {kind.name: position for position, kind in enumerate(self.kinds)}
        return [index[run.kind] for run in self.runs for _ in range(run.count)]


class FrozenPart(Spec):
    """An encoder beside the trained network: computed forward alone, on data that the network itself has no part in.

    So it may run before the step, or for the next step's data whenever ranks are idle. ``model``: of widths of its own;
    it trains nothing. ``seq_len``: positions of its input, and of its output, for each of the network's sequences.
    """

    model: ModelSpec
    seq_len: PositiveInt

    @model_validator(mode="after")
    def _is_frozen(self) -> FrozenPart:
        if self.model.trains != "frozen" or self.model.frozen_parts:
            raise ValueError(
                f"the frozen part {self.model.name} must have trains = 'frozen', not {self.model.trains!r},"
                " and no frozen parts of its own"
            )
        return self


ModelSpec.model_rebuild()
