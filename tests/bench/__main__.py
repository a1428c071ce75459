"""``make bench`` and its likes, such as ``bench-trainer``: figures, never a pass or fail by time.

``python -m tests.bench quality CORPUS`` and ``mixture CORPUS`` have no target, as they want the demo's corpus.
"""

import sys

match sys.argv[1:2]:
    case ["trainer"]:
        from tests.bench.trainer import main as trainer

        trainer(sys.argv[2:])
    case ["gpu"]:
        from tests.bench.gpu import main as gpu

        gpu(sys.argv[2:])
    case ["check"]:
        from tests.bench.gpu_check import main as check

        sys.exit(check(sys.argv[2:]))
    case ["large"]:
        from tests.bench.large import main as large

        large()
    case ["memory"]:
        from tests.bench.memory import main as memory

        memory(sys.argv[2:])
    case ["checkpoint"]:
        from tests.bench.checkpoint import main as checkpoint

        checkpoint(sys.argv[2:])
    case ["start"]:
        from tests.bench.start import main as start

        start(sys.argv[2:])
    case ["digests"]:
        from tests.bench.digests import main as digests

        digests(sys.argv[2:])
    case ["fetch"]:
        from tests.bench.fetch import main as fetch

        fetch(sys.argv[2:])
    case ["app"]:
        from tests.bench.app import main as app

        app(sys.argv[2:])
    case ["seen"]:
        from tests.bench.seen import main as seen

        seen(sys.argv[2:])
    case ["quality"]:
        from tests.bench.quality import main as quality

        quality(sys.argv[2:])
    case ["mixture"]:
        from tests.bench.mixture import main as mixture

        mixture(sys.argv[2:])
    case ["preparation"]:
        from tests.bench.preparation import main as preparation

        preparation(sys.argv[2:])
    case ["preparation-memory"]:
        from tests.bench.preparation_memory import main as preparation_memory

        preparation_memory(sys.argv[2:])
    case _:
        from tests.bench.operator import main as operator
        from tests.bench.startup import main as startup

        operator()
        startup([])
