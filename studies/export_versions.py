"""Whether exported models load in older and newer transformers, and compute the same there.

    python studies/export_versions.py --environments /tmp/transformers --out export_versions.json

Installs each release with pip beside the others (`pip install --target`), which shares the torch of this environment,
exports three tiny models, and in each release loads configuration, tokenizer, image processor and model, renders a
question about a picture, and compares its tokens and the logits of all of them with this program's. Prints a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from infimmr_jax.config import ImageSection, ModelShape
from infimmr_jax.model.config import TokenIds, config_from_shape
from infimmr_jax.model.family import Model
from infimmr_jax.model.hf import save_params
from infimmr_jax.model.rope_scaling import YarnScaling
from infimmr_jax.preprocess import tokenizer as tokenizers
from infimmr_jax.rollout.generate import bucket_batch, load_generator, plan_question

VERSIONS = ("4.49.0", "4.51.3", "4.57.6")
QUESTION = "how many cats are in the picture"
BOUND = 1e-3  # of logits of about 3

# Run in the environment of one release; prints one JSON object.
CHILD = r"""
import json, sys
import numpy as np, torch, transformers
from PIL import Image
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, Qwen2_5_VLForConditionalGeneration
torch.set_num_threads(1)
directory, picture, question = sys.argv[1:4]
found = {"version": transformers.__version__}
try:
    AutoConfig.from_pretrained(directory)
    found["ends"] = GenerationConfig.from_pretrained(directory).eos_token_id
    tokenizer = AutoTokenizer.from_pretrained(directory)
    if transformers.__version__ < "5":
        from transformers import Qwen2VLImageProcessor as Processor
    else:
        from transformers import Qwen2VLImageProcessorPil as Processor
    pixels = Processor.from_pretrained(directory)([Image.open(picture).convert("RGB")], return_tensors="pt")
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    marks = int(pixels["image_grid_thw"].prod()) // 4
    text = text.replace("<|image_pad|>", "<|image_pad|>" * marks)
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(directory, torch_dtype=torch.float32).eval()
    inputs = {**pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if transformers.__version__ >= "5":
        inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).long()
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    found |= {"ids": ids[0].tolist(), "logits": logits.double().tolist()}
    found["special"] = sorted(tokenizer.all_special_tokens)
except Exception as error:
    found["error"] = f"{type(error).__name__}: {error}"[:200]
try:
    from transformers import AutoProcessor
    AutoProcessor.from_pretrained(directory)
    found["processor"] = "yes"
except ImportError:
    # It needs torchvision; what it would read, chat template included, can be read without.
    from transformers.processing_utils import ProcessorMixin
    tree, extra = ProcessorMixin.get_processor_dict(directory)
    template = tree.get("chat_template") or extra.get("chat_template") or ""
    found["processor"] = "its files, without torchvision" if "<|image_pad|>" in template else "no chat template"
except Exception as error:
    found["processor"] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
print("RESULT" + json.dumps(found))
"""


def export_models(folder: Path) -> dict[str, Path]:
    """Export three models: tied with a tokenizer made here, untied with a published class, and one with YaRN."""
    made = tokenizers.train_tokenizer([QUESTION, "what is the sum of the numbers"] * 4, 320)
    folder.mkdir(parents=True, exist_ok=True)
    published = folder / "published"
    tokenizers.save_tokenizer(made, published)
    path = published / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "Qwen2Tokenizer"}))
    ids = {name: made.convert_tokens_to_ids(name) for name in tokenizers.SPECIAL_TOKENS}
    tokens = TokenIds(
        pad=ids[tokenizers.END_OF_TEXT],
        eos=ids[tokenizers.IM_END],
        vision_start=ids[tokenizers.VISION_START],
        vision_end=ids[tokenizers.VISION_END],
        image=ids[tokenizers.IMAGE_PAD],
        video=ids[tokenizers.VIDEO_PAD],
        other_ends=(ids[tokenizers.END_OF_TEXT],),
    )
    found = {}
    for name, tied, tokenizer, scaling in (
        ("tied", True, made, None),
        ("untied, Qwen2Tokenizer", False, tokenizers.load_tokenizer(published), None),
        ("YaRN", True, made, YarnScaling(4.0, 1024)),
    ):
        shape = ModelShape(hidden_size=48, num_layers=2, intermediate_size=64, mrope_section=(2, 2, 2))
        config = config_from_shape(shape.model_copy(update={"tie_word_embeddings": tied}), 336, tokens)
        text = dataclasses.replace(config.text, rope_scaling=scaling, max_position_embeddings=4096)
        model = Model(dataclasses.replace(config, text=text))
        numbers = np.random.default_rng(0)

        def leaf(one: jax.ShapeDtypeStruct, numbers: np.random.Generator = numbers) -> jax.Array:
            scale = one.shape[-2] ** -0.5 if len(one.shape) > 1 else 1
            return jnp.asarray(2 * scale * numbers.standard_normal(one.shape), one.dtype)

        params = jax.tree.map(leaf, model.abstract_params())
        found[name] = folder / name.replace(", ", "-")
        image = ImageSection(min_pixels=28 * 28, max_pixels=28 * 28 * 12)
        save_params(params, model, found[name], tokenizer, "float32", 100_000, image)
    return found


def our_logits(directory: Path, picture: Path) -> tuple[list[int], np.ndarray]:
    """Compute tokens and logits of the question about the picture by this program."""
    generator = load_generator(directory, "float32")
    plan = plan_question(generator, QUESTION, [picture], [])
    model, batch = generator.model, bucket_batch(generator, plan)
    hidden = jax.jit(lambda params: model.logits(params, model.prompt_hidden(params, batch)[0]))(generator.params)
    return [int(token) for token in plan.tokens], np.asarray(hidden)[0][: plan.length]


def run_version(environment: Path | None, directory: Path, picture: Path) -> dict[str, object]:
    """Load the model in one release of transformers (None: the installed one)."""
    paths = {} if environment is None else {"PYTHONPATH": str(environment)}
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", CHILD, str(directory), str(picture), QUESTION]
    done = subprocess.run(command, env=clean | paths, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not lines:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no result"}
    found: dict[str, object] = json.loads(lines[-1][6:])
    return found


def install(version: str, environments: Path) -> Path:
    """Install a release beside the others, unless it is there."""
    target = environments / version
    if not (target / "transformers").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(target), f"transformers=={version}"]
        subprocess.run(command, check=True)
    return target


def compare(found: dict[str, object], tokens: list[int], logits: np.ndarray) -> dict[str, object]:
    """Say what of a release's result is this program's."""
    if "error" in found:
        return found
    same = found["ids"] == tokens
    theirs = np.asarray(found["logits"])
    # The last token of the prompt is no part of our trunk.
    apart = float(np.abs(theirs[: len(logits)] - logits).max()) if same else float("nan")
    rest = {key: found[key] for key in ("version", "ends", "processor")}
    return {**rest, "tokens equal": same, "logits differ by": apart}


def main() -> None:
    """Install, export, load everywhere, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, required=True, help="folder of the installed releases")
    parser.add_argument("--versions", nargs="*", default=VERSIONS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    places: list[Path | None] = [*[install(version, given.environments) for version in given.versions], None]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "picture.png"
        ramp = np.add.outer(np.arange(90), np.arange(120)).astype(np.uint8)
        Image.fromarray(np.stack([ramp, ramp[::-1], 255 - ramp], -1)).save(picture)
        for name, directory in export_models(Path(scratch) / "models").items():
            ours = our_logits(directory, picture)
            for place in places:
                rows.append({"model": name, **compare(run_version(place, directory, picture), *ours)})
                print(rows[-1], file=sys.stderr)
    print("| model | transformers | loads | same tokens | logits differ by | ends | AutoProcessor |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        if "error" in row:
            print(f"| {row['model']} | {row.get('version')} | {row['error']} | | | | |")
            continue
        cells = [row["model"], row["version"], "yes", "yes" if row["tokens equal"] else "no"]
        cells += [f"{row['logits differ by']:.1e}", row["ends"], row["processor"]]
        print("| " + " | ".join(map(str, cells)) + " |")
    if given.out is not None:
        given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
