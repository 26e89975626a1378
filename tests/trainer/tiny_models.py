"""Tiny random models in diffusers' layout, built from configurations alone: the shapes of the real ones, no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.byte_pairs import train_bpe

TEXT = [
    "draw the depth of this picture",
    "Paint every cat red and leave the rest black",
    "#ff0000 (0, 0, 255) 0123456789",
]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT_TOKENS = 128
SMALL_VAE: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": (16, 32),
    "norm_num_groups": 8,
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]


def tokenizer(length: int = TEXT_TOKENS, special: list[str] = SPECIAL) -> Any:
    """A byte-level BPE tokenizer trained on three lines."""
    return PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(TEXT, 320, special),
        eos_token=special[0],
        pad_token=special[0],
        model_max_length=length,
        chat_template=CHAT,
        extra_special_tokens=special[1:],
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The scheduler settings of the FLUX family."""
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, shift=3.0)


def klein_transformer() -> Flux2Transformer2DModel:
    """The transformer of `write_klein`: 2 + 2 blocks."""
    torch.manual_seed(1)
    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=96,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )


def kontext_transformer() -> FluxTransformer2DModel:
    """The transformer of `write_kontext`: 1 + 1 blocks, with guidance."""
    torch.manual_seed(1)
    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )


def qwen_transformer() -> QwenImageTransformer2DModel:
    """The transformer of `write_qwen`: one block."""
    torch.manual_seed(1)
    return QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    )


def write_klein(folder: Path) -> Flux2KleinPipeline:
    """FLUX.2 Klein with 2 + 2 blocks; 30 text layers, of which it reads states 9, 18 and 27."""
    torch.manual_seed(0)
    words = tokenizer()
    vae = AutoencoderKLFlux2(**SMALL_VAE)
    vae.bn.running_mean.normal_(0, 0.3)
    vae.bn.running_var.uniform_(0.5, 2)
    text = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=30,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=1024,
        )
    )
    transformer = klein_transformer()
    pipeline = Flux2KleinPipeline(scheduler(), vae, text, words, transformer)
    pipeline.save_pretrained(folder)
    return pipeline


def write_kontext(folder: Path) -> FluxKontextPipeline:
    """FLUX.1 Kontext with 1 + 1 blocks and guidance embeddings."""
    torch.manual_seed(0)
    words, clip_words = tokenizer(), tokenizer(24)
    vae = AutoencoderKL(
        **SMALL_VAE,
        shift_factor=0.12,
        scaling_factor=0.36,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_words),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=24,
            eos_token_id=0,
            bos_token_id=1,
            pad_token_id=0,
        )
    )
    t5 = T5EncoderModel(T5Config(vocab_size=len(words), d_model=32, d_kv=16, d_ff=32, num_layers=2, num_heads=2))
    transformer = kontext_transformer()
    pipeline = FluxKontextPipeline(scheduler(), vae, clip.eval(), clip_words, t5.eval(), words, transformer)
    pipeline.save_pretrained(folder)
    return pipeline


def write_qwen(folder: Path) -> None:
    """Qwen-Image-Edit-Plus with one block; its pipeline class cannot be made without torchvision, its folder can."""
    torch.manual_seed(0)
    words = tokenizer(1024)
    ids = {name: words.convert_tokens_to_ids(name) for name in SPECIAL}
    text = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(words),
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "max_position_embeddings": 1024,
                "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
            },
            vision_config={
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_heads": 2,
                "out_hidden_size": 32,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "fullatt_block_indexes": [1],
                "window_size": 56,
            },
            image_token_id=ids["<|image_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
        )
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.0, 1.2],
    )
    transformer = qwen_transformer()
    levels = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )
    parts = {"text_encoder": text, "vae": vae, "transformer": transformer, "tokenizer": words, "scheduler": levels}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=28 * 28 * 1280).save_pretrained(folder / "processor")
    (folder / "model_index.json").write_text('{"_class_name": "QwenImageEditPlusPipeline"}')
