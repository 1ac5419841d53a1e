"""The front door: `infimmr COMMAND`. Errors that a person can mend are one sentence on stderr and exit code 2."""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from infimmr_jax import __version__
from infimmr_jax.cli_machine import ConfigOption, SetOption, bench, doctor, plan
from infimmr_jax.config import ConfigError, apply_overrides, load_config
from infimmr_jax.endings import said_in_words
from infimmr_jax.parallel.quiet import quiet_libraries

# Transformers is here for tokenizers alone; that PyTorch is not installed is no news.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

# Commands import what they need when they run: `--help` must not wait for JAX.
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.info.help = "Infi-MMR in JAX: curriculum reinforcement learning for reasoning in small vision-language models."

# Grading needs a configuration only for its reward section; a phase is there because every configuration has one.
GRADING_ONLY = {
    "phases": [{"name": "-", "modality": "text", "steps": 1, "sources": [{"reader": "jsonl", "path": "-"}]}]
}
MinPixels = Annotated[int | None, typer.Option(min=1, help="Least pixels of a picture; default of the directory.")]
MaxPixels = Annotated[int | None, typer.Option(min=1, help="Most pixels of a picture; default of the directory.")]
DType = Annotated[Literal["float32", "bfloat16"] | None, typer.Option(help="Default: bfloat16 on an accelerator.")]
RunDirs = Annotated[list[Path], typer.Argument(help="Run directories; several are compared.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def train(
    config: ConfigOption = [Path("configs/nano.yaml")],  # noqa: B006
    overrides: SetOption = [],  # noqa: B006  (typer copies it)
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run.")] = False,
    auto_resume: Annotated[
        bool, typer.Option("--auto-resume", help="Go on where there is a run, else start one; for launchers.")
    ] = False,
) -> None:
    """Run a curriculum: cold start (if configured), then GRPO phase after phase; ends with a table and a report."""
    settings = load_config(config, overrides)
    # Before the processes meet: they wait for each other only half a minute in their first collectives.
    from infimmr_jax.commands.train import run_and_report
    from infimmr_jax.parallel.startup import join_processes, use_compilation_cache
    from infimmr_jax.report.ending import record_ending, recorded_ending
    from infimmr_jax.report.html import write_report

    def finish(runs: Sequence[Path], out: Path) -> Path:
        record_ending(runs[0], 0, "finished")
        return write_report(runs, out)

    use_compilation_cache()
    join_processes()
    with recorded_ending(settings.output):
        run_and_report(settings, "auto" if auto_resume else resume, finish)


@app.command()
def keys(
    section: Annotated[str, typer.Argument(help="Only what begins with this, such as grpo.kl.")] = "",
) -> None:
    """List every key of the configuration: what may stand there, its default (docs/configuration.md)."""
    from infimmr_jax.config.reference import page

    text = page(section)
    if not text:
        raise ConfigError(f"no key of the configuration begins with {section!r}; `infimmr keys` lists all")
    print(text, end="")


@app.command()
def report(
    runs: RunDirs,
    out: Annotated[Path | None, typer.Option(help="Where to write; default report.html in the first run.")] = None,
) -> None:
    """Write one self-contained HTML page with curves, tables and transcripts of one or several runs."""
    from infimmr_jax.report.html import write_report

    print(write_report(runs, out or runs[0] / "report.html"))


@app.command()
def grade(
    file: Annotated[Path, typer.Argument(help="JSONL of {question, answer, answer_type, choices?, response}.")],
    out: Annotated[Path, typer.Option(help="JSONL to write: every row with its scores.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Take reward and format from this run.")] = None,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Score stored responses by the rules of training; writes what was extracted and which rule decided."""
    from infimmr_jax.config import parse_config
    from infimmr_jax.rewards.grade_file import grade_file, not_compared_lines

    settings = load_config(config, overrides) if config else parse_config(apply_overrides(GRADING_ONLY, overrides))
    summary = grade_file(file, out, settings)
    means = ", ".join(f"{name} {value:.3f}" for name, value in summary.means.items())
    print(f"{summary.rows} rows, answer found in {summary.answered:.1%}; mean {means}; {summary.counters}")
    for line in not_compared_lines(summary):
        print(line)


@app.command()
def generate(
    question: Annotated[str, typer.Argument(help="The question; <image> marks say where the images go.")],
    model: Annotated[Path, typer.Option(help="Hugging Face directory of a Qwen2.5-VL.")],
    image: Annotated[list[Path], typer.Option(help="An image file. Repeatable.")] = [],  # noqa: B006
    video: Annotated[list[Path], typer.Option(help="A video file or a folder of frames. Repeatable.")] = [],  # noqa: B006
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 1024,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(min=0, help="0: all tokens.")] = 0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0)] = 1.0,
    min_p: Annotated[float, typer.Option(min=0.0, help="Least share of the likeliest token's probability.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: tokens that were there become rarer.")] = 1.0,
    stop: Annotated[list[str], typer.Option(help="End the answer with this text. Repeatable.")] = [],  # noqa: B006
    seed: int = 0,
    dtype: DType = None,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Answer one question about images, videos or plain text, streaming the answer."""
    from infimmr_jax.parallel.startup import use_compilation_cache

    use_compilation_cache()
    from infimmr_jax.rollout.generate import generate as answer
    from infimmr_jax.rollout.generate import load_generator

    pieces = answer(
        load_generator(model, dtype, min_pixels=min_pixels, max_pixels=max_pixels),
        question,
        image,
        video,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        stop=stop,
        seed=seed,
    )
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Model directory to read.")],
    target: Annotated[Path, typer.Argument(help="Model directory to write.")],
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default as in the source.")] = None,
    names: Annotated[
        Literal["hub", "transformers"], typer.Option(help="Tensor names: of the hub's files, or of the live model.")
    ] = "hub",
) -> None:
    """Rewrite a model directory: other dtype, other shards, names of the hub or of today's transformers."""
    from infimmr_jax.model import hf

    hf.convert(source, target, dtype, names)


@app.command("rejection-sample")
def rejection_sample(
    config: ConfigOption,
    out: Annotated[Path, typer.Option(help="Folder for the demonstrations; below data.root, `sft` can read them.")],
    model: Annotated[Path | None, typer.Option(help="Model directory, such as RUN/model; default model.path.")] = None,
    keep: Annotated[Literal["shortest", "all"], typer.Option(help="Right answers of a problem to keep.")] = "shortest",
    samples: Annotated[int, typer.Option(min=1, help="Answers a problem.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 1024,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0)] = 1.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Problems at once, over all devices.")] = 16,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first problems of each source.")] = None,
    seed: int = 0,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Turn a model's own right answers into demonstrations for `sft.conversations`; resumable."""
    settings = load_config(config, overrides)
    from infimmr_jax.parallel.startup import join_processes, use_compilation_cache

    use_compilation_cache()
    join_processes()
    from infimmr_jax.commands.rejection import rejection_sample as sample
    from infimmr_jax.rewards.pool import GraderPool
    from infimmr_jax.rollout.policy import Sampling, load_policy

    policy = load_policy(settings, model)
    sampling = Sampling(samples, max_tokens, temperature, top_p, seed)
    reward = settings.reward
    with GraderPool(reward.workers, reward.deadline_seconds, reward.memory_mb) as pool:
        counts = sample(settings, policy, pool, sampling, out, keep, batch_size, print, limit)
    kept = f"{counts['demonstrations']} demonstrations in {out / 'demonstrations.jsonl'}"
    print(f"{counts['solved']} of {counts['problems']} problems solved, {kept}")


@app.command()
def prepare(
    config: ConfigOption,
    output: Annotated[Path, typer.Option(help="Folder for the converted sources and the report.")],
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Check, de-duplicate and convert every source to ArrayRecord, with a report of what was dropped."""
    settings = load_config(config, overrides)
    from infimmr_jax.commands import prepare as preparing
    from infimmr_jax.rewards.pool import GraderPool

    embed = None
    if settings.data.curation.image_cosine is not None:
        from infimmr_jax.parallel.startup import use_compilation_cache

        use_compilation_cache()
        from infimmr_jax.commands.embedding import vision_embedder

        embed = vision_embedder(settings)
    reward = settings.reward
    with GraderPool(reward.workers, reward.deadline_seconds, reward.memory_mb) as pool:
        preparing.prepare(settings, output, pool, embed, progress=print)
    print(f"Report: {output / 'report.md'}\nConfiguration on the converted sources: {output / 'config.yaml'}")


@app.command()
def caption(
    config: ConfigOption,
    model: Annotated[Path | None, typer.Option(help="Model directory; default model.path.")] = None,
    from_file: Annotated[Path | None, typer.Option("--from", help="Take captions of this file, ask no model.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Also where there is a caption of others.")] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest caption, in tokens.")] = 512,
    batch_size: Annotated[int, typer.Option(min=1, help="Problems at once, over all devices.")] = 16,
    seed: int = 0,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Caption the pictures of a configuration's problems, in files beside them; goes on where it was stopped."""
    settings = load_config(config, overrides)
    if from_file is not None and model is not None:
        raise ConfigError("give --model or --from, not both")
    from infimmr_jax.parallel.startup import join_processes, use_compilation_cache

    use_compilation_cache()
    join_processes()
    from infimmr_jax.commands import annotate
    from infimmr_jax.data.captions import CaptionFile
    from infimmr_jax.rollout.policy import Policy, Sampling, load_policy, with_directory_pixels

    if from_file is not None:
        maker: CaptionFile | Policy = CaptionFile(from_file)
    else:
        settings = with_directory_pixels(settings, model, min_pixels, max_pixels)
        maker = load_policy(settings, model)
    sampling = Sampling(max_tokens=max_tokens, seed=seed)
    annotate.caption(settings, maker, sampling, batch_size, print, replace)


@app.command()
def difficulty(
    config: ConfigOption,
    model: Annotated[Path | None, typer.Option(help="Model directory, such as RUN/model; default model.path.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers a problem.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 1024,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0)] = 1.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Problems at once, over all devices.")] = 16,
    seed: int = 0,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Measure how often a model solves each training problem, with and without its pictures; resumable."""
    settings = load_config(config, overrides)
    from infimmr_jax.parallel.startup import join_processes, use_compilation_cache

    use_compilation_cache()
    join_processes()
    from infimmr_jax.commands import annotate
    from infimmr_jax.rewards.pool import GraderPool
    from infimmr_jax.rollout.policy import Sampling, load_policy

    sampling = Sampling(samples, max_tokens, temperature, top_p, seed)
    reward = settings.reward
    with GraderPool(reward.workers, reward.deadline_seconds, reward.memory_mb) as pool:
        annotate.difficulty(settings, load_policy(settings, model), pool, sampling, batch_size, print)


@app.command()
def evaluate(
    benchmark: Annotated[str, typer.Option(help="mathverse, mathvision, mathvista, olympiadbench, math500, ...")],
    data: Annotated[Path, typer.Option(help="File or folder of the benchmark, as published.")],
    out: Annotated[Path, typer.Option(help="Directory for responses, grades and the result.")] = Path(
        "runs/evaluation"
    ),
    model: Annotated[Path | None, typer.Option(help="Hugging Face directory of the policy.")] = None,
    responses: Annotated[Path | None, typer.Option(help="Score these stored responses instead of asking.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only read, count, and check every gold answer.")] = False,
    samples: Annotated[int, typer.Option(min=1, help="Responses a problem; 1 is greedy.")] = 1,
    temperature: Annotated[float, typer.Option(min=0.01)] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0)] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 2048,
    seed: int = 0,
    style: Annotated[
        Literal["published", "published-cot", "plain"],
        typer.Option(help="The benchmark's own prompt, its second one that asks to reason first, or the question."),
    ] = "published",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first problems.")] = None,
    judge: Annotated[str | None, typer.Option(help="Your own judge, module:attribute.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Problems at once, over all devices.")] = 8,
    dtype: DType = None,
    fsdp: Annotated[int, typer.Option(min=1, help="Devices that share the weights row by row.")] = 1,
    tensor: Annotated[int, typer.Option(min=1, help="Devices that share every matrix product.")] = 1,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    repetition_penalty: Annotated[float, typer.Option(min=0.01, help="As in training: rollout.*.")] = 1.0,
    stop: Annotated[list[str], typer.Option(help="End an answer after this text; may be repeated.")] = [],  # noqa: B006
) -> None:
    """Ask a model a benchmark's questions and score them by its published rules; resumable, on one or many hosts."""
    from infimmr_jax.parallel.startup import join_processes, use_compilation_cache

    use_compilation_cache()
    join_processes()
    from infimmr_jax.evaluation.asking import Asking, evaluate_benchmark

    asking = Asking(
        samples,
        max_new_tokens,
        temperature,
        top_p,
        seed,
        style,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        repetition_penalty=repetition_penalty,
        stop=tuple(stop),
    )
    asking = dataclasses.replace(asking, batch_size=batch_size, dtype=dtype, fsdp=fsdp, tensor=tensor)
    evaluate_benchmark(
        benchmark,
        data,
        out,
        model=model,
        responses=responses,
        only_look=dry_run,
        asking=asking,
        limit=limit,
        judge=judge,
    )


for command in (bench, plan, doctor):
    app.command()(command)


def main() -> None:
    """Entry point of the `infimmr` command."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    quiet_libraries()
    # Texts of models and files may hold half a surrogate pair; what can not be printed is shown as its escape.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with said_in_words():
        app()


if __name__ == "__main__":
    main()
