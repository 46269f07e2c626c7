"""What each family makes of its own fields: which layers, in which order, with which blocks."""

from __future__ import annotations

from typing import Any

import pytest

from costmodel.catalog.models import load_model
from costmodel.huggingface import model_from_config
from costmodel.parameters import count_layer, count_model
from costmodel.schema.errors import InvalidSpec
from costmodel.schema.model import (
    AttentionBlock,
    LayerKind,
    LinearAttentionBlock,
    Mamba2Block,
    MLABlock,
    MLPBlock,
    ModelSpec,
    MoEBlock,
)

SHAPE = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "vocab_size": 100, "max_position_embeddings": 256,
}  # fmt: skip


def read(model_type: str, **fields: Any) -> ModelSpec:
    return model_from_config({**SHAPE, "model_type": model_type, **fields}, "m")


def runs(spec: ModelSpec) -> list[tuple[str, int]]:
    return [(run.kind, run.count) for run in spec.runs]


def kind(spec: ModelSpec, name: str) -> LayerKind:
    return next(entry for entry in spec.kinds if entry.name == name)


def attention(spec: ModelSpec, name: str | None = None) -> AttentionBlock:
    layer = spec.kinds[0] if name is None else kind(spec, name)
    block = next(block for block in layer.blocks if isinstance(block, AttentionBlock))
    return block


def experts(spec: ModelSpec, name: str) -> MoEBlock:
    return next(block for block in kind(spec, name).blocks if isinstance(block, MoEBlock))


@pytest.mark.parametrize(
    ("model_type", "qkv_bias", "out_bias", "qk_norm"),
    [
        ("llama", False, False, "none"),
        ("mistral", False, False, "none"),
        ("qwen2", True, False, "none"),
        ("qwen3", False, False, "head"),
        ("olmo2", False, False, "hidden"),
        ("gpt_neox", True, True, "none"),
        ("starcoder2", True, True, "none"),
        ("phi", True, True, "none"),
        ("phi3", False, False, "none"),
        ("nemotron", False, False, "none"),
    ],
)
def test_biases_and_norms_of_attention(model_type: str, qkv_bias: bool, out_bias: bool, qk_norm: str) -> None:
    block = attention(read(model_type))
    assert (block.qkv_bias, block.out_bias, block.qk_norm) == (qkv_bias, out_bias, qk_norm)


@pytest.mark.parametrize(
    ("model_type", "norm", "gated", "tied"),
    [
        ("llama", "rmsnorm", True, False),
        ("gemma", "rmsnorm", True, True),
        ("nemotron", "layernorm", False, False),
        ("olmo", "unparametrised", True, False),
        ("stablelm", "layernorm", True, False),
        ("phi", "layernorm", False, False),
        ("gpt_neox", "layernorm", False, False),
        ("smollm3", "rmsnorm", True, True),
        ("granite", "rmsnorm", True, False),
    ],
)
def test_norm_gate_and_tying(model_type: str, norm: str, gated: bool, tied: bool) -> None:
    spec = read(model_type)
    block = next(block for block in spec.kinds[0].blocks if isinstance(block, MLPBlock))
    assert (spec.norm, block.gated, spec.tie_word_embeddings) == (norm, gated, tied)


@pytest.mark.parametrize(
    ("model_type", "fields", "norms"),
    [
        ("phi", {}, (1, 0)),
        ("gpt_neox", {}, (1, 1)),
        ("stablelm", {"use_parallel_residual": True}, (1, 0)),
        ("falcon", {}, (1, 0)),
        ("falcon", {"new_decoder_architecture": True}, (1, 1)),
        ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1}, (1, 0)),
    ],
)
def test_parallel_branches_share_a_norm_or_not(model_type: str, fields: dict[str, Any], norms: tuple[int, ...]) -> None:
    layer = read(model_type, **fields).kinds[0]
    assert layer.parallel
    assert tuple(block.norms for block in layer.blocks) == norms


def test_falcons_key_value_heads() -> None:
    assert attention(read("falcon")).num_key_value_heads == 1
    assert attention(read("falcon", multi_query=False)).num_key_value_heads == 4
    assert attention(read("falcon", new_decoder_architecture=True, num_kv_heads=2)).num_key_value_heads == 2


@pytest.mark.parametrize(
    ("model_type", "fields", "expected"),
    [
        ("mistral", {"sliding_window": 32}, [("sliding_window", 4)]),
        ("mistral", {"sliding_window": None}, [("dense", 4)]),
        ("gemma2", {"sliding_window": 32}, [("sliding_window", 1), ("full_attention", 1)] * 2),
        (
            "gemma3_text",
            {"sliding_window": 32, "num_hidden_layers": 7},
            [("sliding_window", 5), ("full_attention", 1), ("sliding_window", 1)],
        ),
        ("olmo3", {"sliding_window": 32}, [("sliding_window", 3), ("dense", 1)]),
        (
            "gpt_oss",
            {"num_local_experts": 4, "num_experts_per_tok": 2},
            [("sliding_window", 1), ("full_attention", 1)] * 2,
        ),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 32, "max_window_layers": 3},
            [("dense", 3), ("sliding_window", 1)],
        ),
        ("gpt_neo", {"window_size": 32}, [("dense", 1), ("sliding_window", 1)] * 2),
    ],
)
def test_windowed_layers(model_type: str, fields: dict[str, Any], expected: list[tuple[str, int]]) -> None:
    spec = read(model_type, **fields)
    assert runs(spec) == expected
    for name, _ in expected:
        assert (attention(spec, name).sliding_window is not None) == (name == "sliding_window")


def test_layer_types_override_the_pattern() -> None:
    types = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    spec = read("gemma2", sliding_window=32, layer_types=types)
    assert runs(spec) == [("full_attention", 1), ("sliding_window", 2), ("full_attention", 1)]


DEEPSEEK = {
    "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 2,
    "first_k_dense_replace": 1,
}  # fmt: skip


def test_deepseek_v3() -> None:
    spec = read("deepseek_v3", **DEEPSEEK, topk_method="noaux_tc", num_nextn_predict_layers=1)
    assert runs(spec) == [("dense", 1), ("moe", 3), ("mtp", 1)]
    block = experts(spec, "moe")
    assert (block.shared_intermediate_size, block.router_bias) == (64, True)
    mtp = kind(spec, "mtp")
    assert mtp.mtp
    entry_params = 2 * 64 * 64 + 3 * 64
    assert count_layer(mtp, spec).total == entry_params + count_layer(kind(spec, "moe"), spec).total
    assert spec.num_layers == 5


def test_deepseek_without_query_compression_or_prediction() -> None:
    spec = read("deepseek_v2", **{**DEEPSEEK, "q_lora_rank": None})
    block = kind(spec, "moe").blocks[0]
    assert isinstance(block, MLABlock)
    assert block.q_lora_rank is None
    assert runs(spec) == [("dense", 1), ("moe", 3)]


def test_the_first_deepseek_moe_attends_plainly() -> None:
    fields = {name: value for name, value in DEEPSEEK.items() if "lora" not in name and "head_dim" not in name}
    assert isinstance(kind(read("deepseek", **fields), "moe").blocks[0], AttentionBlock)


def test_sparse_attentions_indexer_is_extra() -> None:
    plain, sparse = read("deepseek_v3", **DEEPSEEK), read("deepseek_v32", **DEEPSEEK, index_n_heads=2, index_head_dim=8)
    added = count_model(sparse).total - count_model(plain).total
    assert added == 4 * (24 * 2 * 8 + 64 * 8 + 2 * 8 + 64 * 2)


def test_qwen_moe_mixes_dense_layers_in() -> None:
    fields = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    every_second = read("qwen2_moe", **fields, decoder_sparse_step=2, shared_expert_intermediate_size=48)
    assert runs(every_second) == [("dense", 1), ("moe", 1)] * 2
    assert experts(every_second, "moe").shared_gate
    named = read("qwen3_moe", **fields, mlp_only_layers=[0, 1])
    assert runs(named) == [("dense", 2), ("moe", 2)]
    assert not experts(named, "moe").shared_gate


def test_qwen_next_alternates_linear_and_full_attention() -> None:
    spec = load_model("qwen3-next-80b-a3b")
    assert runs(spec) == [("linear_attention", 3), ("full_attention", 1)] * 12
    assert attention(spec, "full_attention").output_gate
    assert isinstance(kind(spec, "linear_attention").blocks[0], LinearAttentionBlock)


def test_qwen_hybrid_without_experts_has_mlps() -> None:
    spec = load_model("qwen3.5-9b")
    assert all(isinstance(entry.blocks[1], MLPBlock) for entry in spec.kinds)


def test_llama4_interleaves_experts_and_global_layers() -> None:
    fields = {
        "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 256, "interleave_moe_layer_step": 2,
        "attention_chunk_size": 32,
    }  # fmt: skip
    spec = read("llama4_text", **fields)
    assert runs(spec) == [("chunked_dense", 1), ("chunked_moe", 1), ("chunked_dense", 1), ("global_moe", 1)]
    assert attention(spec, "chunked_moe").sliding_window == 32
    assert not attention(spec, "global_moe").rotary
    assert experts(spec, "global_moe").shared_intermediate_size == 128


def test_nemotron_h_reads_its_pattern() -> None:
    fields = {
        "hybrid_override_pattern": "MM*E-", "num_hidden_layers": 5, "mamba_num_heads": 8, "mamba_head_dim": 16,
        "ssm_state_size": 16, "n_groups": 2, "n_routed_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 48, "moe_latent_size": 16,
    }  # fmt: skip
    spec = read("nemotron_h", **fields)
    assert runs(spec) == [("mamba2", 2), ("attention", 1), ("moe", 1), ("mlp", 1)]
    assert all(len(entry.blocks) == 1 for entry in spec.kinds)
    assert not attention(spec, "attention").rotary
    assert experts(spec, "moe").latent_size == 16
    with pytest.raises(InvalidSpec, match="hybrid_override_pattern = 'MX'"):
        read("nemotron_h", **{**fields, "hybrid_override_pattern": "MX"})
    with pytest.raises(InvalidSpec, match="names 5 layers"):
        read("nemotron_h", **{**fields, "num_hidden_layers": 4})


def test_jamba_places_attention_and_experts() -> None:
    spec = load_model("jamba-1.5-mini")
    names = [spec.kinds[index].name for index in spec.layer_kinds()]
    assert [index for index, name in enumerate(names) if name.startswith("attention")] == [4, 12, 20, 28]
    assert [index for index, name in enumerate(names) if name.endswith("moe")] == list(range(1, 32, 2))


def test_mamba2_heads_must_fill_the_inner_width() -> None:
    spec = read("mamba2", num_heads=8, head_dim=16, n_groups=1)
    assert isinstance(spec.kinds[0].blocks[0], Mamba2Block)
    with pytest.raises(InvalidSpec, match="num_heads = 4"):
        read("mamba2", num_heads=4, head_dim=16)


def test_mambas_automatic_rank_rounds_up() -> None:
    automatic = read("mamba", hidden_size=40, time_step_rank="auto")
    assert automatic.kinds == read("mamba", hidden_size=40, time_step_rank=3).kinds


def test_jet_nemotron_generates_its_convolution() -> None:
    fields = {
        "layer_types": ["jet", "jet", "swa", "attn"],
        "efficient_attention_config": {
            "jet": {"num_heads": 2, "head_dim": 16, "expand_v": 2.0, "conv_size": 4, "dconv_generator_reduction": 8},
            "swa": {"window_size": 32},
        },
    }
    spec = read("jet_nemotron", **fields)
    assert runs(spec) == [("linear_attention", 2), ("sliding_window", 1), ("full_attention", 1)]
    assert kind(spec, "linear_attention").extra_params == 8 * 64 + 8 * (4 * 64) + 4 * 64
    with pytest.raises(InvalidSpec, match="layer_types is missing"):
        read("jet_nemotron")


def test_bloom_norms_its_embedding_and_has_no_rotary() -> None:
    spec = read("bloom", n_layer=4)
    assert spec.embedding_norms == 1
    assert spec.rope_theta is None
    assert not attention(spec).rotary


def test_opt_has_two_more_position_rows_and_one_width() -> None:
    assert read("opt", ffn_dim=128).learned_positions == 258
    with pytest.raises(InvalidSpec, match="word_embed_proj_dim = 32"):
        read("opt", ffn_dim=128, word_embed_proj_dim=32)


def test_mpts_biases_and_positions() -> None:
    shape = {"model_type": "mpt", "d_model": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 100, "max_seq_len": 128}
    released = model_from_config(shape, "m")
    trained = model_from_config({**shape, "no_bias": False, "attn_config": {"alibi": False, "attn_pdrop": 0.1}}, "m")
    assert (released.norm, released.learned_positions, attention(released).qkv_bias) == ("layernorm_no_bias", 0, False)
    assert (trained.norm, trained.learned_positions, attention(trained).qkv_bias) == ("layernorm", 128, True)
    assert trained.attention_dropout == 0.1


def test_gpt2_drops_out_and_counts_positions() -> None:
    spec = load_model("gpt2")
    assert (spec.hidden_dropout, spec.attention_dropout, spec.learned_positions) == (0.1, 0.1, 1024)
    assert spec.tie_word_embeddings


def test_gpt_neos_attention_types() -> None:
    spec = read("gpt_neo", attention_types=[[["global"], 3], [["local"], 1]])
    assert runs(spec) == [("dense", 3), ("sliding_window", 1)]
    with pytest.raises(InvalidSpec, match="attention_types"):
        read("gpt_neo", attention_types=[[["global"], 3]])


def test_t5_has_an_encoder_and_a_decoder_that_looks_across() -> None:
    spec = load_model("t5-small")
    assert runs(spec) == [("encoder", 6), ("decoder", 6)]
    assert kind(spec, "encoder").encoder
    own, across = (block for block in kind(spec, "decoder").blocks if isinstance(block, AttentionBlock))
    assert (own.causal, own.cross, across.causal, across.cross) == (True, False, False, True)
    gated = load_model("flan-t5-xxl")
    assert all(block.gated for block in kind(gated, "encoder").blocks if isinstance(block, MLPBlock))


@pytest.mark.parametrize(
    ("architecture", "head", "extra"),
    [
        ("BertModel", False, 2 * 64 + 64 * 65),
        ("BertForMaskedLM", True, 2 * 64 + 64 * 65 + 128),
        ("BertForPreTraining", True, 2 * 64 + 2 * 64 * 65 + 128 + 130),
    ],
)
def test_what_sits_on_bert(architecture: str, head: bool, extra: int) -> None:
    spec = read("bert", architectures=[architecture])
    assert (spec.has_head, spec.extra_params) == (head, extra)
    assert not attention(spec).causal


def test_vit_has_a_token_per_patch_and_one_more() -> None:
    spec = read("vit", image_size=32, patch_size=8, num_labels=10)
    assert spec.learned_positions == 17
    assert spec.extra_params == 3 * 8 * 8 * 64 + 64 + 64 + 65 * 10
    assert count_model(spec).head == 0
    labelled = read("vit", image_size=32, patch_size=8, id2label={str(label): "" for label in range(10)})
    assert labelled == spec
    with pytest.raises(InvalidSpec, match="image_size = 30"):
        read("vit", image_size=30, patch_size=8)


def test_llava_trains_behind_a_frozen_tower() -> None:
    tower = {"model_type": "clip_vision_model", "image_size": 32, "patch_size": 8}
    config = {"model_type": "llava", "text_config": SHAPE | {"model_type": "llama"}, "vision_config": SHAPE | tower}
    spec, text = model_from_config(config, "m"), read("llama")
    (part,) = spec.frozen_parts
    assert part.seq_len == 17
    assert part.model.trains == "frozen"
    assert part.model.embedding_norms == 1
    assert part.model.extra_params == 3 * 8 * 8 * 64 + 64
    assert count_model(spec).total == count_model(text).total + 2 * 65 * 64
    unknown = {**config, "vision_config": {"model_type": "pixtral"}}
    assert model_from_config(unknown, "m").frozen_parts == ()


def test_chatglm_has_field_names_of_its_own() -> None:
    spec = load_model("glm-4-9b")
    block = attention(spec)
    assert (spec.vocab_size, block.num_key_value_heads, block.qkv_bias, block.out_bias) == (151552, 2, True, False)


def test_glm4_norms_both_sides() -> None:
    fields = {"attention_bias": True}
    assert [block.norms for block in read("glm", **fields).kinds[0].blocks] == [1, 1]
    assert [block.norms for block in read("glm4", **fields).kinds[0].blocks] == [2, 2]


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_more_experts_a_token_than_there_are(model_type: str) -> None:
    counts = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 5}
    with pytest.raises(InvalidSpec, match="num_experts_per_tok = 5"):
        read(model_type, **{**DEEPSEEK, "n_routed_experts": 4, **counts})
