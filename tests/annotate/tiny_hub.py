"""Tiny random models of every hub family, built from configurations alone and saved as a download would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordPiece
from tokenizers.processors import TemplateProcessing

from tests.byte_pairs import train_bpe

SPECIAL = [
    "<s>",
    "</s>",
    "<pad>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<image>",
]
WORDS = ["a cat", "a red motorcycle on the road", "Describe this picture in one sentence."]


def bpe(length: int = 77, ends: bool = False) -> Any:
    """A byte-level tokenizer; `ends`: it adds <s> and </s>."""
    made = train_bpe(WORDS, 300, SPECIAL)
    if ends:
        made.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=length,
        extra_special_tokens=SPECIAL[3:],
    )


def bert() -> Any:
    """A lower-case tokenizer of letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789."
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    made = Tokenizer(WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    )


def dinov2(out: list[int]) -> dict[str, Any]:
    """A tiny ViT backbone for DPT-like heads."""
    return {
        "model_type": "dinov2",
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "image_size": 56,
        "patch_size": 14,
        "out_indices": out,
        "reshape_hidden_states": False,
        "apply_layernorm": True,
    }


def depth_anything(folder: Path, metric: bool) -> None:
    config = transformers.DepthAnythingConfig(
        backbone_config=dinov2([1, 2, 3, 4]),
        reassemble_hidden_size=32,
        patch_size=14,
        neck_hidden_sizes=[8, 16, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
        reassemble_factors=[4, 2, 1, 0.5],
        depth_estimation_type="metric" if metric else "relative",
        max_depth=20 if metric else 1,
    )
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(folder)


def depth_pro(folder: Path) -> None:
    vit = {
        "model_type": "dinov2",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "image_size": 16,
        "patch_size": 4,
        "reshape_hidden_states": False,
        "out_indices": [1, 2],
    }
    config = transformers.DepthProConfig(
        fusion_hidden_size=16,
        patch_size=16,
        intermediate_hook_ids=[1, 0],
        intermediate_feature_dims=[16, 16],
        scaled_images_ratios=[0.5, 1.0],
        scaled_images_overlap_ratios=[0.0, 0.25],
        scaled_images_feature_dims=[16, 16],
        merge_padding_value=1,
        use_fov_model=True,
        num_fov_head_layers=0,
        image_model_config=vit,
        patch_model_config=vit,
        fov_model_config=vit,
    )
    transformers.DepthProForDepthEstimation(config).save_pretrained(folder)


def marigold(folder: Path, kind: str) -> None:
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=4,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    vae = diffusers.AutoencoderKL(
        latent_channels=4,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction", beta_schedule="scaled_linear", clip_sample=False
    )
    words = bpe(ends=True)
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
        )
    )
    pipelines: dict[str, Any] = {
        "depth": diffusers.MarigoldDepthPipeline,
        "normals": diffusers.MarigoldNormalsPipeline,
    }
    extra = {"scale_invariant": True, "shift_invariant": True} if kind == "depth" else {"use_full_z_range": True}
    pipelines[kind](
        unet=unet,
        vae=vae,
        scheduler=scheduler,
        text_encoder=text,
        tokenizer=words,
        default_denoising_steps=1,
        default_processing_resolution=32,
        **extra,
    ).save_pretrained(folder)


def sapiens2(folder: Path) -> None:
    config = transformers.Sapiens2Config(
        patch_size=16,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        num_key_value_attention_heads=2,
        num_first_full_attention_layers=1,
        num_last_full_attention_layers=1,
        num_register_tokens=2,
        out_indices=[2],
        num_key_value_heads_per_layer=[2, 2],
        head_config={"upsample_out_channels": [16], "conv_out_channels": [8]},
        num_labels=3,
    )
    transformers.Sapiens2ForNormalEstimation(config).save_pretrained(folder)


def tipsv2(folder: Path, kind: str) -> None:
    config = transformers.Tipsv2DptConfig(
        backbone_config={
            "model_type": "tipsv2_vision_model",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "out_indices": [1, 2, 3, 4],
            "apply_layernorm": True,
            "reshape_hidden_states": False,
        },
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        num_depth_bins=16,
    )
    kinds = {"depth": transformers.Tipsv2DptForDepthEstimation, "normals": transformers.Tipsv2DptForNormalEstimation}
    kinds[kind](config).save_pretrained(folder)


def grounding_dino(folder: Path, mm: bool) -> None:
    words = bert()
    backbone = transformers.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2, out_indices=[2, 3, 4]
    )
    text = {
        "model_type": "bert",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": len(words),
        "max_position_embeddings": 256,
    }
    kind: Any = transformers.MMGroundingDinoConfig if mm else transformers.GroundingDinoConfig
    config = kind(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=12,
        num_feature_levels=4,
        encoder_n_points=2,
        decoder_n_points=2,
    )
    model: Any = transformers.MMGroundingDinoForObjectDetection if mm else transformers.GroundingDinoForObjectDetection
    model(config).save_pretrained(folder)
    words.save_pretrained(folder)


def owlv2(folder: Path) -> None:
    words = bpe(16, ends=True)
    config = transformers.Owlv2Config(
        text_config={
            "vocab_size": len(words),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 16,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
        },
        projection_dim=16,
    )
    transformers.Owlv2ForObjectDetection(config).save_pretrained(folder)
    words.save_pretrained(folder)


def sam2(folder: Path) -> None:
    config = transformers.Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "image_size": [128, 128],
                "blocks_per_stage": [1, 1, 2, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2],
                "global_attention_blocks": [3],
                "window_size_per_stage": [4, 4, 4, 4],
                "window_positional_embedding_background_size": [2, 2],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 8},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 32,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
            "num_hidden_layers": 1,
        },
    )
    transformers.Sam2Model(config).save_pretrained(folder)


def sam3(folder: Path) -> None:
    words = bpe(32, ends=True)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_layers": 1, "num_attention_heads": 2}
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 56,
                "patch_size": 14,
                "window_size": 2,
                "global_attn_indexes": [1],
                "pretrain_image_size": 28,
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        },
        text_config={
            "vocab_size": len(words),
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "projection_dim": 32,
            "max_position_embeddings": 32,
        },
        geometry_encoder_config=small,
        detr_encoder_config=small,
        detr_decoder_config={**small, "num_queries": 8},
        mask_decoder_config={"hidden_size": 32, "num_upsampling_stages": 3, "num_attention_heads": 2},
    )
    transformers.Sam3Model(config).save_pretrained(folder)
    words.save_pretrained(folder)


def florence2(folder: Path) -> None:
    words = bpe(512)
    config = transformers.Florence2Config(
        text_config={
            "model_type": "bart",
            "vocab_size": len(words),
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 16,
            "decoder_ffn_dim": 16,
            "max_position_embeddings": 256,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 2,
            "decoder_start_token_id": 1,
            "forced_eos_token_id": None,
        },
        vision_config={
            "depths": [1, 1, 1, 1],
            "embed_dim": [8, 8, 16, 16],
            "num_heads": [1, 1, 2, 2],
            "num_groups": [1, 1, 2, 2],
            "window_size": 2,
            "projection_dim": 16,
        },
        image_token_id=words.convert_tokens_to_ids("<image>"),
    )
    transformers.Florence2ForConditionalGeneration(config).save_pretrained(folder)
    words.save_pretrained(folder)


def qwen3_vl(folder: Path) -> None:
    words = bpe(1024)
    ids = {name: words.convert_tokens_to_ids(name) for name in SPECIAL}
    config = transformers.Qwen3VLConfig(
        text_config={
            "vocab_size": len(words),
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 4096,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 64,
        },
        image_token_id=ids["<|image_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        video_token_id=len(words) - 1,
    )
    transformers.Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    words.save_pretrained(folder)


BUILDERS: dict[str, Any] = {
    "depth-anything-relative": lambda folder: depth_anything(folder, False),
    "depth-anything-metric": lambda folder: depth_anything(folder, True),
    "depth-pro": depth_pro,
    "marigold-depth": lambda folder: marigold(folder, "depth"),
    "marigold-normals": lambda folder: marigold(folder, "normals"),
    "sapiens2": sapiens2,
    "tipsv2-depth": lambda folder: tipsv2(folder, "depth"),
    "tipsv2-normals": lambda folder: tipsv2(folder, "normals"),
    "grounding-dino": lambda folder: grounding_dino(folder, False),
    "mm-grounding-dino": lambda folder: grounding_dino(folder, True),
    "owlv2": owlv2,
    "sam2": sam2,
    "sam3": sam3,
    "florence2": florence2,
    "qwen3-vl": qwen3_vl,
}


def build(name: str, folder: Path) -> Path:
    """Write one family; the same random weights every time."""
    torch.manual_seed(0)
    BUILDERS[name](folder / name)
    return folder / name
