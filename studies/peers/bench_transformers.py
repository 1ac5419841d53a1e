"""transformers alone: `generate` on every repeated prompt, as TRL calls it.

python bench_transformers.py WORK short|long|text64|text512 GROUP NEW REPEATS
"""

import sys
from pathlib import Path

from spans import THREADS, Spans, pin, read_prompts

pin()
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

torch.set_num_threads(THREADS)
work, name = Path(sys.argv[1]), sys.argv[2]
group, new, repeats = map(int, sys.argv[3:6])
texts, ids, images = read_prompts(work, name)
directory = work / ("text" if images is None else "vl")
tokenizer = AutoTokenizer.from_pretrained(directory)
kind = AutoModelForCausalLM if images is None else Qwen2_5_VLForConditionalGeneration
model = kind.from_pretrained(directory, dtype=torch.float32).eval()

rows = torch.tensor(ids).long().repeat_interleave(group, 0)
inputs = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
if images is not None:
    processor = Qwen2VLImageProcessorPil.from_pretrained(directory)
    seen = processor(images=[image for image in images for _ in range(group)], return_tensors="pt")
    inputs |= {"pixel_values": seen["pixel_values"], "image_grid_thw": seen["image_grid_thw"]}
    inputs["mm_token_type_ids"] = (rows == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
never = [tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>", "<|image_pad|>", "<|video_pad|>")]
options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "suppress_tokens": never}


@torch.no_grad()
def generate():
    out = model.generate(**inputs, max_new_tokens=new, **options)
    assert out.shape == (rows.shape[0], rows.shape[1] + new), out.shape


spans = Spans()
timed = spans.around("rollout", generate)
for _ in range(repeats + 1):
    timed()
versions = {"torch": torch.__version__, "transformers": transformers.__version__}
spans.report(1, peer="transformers", prompts=name, group=group, new=new, threads=THREADS, versions=versions)
