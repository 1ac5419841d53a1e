"""What a problem family produces: the facts of a scene, a question about them, and how to draw them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from infimmr_jax.data.synthetic.canvas import Canvas
from infimmr_jax.names import AnswerType


@dataclasses.dataclass(frozen=True)
class Scene:
    """One problem before it is drawn.

    `facts` is the caption: all that the picture shows and the question may need. `intro` comes before the facts when
    they are given in the question itself (the text twin). `draw` paints the scene onto a canvas of the
    given `scale` (see `Canvas`).
    """

    facts: str
    question: str
    answer: str
    solution: str
    level: float
    draw: Callable[[Canvas], None]
    answer_type: AnswerType = "math"
    choices: tuple[str, ...] = ()
    intro: str = "values"
    scale: int = 1
