"""TRL's GRPOTrainer: one optimiser step on 4 prompts x GROUP responses: beta 0, no gradient checkpointing.

python bench_trl.py WORK short|long|text64|text512 GROUP NEW STEPS [SEQUENCES_PER_MICRO_BATCH]
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

from spans import THREADS, Spans, hash_reward, pin, read_prompts

pin()
import torch  # noqa: E402

try:
    import torchvision
except (ImportError, RuntimeError):
    # A torchvision built for CUDA loads beside a CPU torch once these two schemas exist; only its Python is used.
    schemas = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        schemas.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for module in [module for module in sys.modules if module.startswith("torchvision")]:
        del sys.modules[module]
    import torchvision  # noqa: F401
import transformers  # noqa: E402
import trl  # noqa: E402
from datasets import Dataset  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    TrainerCallback,
)

torch.set_num_threads(THREADS)
work, name = Path(sys.argv[1]), sys.argv[2]
group, new, steps = map(int, sys.argv[3:6])
texts, ids, images = read_prompts(work, name)
vision = images is not None
micro = int(sys.argv[6]) if len(sys.argv) > 6 else len(texts) * group
directory = work / ("vl" if vision else "text")
processor = (AutoProcessor if vision else AutoTokenizer).from_pretrained(directory)
tokenizer = processor.tokenizer if vision else processor
kind = Qwen2_5_VLForConditionalGeneration if vision else AutoModelForCausalLM
model = kind.from_pretrained(directory, dtype=torch.float32)
problems = []
for number, text in enumerate(texts):
    row = {"prompt": [{"role": "user", "content": text}]}
    problems.append(row | ({"image": Image.fromarray(images[number])} if vision else {}))
WARM_UP = 1
spans = Spans()


class Measured(trl.GRPOTrainer):
    """The trainer with its two halves timed and its work checked."""

    def _generate_and_score_completions(self, inputs):
        out = spans.around("rollout", super()._generate_and_score_completions)(inputs)
        assert out["completion_mask"].sum().item() == len(inputs) * new, "a response ended early"
        assert out["prompt_ids"].shape[1] == ids.shape[1], (out["prompt_ids"].shape, ids.shape)
        return out


class Steps(TrainerCallback):
    def on_train_begin(self, *args, **named):
        self.begin()

    def begin(self):
        self.began = time.perf_counter(), time.process_time()

    def on_step_end(self, *args, **named):
        took = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
        spans.seen.setdefault("step", []).append(took)
        self.begin()


never = [tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "<|endoftext|>", "<|image_pad|>", "<|video_pad|>")]
folder = tempfile.mkdtemp()
settings = trl.GRPOConfig(
    output_dir=folder,
    per_device_train_batch_size=micro,
    gradient_accumulation_steps=len(texts) * group // micro,
    num_generations=group,
    max_completion_length=new,
    beta=0.0,
    max_steps=steps + WARM_UP,
    learning_rate=1e-6,
    lr_scheduler_type="constant",
    temperature=1.0,
    top_k=0,
    top_p=1.0,
    bf16=False,
    use_cpu=True,
    gradient_checkpointing=False,
    save_strategy="no",
    report_to="none",
    logging_strategy="no",
    disable_tqdm=True,
    dataloader_pin_memory=False,
    seed=0,
    generation_kwargs={"suppress_tokens": never},
)
trainer = Measured(
    model=model,
    reward_funcs=lambda completion_ids, **_: [hash_reward(found) for found in completion_ids],
    args=settings,
    train_dataset=Dataset.from_list(problems * (steps + WARM_UP + 1)),
    processing_class=processor,
    callbacks=[Steps()],
)
trainer.train()
shutil.rmtree(folder, ignore_errors=True)
update = [(s[0] - r[0], s[1] - r[1]) for s, r in zip(spans.seen["step"], spans.seen["rollout"], strict=True)]
spans.seen["update"] = update
versions = {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__}
spans.report(WARM_UP, peer="trl", prompts=name, group=group, new=new, threads=THREADS, micro=micro, versions=versions)
