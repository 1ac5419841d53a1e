"""Whether a refactoring changed a number: record two revisions through their command line, and compare.

    python -m studies.same_numbers record OUT [--package DIR] [--configs DIR] [--only PART ..]
    python -m studies.same_numbers compare BEFORE AFTER [--tolerance 0] [--only PART ..]
    python -m studies.same_numbers between REV_A REV_B [--keep DIR]

`record` runs `python -m infimmr_jax.cli` with DIR (default: this checkout) on the path, on a CPU at fixed seeds;
nothing of the package is imported here, so modules may have moved in between. A record holds, for every part of
`cases.PARTS`, the rows that the program wrote without what a clock said, the exported weights, and what the compiler
made of the sampler and the update; and a run that was stopped at two checkpoints. `compare` goes on with BEFORE's
stopped run by AFTER's program, which must come to BEFORE's unbroken numbers. It exits with status 1 when anything
differs by more than the tolerance, a share of the larger value.
"""
