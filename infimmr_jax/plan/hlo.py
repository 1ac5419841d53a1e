"""Reads a compiled program's text (HLO after partitioning): what one device does, loops counted as often as they run.

`Compiled.cost_analysis` counts a loop's body once; here instructions carry the product of the trip counts around them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

WIDTHS = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4,
    "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "f8e4m3fn": 1, "f8e5m2": 1,
}  # fmt: skip
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"^  (ROOT )?%?([\w.\-]+) = ")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array of an instruction's result; `near` says that it lies in on-chip memory, not in HBM."""

    dtype: str
    sides: tuple[int, ...]
    near: bool

    @property
    def count(self) -> int:
        return math.prod(self.sides)

    @property
    def bytes(self) -> float:
        return self.count * WIDTHS.get(self.dtype, 0)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    text: str
    root: bool

    @property
    def scope(self) -> str:
        """The JAX functions and layers that it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.text)
        return found[1] if found else ""

    def called(self, key: str) -> list[str]:
        """Names of computations under an attribute such as `calls`, `body` or `branch_computations`."""
        found = re.search(rf"\b{key}=(?:\{{([^}}]*)\}}|%?([\w.\-]+))", self.text)
        return re.findall(r"[\w.\-]+", (found[1] or found[2]).replace("%", "")) if found else []


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Module:
    """All computations of a program by name, and the one it starts with."""

    computations: dict[str, Computation]
    entry: str


def parse_module(text: str) -> Module:
    """Split the text of a compiled program (`Compiled.as_text()`) into computations and instructions."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in _whole_lines(text):
        head = _HEAD.match(line)
        if head:
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif current is not None and (found := _NAME.match(line)):
            instruction = _instruction(line, found)
            current[instruction.name] = instruction
    return Module(computations, entry)


def _whole_lines(text: str) -> Iterator[str]:
    """Lines of a program; an attribute that holds line breaks (of a kernel) is joined to its instruction."""
    kept: list[str] = []
    for line in text.splitlines():
        if line.startswith(("  %", "  ROOT ", "%", "ENTRY ", "HloModule")) or line in ("}", ""):
            yield " ".join(kept)
            kept = []
        kept.append(line)
    yield " ".join(kept)


def _instruction(line: str, found: re.Match) -> Instruction:
    rest = line[found.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shapes = tuple(
        Shape(dtype, tuple(int(side) for side in sides.split(",") if side), "S(1)" in layout)
        for dtype, sides, layout in _SHAPE.findall(rest[:end])
    )
    opening = rest.index("(", end)
    closing = _closing(rest, opening)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[opening:closing]))
    opcode = rest[end:opening].strip()
    # A constant's operand is its value: keep it readable in `text`.
    return Instruction(found[2], opcode, shapes, operands, rest[opening:], bool(found[1]))


def _closing(text: str, opening: int) -> int:
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


Row = tuple[Instruction, Computation, float]


def walk(module: Module, shares: tuple[float, ...] | None = None, one_counter: str | None = None) -> Iterator[Row]:
    """Every instruction that runs as one step of the device, its computation, and how often it runs.

    Fusions are one step. The branches of a conditional are weighted by `shares` (evenly without). Outermost loops that
    hold operations whose scope matches `one_counter` go on counting where the one before them stopped: a token loop
    that is continued in other shapes makes each token once.
    """
    counted = 0
    for instruction, computation, times in _walk(module, module.entry, 1.0, shares, enter=one_counter is None):
        if instruction.opcode != "while":
            yield instruction, computation, times
            continue
        trips, body = trip_count(module, instruction), instruction.called("body")[0]
        if any(re.search(one_counter or "", item.scope) for item in module.computations[body].values()):
            trips, counted = max(0, trips - counted), max(counted, trips)
        yield from _walk(module, body, times * trips, shares)


def _walk(
    module: Module, name: str, times: float, shares: tuple[float, ...] | None, enter: bool = True
) -> Iterator[Row]:
    """As `walk`; without `enter`, loops are yielded as they stand."""
    computation = module.computations[name]
    for instruction in computation.values():
        if instruction.opcode == "while" and enter:
            trips = trip_count(module, instruction)
            yield from _walk(module, instruction.called("body")[0], times * trips, shares)
        elif instruction.opcode == "conditional":
            branches = instruction.called("branch_computations")
            weights = shares if shares and len(shares) == len(branches) else (1 / len(branches),) * len(branches)
            for branch, weight in zip(branches, weights, strict=True):
                yield from _walk(module, branch, times * weight, shares, enter)
        elif instruction.opcode in ("call", "async-start"):
            for callee in instruction.called("to_apply") or instruction.called("calls"):
                yield from _walk(module, callee, times, shares, enter)
        else:
            yield instruction, computation, times


def trip_count(module: Module, loop: Instruction) -> int:
    """How often a loop runs: the constant that its counter is compared with (loops of JAX count up from 0)."""
    known = re.search(r"known_trip_count[^\d]*(\d+)", loop.text)
    if known:
        return int(known[1])
    limits = list(_limits(module, loop.called("condition")[0]))
    if not limits:
        raise ValueError(f"the loop {loop.name} has no constant limit")
    return -(-max(limits) // _step(module, loop))


def _step(module: Module, loop: Instruction) -> int:
    """What a loop adds to its counter: 1, or more in loops that the compiler unrolled after it had made them."""
    condition, body = (module.computations[loop.called(key)[0]] for key in ("condition", "body"))
    root = next(item for item in body.values() if item.root)
    for item in condition.values():
        index = re.search(r"\bindex=(\d+)", item.text)
        if item.opcode != "get-tuple-element" or index is None or int(index[1]) >= len(root.operands):
            continue
        added = body.get(root.operands[int(index[1])])
        for name in added.operands if added is not None and added.opcode == "add" else ():
            value = re.match(r"\((\d+)\)", body[name].text)
            if body[name].opcode == "constant" and value and int(value[1]) > 1:
                return int(value[1])
    return 1


def _limits(module: Module, name: str) -> Iterator[int]:
    for instruction in module.computations[name].values():
        if instruction.opcode == "constant" and instruction.shapes[0].dtype in ("s32", "u32"):
            value = re.match(r"\((-?\d+)\)", instruction.text)
            if value:
                yield int(value[1])
        for callee in instruction.called("calls") + instruction.called("to_apply"):
            yield from _limits(module, callee)


def flops(module: Module, instruction: Instruction, computation: Computation) -> float:
    """Floating-point operations of matrix products and convolutions, those inside a fusion included."""
    if instruction.opcode == "dot":
        return _dot_flops(instruction, computation)
    if instruction.opcode == "convolution":
        return _convolution_flops(instruction, computation)
    if instruction.opcode == "custom-call" and "splash_mha" in instruction.name:
        return _splash_flops(module, instruction, computation)
    if instruction.opcode == "fusion":
        return sum(_fusion_flops(module, callee) for callee in instruction.called("calls"))
    return 0.0


def _fusion_flops(module: Module, name: str) -> float:
    inner = module.computations[name]
    return sum(flops(module, instruction, inner) for instruction in inner.values())


def _dot_flops(instruction: Instruction, computation: Computation) -> float:
    left = computation[instruction.operands[0]].shapes[0]
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.text)
    contracted = math.prod(left.sides[int(axis)] for axis in found[1].split(",") if axis) if found else 1
    return 2.0 * instruction.shapes[0].count * contracted


def _convolution_flops(instruction: Instruction, computation: Computation) -> float:
    """As XLA counts them: padding and the holes of dilation take no multiplication."""
    left, right = (computation[name].shapes[0] for name in instruction.operands[:2])
    out = instruction.shapes[0]
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.text)
    assert labels is not None, instruction.text
    window = (
        dict(re.findall(r"(\w+)=([\dx_\-]+)", m[1]))
        if (m := re.search(r"window=\{([^}]*)\}", instruction.text))
        else {}
    )
    spatial = sorted(label for label in labels[2] if label.isdigit())

    def of(key: str, axis: int, default: str) -> str:
        return window[key].split("x")[axis] if key in window else default

    valid = 1.0
    for axis, label in enumerate(spatial):
        size = right.sides[labels[2].index(label)]
        low = int(of("pad", axis, "0_0").split("_")[0])
        valid *= _valid_positions(
            out.sides[labels[3].index(label)],
            size,
            left.sides[labels[1].index(label)],
            int(of("stride", axis, "1")),
            low,
            int(of("lhs_dilate", axis, "1")),
            int(of("rhs_dilate", axis, "1")),
        )
    batch = out.sides[labels[3].index("b")]
    features = out.sides[labels[3].index("f")]
    inner = right.sides[labels[2].index("i")]
    groups = re.search(r"batch_group_count=(\d+)", instruction.text)
    return 2.0 * valid * batch * features * inner / (int(groups[1]) if groups else 1)


@functools.lru_cache(maxsize=4096)
def _valid_positions(out: int, kernel: int, size: int, stride: int, low: int, lhs_dilate: int, rhs_dilate: int) -> int:
    reach = (size - 1) * lhs_dilate + 1
    return sum(
        0 <= (place := o * stride + k * rhs_dilate - low) < reach and place % lhs_dilate == 0
        for o in range(out)
        for k in range(kernel)
    )


def _splash_flops(module: Module, instruction: Instruction, computation: Computation) -> float:
    """Visited blocks of scores x the products made of each: 2 forward, 3 for queries' and 4 for keys' gradients."""
    q, k, scores = _splash_scores(instruction, computation)
    products = 4 if "dkv" in instruction.name else 3 if "dq" in instruction.name else 2
    if "dkv" in instruction.name:
        # A grid over keys stays whole where some keys are seen by all queries, and skips the rest as it goes: the
        # forward kernel of the same sequences visits the same blocks.
        for other in module.computations.values():
            for item in other.values():
                if item.opcode == "custom-call" and "splash_mha_fwd" in item.name:
                    same_q, same_k, visited = _splash_scores(item, other)
                    if (same_q.sides, same_k.sides) == (q.sides, k.sides):
                        scores = min(scores, visited)
    return 2.0 * products * q.sides[0] * scores * q.sides[2]


def _splash_scores(instruction: Instruction, computation: Computation) -> tuple[Shape, Shape, float]:
    """Queries [H, T, D], keys [K, S, D] and the scores of one head that lie in visited blocks."""
    operands = [computation[name].shapes[0] for name in instruction.operands]
    q, k = [shape for shape in operands if shape.dtype != "s8" and len(shape.sides) == 3][:2]
    scores = float(q.sides[1] * k.sides[1])
    visited = [shape.sides for shape in operands if shape.dtype == "s8" and len(shape.sides) == 3]
    if visited:
        rows, columns = visited[0][-2:]
        scores = min(scores, float(rows * _block(q.sides[1]) * columns * _block(k.sides[1])))
    return q, k, scores


def _block(size: int) -> int:
    return next((block for block in (512, 256, 128) if size % block == 0), size)


# fmt: off
NO_TRAFFIC = frozenset((
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota", "after-all", "partition-id", "replica-id",
    "opt-barrier", "copy-done", "all-gather-done", "all-reduce-done", "collective-permute-done", "async-done",
    "async-update",
))
# fmt: on


def memory_bytes(module: Module, instruction: Instruction, computation: Computation) -> float:
    """Bytes read from and written to HBM: operands and results, of slices only the part that is taken or replaced."""
    if instruction.opcode in NO_TRAFFIC:
        return 0.0
    if instruction.opcode == "copy-start":
        # (target, source, context): one of the two is usually on-chip memory.
        return sum(shape.bytes for shape in instruction.shapes[:2] if not shape.near)
    written = sum(shape.bytes for shape in instruction.shapes if not shape.near)
    if instruction.opcode == "dynamic-slice":
        return 2 * written
    if instruction.opcode == "dynamic-update-slice":
        return 2 * _far(computation, instruction.operands[1])
    if instruction.opcode == "fusion":
        return _fusion_bytes(module.computations[instruction.called("calls")[0]], instruction, computation)
    return written + sum(_far(computation, name) for name in instruction.operands)


def _far(computation: Computation, name: str) -> float:
    return sum(shape.bytes for shape in computation[name].shapes if not shape.near) if name in computation else 0.0


def _fusion_bytes(inner: Computation, instruction: Instruction, outer: Computation) -> float:
    users: dict[str, list[Instruction]] = {}
    for item in inner.values():
        for operand in item.operands:
            users.setdefault(operand, []).append(item)
    total = 0.0
    for item in inner.values():
        if item.opcode != "parameter":
            continue
        number = int(re.match(r"\((\d+)\)", item.text)[1])  # type: ignore[index]
        whole = _far(outer, instruction.operands[number])
        total += min(whole, _read(item, inner, users)) if whole else 0.0
    roots = [item for item in inner.values() if item.root]
    outputs = [inner[name] for name in roots[0].operands] if roots[0].opcode == "tuple" else roots
    for shape, item in zip(instruction.shapes, outputs, strict=False):
        if shape.near:
            continue
        while item.opcode in ("bitcast", "copy") and item.operands[0] in inner:
            item = inner[item.operands[0]]
        updates = item.opcode == "dynamic-update-slice"
        total += _size(inner[item.operands[1]]) if updates else shape.bytes
    return total


def _read(item: Instruction, inner: Computation, users: dict[str, list[Instruction]]) -> float:
    """Bytes of a fusion's parameter that are read: all, or what slices take; the target of an update is not read."""
    total = 0.0
    for user in users.get(item.name, []):
        if user.opcode in ("bitcast", "copy"):
            total += _read(user, inner, users)
        elif user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == item.name:
            total += _size(user)
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == item.name:
            continue
        else:
            return _size(item)
    return total


def _size(item: Instruction) -> float:
    return sum(shape.bytes for shape in item.shapes)


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation: its kind, the devices that take part, and the bytes a device sends."""

    kind: str
    group: int
    sent: float


_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")


def collective(instruction: Instruction, computation: Computation) -> Collective | None:
    """The collective operation of an instruction, or None; bytes are those of a ring over the group."""
    kind = instruction.opcode.removesuffix("-start")
    if kind not in _KINDS:
        return None
    size = sum(
        shape.bytes for name in instruction.operands if name in computation for shape in computation[name].shapes
    )
    if kind == "collective-permute":
        return Collective(kind, 2, size)
    group = group_size(instruction.text)
    passes = {"all-gather": group - 1, "all-reduce": 2 * (group - 1) / group}.get(kind, (group - 1) / group)
    return Collective(kind, group, size * passes)


def group_size(text: str) -> int:
    """Devices in one replica group, in any of the notations of XLA."""
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", text)
    if mesh:
        sizes = dict(re.findall(r"'?(\w+)'?=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'?(\w+)'?", mesh[2]) if axis in sizes)
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", text)
    if iota:
        return int(iota[2])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", text)
    return len(listed[1].split(",")) if listed else 1
