"""What libraries say of themselves at every step, of which the reader of a pod's log can do nothing."""

from __future__ import annotations

import logging
import warnings


def quieten() -> None:
    """In each process of a stage, before its first step; what concerns the model or the data still is said."""
    # DeepSpeed calls torch's collectives by their former names: two lines of every step of ZeRO-3
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # PEFT looks for the vocabulary of the base, which no stage changes, by the path that readers of an adapter take
    warnings.filterwarnings("ignore", "Could not find a config file in", UserWarning)
    # in a group transformers looks for a plan of tensor parallelism, though a model is read whole
    logging.getLogger("transformers.distributed.tensor_parallel").setLevel(logging.ERROR)
