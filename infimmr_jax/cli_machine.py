"""The commands of `infimmr` about a machine: what it does in a second, whether a run fits it, what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from infimmr_jax.config import ConfigError, load_config

ConfigOption = Annotated[
    list[Path],
    typer.Option("--config", "-c", help="YAML file of the run. Repeatable: the later file's values win (recipes)."),
]
SetOption = Annotated[list[str], typer.Option("--set", "-s", help="Override one value: a.b.0.c=value. Repeatable.")]


def bench(
    context: typer.Context,
    part: Annotated[str, typer.Argument(help="prefill, decode, rollout, update, step or curriculum.")],
    model: Annotated[Path | None, typer.Option(help="Hugging Face directory of a Qwen2.5-VL.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Take the model of this run.")] = None,
    overrides: SetOption = [],  # noqa: B006
    shape: Annotated[str, typer.Option(help="Random weights in this size: small, 3b, 7b, 32b, 72b.")] = "small",
    prompts: Annotated[int, typer.Option(min=1)] = 4,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Exact, picture included.")] = 64,
    image_size: Annotated[
        int, typer.Option(min=0, help="Side of the picture in pixels, a multiple of 28; 0: text alone.")
    ] = 112,
    group: Annotated[int, typer.Option(min=1, help="Responses a prompt.")] = 8,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens a response.")] = 128,
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None, typer.Option(help="Default: bfloat16 on an accelerator.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measured calls after the warm-up; medians are given.")] = 5,
    compactions: Annotated[int, typer.Option(min=0, help="Smaller shapes for unfinished rows.")] = 0,
    cache_sizes: Annotated[int, typer.Option(min=1, help="Sizes that the cache of responses grows through.")] = 1,
    longest: Annotated[
        float, typer.Option(min=0, help="Log-normal lengths, the longest this many times the median; 0: all equal.")
    ] = 0.0,
    micro_batches: Annotated[int, typer.Option(min=1)] = 1,
    logprob_chunk: Annotated[
        int | None, typer.Option(min=1, help="Tokens whose logits exist at a time; default by vocabulary.")
    ] = None,
    remat: Annotated[Literal["none", "full", "dots"], typer.Option(help="What the backward pass recomputes.")] = "none",
    repeated: Annotated[bool, typer.Option("--repeated", help="Update with a prompt per response instead.")] = False,
) -> None:
    """Measure a part of the program and print one JSON object: seconds, tokens/s, FLOPs, memory, compilations."""
    import json

    from infimmr_jax.bench import measure

    given = [
        name for name in context.params if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    measure.refuse_unread(part, given)
    if part == "curriculum":
        found = measure.bench_curriculum(config or Path("configs/nano.yaml"), overrides)
    else:
        size = measure.Size(prompts, prompt_tokens, image_size, group, new_tokens)
        ask = measure.Ask(
            repeats=repeats,
            compactions=compactions,
            cache_sizes=cache_sizes,
            longest=longest,
            micro_batches=micro_batches,
            logprob_chunk=logprob_chunk,
            repeated=repeated,
        )
        found = measure.bench(
            part, size, ask, model=model, config=config, overrides=overrides, shape=shape, dtype=dtype, remat=remat
        )
    print(json.dumps(found))


def plan(
    config: ConfigOption,
    topology: Annotated[
        str, typer.Option("--topology", "-t", help="v5e:4x4, v5p:2x2x2, v6e:2x4, .. (TPU slices), gpu:h100x8, ..")
    ],
    overrides: SetOption = [],  # noqa: B006
    no_compile: Annotated[bool, typer.Option("--no-compile", help="Estimate by arithmetic only: seconds.")] = False,
    thorough: Annotated[bool, typer.Option("--thorough", help="Compile with the effort of a run: minutes.")] = False,
    no_search: Annotated[bool, typer.Option("--no-search", help="Do not look for changes that fit.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write everything to this JSON file.")] = None,
) -> None:
    """Say, without the machine, whether a run fits it, what bounds it and what to change; compiles for TPUs."""
    settings = load_config(config, overrides)
    from infimmr_jax.plan.entry import plan as make

    effort: Literal["none", "quick", "thorough"] = "none" if no_compile else "thorough" if thorough else "quick"
    raise typer.Exit(0 if make(settings, topology, effort, not no_search, json, Console()) else 1)


def doctor(
    config: Annotated[list[Path] | None, typer.Option("--config", "-c", help="Also look at what a run needs.")] = None,
    model: Annotated[Path | None, typer.Option(help="Also look at the files of this model directory.")] = None,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Say what this machine and installation can do: versions, devices, memory, caches, grader processes; with a
    configuration also whether its model, sources and directories are there."""
    settings = load_config(config, overrides) if config else None
    if overrides and settings is None:
        raise ConfigError("--set changes a configuration: give --config as well")
    from infimmr_jax.commands.doctor import examine

    raise typer.Exit(0 if examine(Console(), settings, model) else 1)
