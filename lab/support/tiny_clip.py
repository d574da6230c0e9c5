"""A tiny random CLIP model in transformers' layout: weights, image processor and a tokenizer of single letters."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer


@lru_cache(maxsize=2)
def write(folder: Path) -> Path:
    """The model's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    torch.manual_seed(7)
    common = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = common | {"vocab_size": len(words), "max_position_embeddings": 77, "eos_token_id": len(words) - 1}
    text |= {"bos_token_id": len(words) - 2, "pad_token_id": len(words) - 1}
    config = CLIPConfig(
        text_config=text, vision_config=common | {"image_size": 32, "patch_size": 8}, projection_dim=24
    )
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessor(**size), tokenizer).save_pretrained(folder)
    return folder
