"""The tiny model as a folder that transformers reads: ``folder.py --out DIRECTORY``, by the interpreter that has it.

Weights, tokenizer and chat template are those of `model.gguf`, in float32, so that every server answers alike.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
FILE = "model.gguf"


def main() -> None:
    """Write the folder; what is in it already is replaced."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    transformers: Any = importlib.import_module("transformers")
    read = transformers.AutoModelForCausalLM.from_pretrained(HERE, gguf_file=FILE)
    config = read.config.to_dict()
    del config["quantization_config"]  # that of the file; here nothing is packed
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config))
    model.load_state_dict(read.state_dict())
    model.save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(HERE, gguf_file=FILE).save_pretrained(out)


if __name__ == "__main__":
    main()
