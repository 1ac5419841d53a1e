"""Run directories as training writes them, with made-up numbers."""

import io
import json
import math

import numpy as np
import yaml
from PIL import Image, ImageDraw

from infimmr_jax.training.statistics import wilson

PHASES = (("1 text", "text"), ("2 image + caption", "caption"), ("3 image alone", "image"))
HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1"> <!-- {{ 7*7 }} &lt;b&gt;'


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def bar_chart(heights):
    picture = Image.new("RGB", (112, 112), "white")
    draw = ImageDraw.Draw(picture)
    for i, height in enumerate(heights):
        draw.rectangle((10 + 26 * i, 104 - 9 * height, 28 + 26 * i, 104), fill=("red", "green", "blue", "orange")[i])
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


def response(generator, right, well_formed=True):
    answer = "7" if right else str(generator.integers(0, 20))
    tokens = [
        "<think>",
        "the",
        " red",
        " bar",
        " is",
        " 4",
        ",",
        " the",
        " blue",
        " one",
        " 3",
        ";",
        " 4",
        "+",
        "3",
        "=",
    ]
    tokens += [answer, "</think>", "\\boxed{", answer, "}" if well_formed else "", "<|im_end|>"]
    return {
        "text": "".join(tokens[:-1]),
        "total": 0.9 * right + 0.1 * well_formed,
        "components": {"accuracy": float(right), "format": float(well_formed)},
        "extracted": answer if well_formed else None,
        "reason": "" if right else "7 expected" if well_formed else "no closed box",
        "length": int(generator.integers(12, 40)),
        "finish": "stop" if well_formed else "length",
        "tokens": tokens,
        "logprobs": [-float(x) for x in generator.exponential(0.5, len(tokens))],
    }


def bins(values, low, high):
    return {"low": low, "high": high, "counts": np.histogram(values, 20, (low, high))[0].tolist()}


def make_run(directory, steps=60, seed=0, planned=None, sft_steps=120, learning=1.0, learning_rate=1e-3):
    """Write a run directory with three phases of `steps` steps and return its path; `planned` steps are configured."""
    generator = np.random.default_rng(seed)
    directory.mkdir(parents=True)
    metrics, evals, transcripts = [], [], []
    for step in range(sft_steps):
        loss = 3 * math.exp(-step / 30) + 0.4 + 0.05 * generator.normal()
        metrics.append({"time": 1.7e9 + step, "kind": "sft", "phase": "cold start", "phase_index": 0, "step": step})
        metrics[-1] |= {"step_in_phase": step, "loss": loss, "tokens_per_second": 9000.0, "time/step": 0.3}
    (directory / "transcripts").mkdir()
    for index, (phase, modality) in enumerate((("cold start", None), *PHASES)):
        for part, offset in (("text", 0.35), ("caption", 0.3), ("image", 0.2)):
            correct = int(256 * (offset + learning * 0.12 * index))
            low, high = wilson(correct, 256)
            evals.append({"stage": phase, "stage_index": index, "modality": part, "problems": 256, "correct": correct})
            evals[-1] |= {"accuracy": correct / 256, "low": low, "high": high, "format_rate": 0.9 + 0.02 * index}
            evals[-1] |= {"length": 20.0, "truncated": 0.01, "worked_share": 0.9}
        if modality is None:
            continue
        for inner in range(steps):
            step = (index - 1) * steps + inner
            chance = min(0.95, 0.3 + learning * 0.5 * step / (3 * steps))
            metrics.append({"time": 1.7e9 + 200 + step, "kind": "grpo", "phase": phase, "phase_index": index - 1})
            metrics[-1] |= {"step": step, "step_in_phase": inner, "loss": 0.01 * generator.normal()}
            accuracy = chance + 0.08 * generator.normal()
            metrics[-1] |= {"reward/total": 0.9 * accuracy + 0.095, "reward/accuracy": accuracy, "reward/format": 0.95}
            metrics[-1] |= {"reward/total_std": 0.3, "response/length": 22 + 6 * chance + generator.normal()}
            metrics[-1] |= {"response/truncated": 0.02, "response/signal_groups": 0.6, "policy/clip_share": 0.01}
            metrics[-1] |= {"policy/entropy": 0.9 - 0.5 * chance, "policy/kl": 0.02 * chance, "policy/mismatch": 1e-6}
            metrics[-1] |= {"policy/grad_norm": float(generator.lognormal(-1, 0.5)), "rollout/efficiency": 0.71}
            lengths, rewards = generator.normal(22 + 6 * chance, 5, 256), 0.9 * (generator.random(256) < chance) + 0.1
            metrics[-1] |= {"histogram/length": bins(lengths, 0, 40), "histogram/reward": bins(rewards, 0, 1)}
            seconds = 30.0 if step == 0 else 2.2 + 0.05 * generator.normal()
            metrics[-1] |= {"time/step": seconds, "time/rollout": 1.0, "time/grade": 0.1, "time/update": 0.8}
            metrics[-1] |= {
                "time/input_wait": 0.01,
                "tokens_per_second": 2500.0,
                "optimizer/learning_rate": learning_rate,
            }
            if inner % 5 == 0:
                heights = generator.integers(1, 10, 4)
                name = f"transcripts/{step}.png"
                if modality != "text":
                    (directory / name).write_bytes(bar_chart(heights))
                transcripts.append({"kind": "train", "step": step, "phase": phase, "phase_index": index - 1})
                transcripts[-1] |= {"problem_id": f"bars-{step}", "modality": modality, "answer": "7", "choices": []}
                question = "How high are the red and the blue bar together?\nGive a whole number."
                transcripts[-1] |= {
                    "question": question,
                    "answer_type": "math",
                    "caption": "Four bars: red 4, green 2, blue 3.",
                }
                transcripts[-1] |= {"prompt": f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"}
                transcripts[-1] |= {"images": [name] if modality != "text" else []}
                rights = generator.random(8) < chance
                transcripts[-1] |= {
                    "responses": [response(generator, bool(right), generator.random() < 0.9) for right in rights]
                }
    phases = [
        {"name": name, "modality": part, "steps": planned or steps, "prompts_per_step": 32, "group_size": 8}
        for name, part in PHASES
    ]
    config = {"name": "nano", "seed": seed, "model": {"path": None}, "optimizer": {"learning_rate": learning_rate}}
    (directory / "config.yaml").write_text(yaml.safe_dump({**config, "phases": phases}, sort_keys=False))
    environment = {
        "python": "3.11.7",
        "jax": "0.10.2",
        "git": "abc1234",
        "devices": ["cpu:0"],
        "platform": {"cores": 2},
    }
    (directory / "environment.json").write_text(json.dumps(environment))
    write_rows(directory / "metrics.jsonl", metrics)
    write_rows(directory / "evals.jsonl", evals)
    write_rows(directory / "transcripts.jsonl", transcripts)
    return directory
