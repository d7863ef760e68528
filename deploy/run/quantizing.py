"""A network of a run as the integers that would be deployed."""

from __future__ import annotations

from deploy.compile.artifact import quantize
from deploy.run.context import Context
from nas.lcpaq.policy import Policy
from nas.quant.integer_graph import IntegerGraph
from nas.quant.scheme import Scheme
from nas.quant.tails import Tail, with_tail
from nas.space import Architecture
from nas.tasks.task import Network
from nas.training.threads import one_thread


def quantize_network(
    context: Context,
    model: Network,
    architecture: Architecture | None = None,
    *,
    scheme: Scheme | None = None,
    policy: Policy | None = None,
    tail: Tail | None = None,
) -> IntegerGraph:
    """`model` quantized as the run quantizes: its calibration images, its board's safe resize factors.

    `architecture` gives the blocks their bits (None: all 8), `policy` each layer's, over the architecture's; `scheme`
    is the experiment's if None, `tail`, which decides the class map, the run's. On one thread: sums in another order
    would be another file, which is measured anew.
    """
    with one_thread():
        graph = quantize(
            model,
            [context.calibration],
            context.experiment.data.size,
            architecture=architecture,
            scheme=scheme or context.experiment.quantization.scheme,
            resize_factors=context.resize_factors,
            policy=policy,
        )
    return with_tail(graph, tail or context.tail)
