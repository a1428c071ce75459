"""The models that a user names by a URI, as data preparation looks at them: by their files, without weights in memory.

What is found here would end a stage after it has taken its GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llm_trainer.config import ModelCheck, local_path
from llm_trainer.data.model_files import ModelFolder, check_model_files
from llm_trainer.models.adapter import base_of, is_adapter
from llm_trainer.protocol import ModelSize, Notice
from llm_trainer.runtime.errors import ConfigurationError, DataError
from llm_trainer.runtime.startup import importing
from llm_trainer.runtime.volumes import refuse_links_out

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llm_trainer.models.size import Size

LONGEST_URI = 256  # of which the size is told


def check_files(check: ModelCheck, volumes_root: str, alive: Callable[[], None]) -> None:
    """Raises DataError for a folder that no stage could load, by its files alone.

    And ConfigurationError for an adapter of which nobody has written down the base.
    """
    folder = Path(local_path(check.uri, volumes_root))
    refuse_links_out(folder, volumes_root, f"{check.field} {check.uri}")
    check_model_files(ModelFolder(folder, check.field, check.uri), alive)
    if is_adapter(folder):
        with named(check):
            base = base_of(folder, volumes_root)
        refuse_links_out(base.folder, volumes_root, f"{check.field} {base.uri}")
        check_model_files(ModelFolder(base.folder, f"{check.field}, the base of its adapter", base.uri), alive)


def check_weights(
    check: ModelCheck, training: PreTrainedTokenizerBase, volumes_root: str
) -> tuple[str, list[Notice], ModelSize | None]:
    """In a few words what the model is, what is to be told of it, and its size. `training`: the training's tokenizer.

    Raises DataError for one whose weights are not its own, and ConfigurationError for a folder of no model that
    transformers has, or one that the stages ask more of than it has: tokens, positions.
    """
    with importing():
        from llm_trainer.data.tokenizer import load_tokenizer
        from llm_trainer.models.limits import check_length, check_vocabulary
        from llm_trainer.models.size import size_of
        from llm_trainer.models.weights import check_folder, shown
    folder = Path(local_path(check.uri, volumes_root))
    whole = base_of(folder, volumes_root).folder if is_adapter(folder) else folder
    with named(check):
        model, unused = check_folder(whole, scores=check.scores)
        if check.length_field:
            check_length(model, check.length, check.length_field)
        own = (folder / "tokenizer_config.json").is_file()
        if own:
            check_vocabulary(model, load_tokenizer(folder, "its tokenizer"), check.uri)
        if not own or not check.stage:  # stages on the corpus read by the training's
            check_vocabulary(model, training, check.uri)
    said = f"{check.field}: its model has no use for {shown(unused)}"
    notices = [Notice(reason="UnusedWeights", message=said)] if unused else []
    size = size_of(model)
    short = len(check.uri) <= LONGEST_URI and check.uri.isascii()  # the last word and the status are
    told = told_size(size, check.uri) if short else None
    return f"a {model.config.model_type} of {size} in {check.uri}", notices, told


def told_size(size: Size, uri: str = "") -> ModelSize:
    """As the operator is told it. `uri`: empty for the model from scratch."""
    return ModelSize(
        uri=uri, parameters=size.total, **{name: value for name, value in vars(size).items() if name != "total"}
    )


@contextmanager
def named(check: ModelCheck) -> Iterator[None]:
    """A user looks for the field, which the functions within don't know."""
    try:
        yield
    except (ConfigurationError, DataError) as error:
        raise type(error)(f"{check.field}: {error}") from error
