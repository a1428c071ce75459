"""``make bench`` and its likes, ``-trainer``, ``-start`` and ``-gpu``: figures, never a pass or fail by time."""

import sys

match sys.argv[1:2]:
    case ["trainer"]:
        from tests.bench.trainer import main as trainer

        trainer(sys.argv[2:])
    case ["gpu"]:
        from tests.bench.gpu import main as gpu

        gpu(sys.argv[2:])
    case ["start"]:
        from tests.bench.start import main as start

        start(sys.argv[2:])
    case _:
        from tests.bench.operator import main as operator
        from tests.bench.startup import main as startup

        operator()
        startup([])
