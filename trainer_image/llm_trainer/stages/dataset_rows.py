"""In data preparation: each dataset is read by its stage's tokenizer, and its rows are kept for the stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from llm_trainer.checkpoint.fence import Fence, writer_of
from llm_trainer.config import DatasetCheck, StageConfig, local_path
from llm_trainer.data.kept_rows import FOLDER, remove_others
from llm_trainer.data.shared_rows import WORK, RowMaking
from llm_trainer.data.sharing import Sharing
from llm_trainer.data.tokenizer import load_tokenizer
from llm_trainer.data.tokenizer_checks import check_rows
from llm_trainer.protocol import Notice


def checked_rows(
    config: StageConfig, datasets: list[DatasetCheck], tokenizer: PreTrainedTokenizerBase, alive: Callable[[], None]
) -> Iterator[Notice]:
    """Of every dataset, by the first process. Raises DataError and ConfigurationError as the stages would."""
    kept = makings(config, datasets, tokenizer, sharing_of(config, alive, Fence(config).check))
    for number, dataset in enumerate(datasets):
        own = tokenizer_for(dataset, tokenizer, config.volumes_root)
        if own is not None:
            yield from check_rows(dataset, own, config.volumes_root, alive, kept.get(number))
    remove_others(Path(config.run_folder) / FOLDER, {making.key for making in kept.values()})


def makings(
    config: StageConfig, datasets: list[DatasetCheck], tokenizer: PreTrainedTokenizerBase, sharing: Sharing
) -> dict[int, RowMaking]:
    """What a process does, by the number of the dataset: once for those whose rows are the same."""
    found: dict[str, tuple[int, RowMaking]] = {}
    for number, dataset in enumerate(datasets):
        own = tokenizer_for(dataset, tokenizer, config.volumes_root)
        if own is not None:
            making = RowMaking(dataset, own, config.volumes_root, sharing)
            found.setdefault(making.key, (number, making))
    return dict(found.values())


def sharing_of(
    config: StageConfig, alive: Callable[[], None], may_write: Callable[[], None], rank: int | str = 0
) -> Sharing:
    """Of a process of this attempt of the stage; ``rank``: 0 of the first."""
    work = Path(config.run_folder) / FOLDER / WORK
    return Sharing(work, f"{config.stage}-{writer_of(config)}", str(rank), rank == 0, may_write, alive)


def tokenizer_for(
    check: DatasetCheck, training: PreTrainedTokenizerBase, volumes_root: str
) -> PreTrainedTokenizerBase | None:
    """That by which the stage will read the rows, as `fine_tuning.find_tokenizer` does; None if it isn't there yet."""
    if check.training_tokenizer:
        return training
    if check.model_uri is None:
        return None
    folder = Path(local_path(check.model_uri, volumes_root))
    if not folder.is_dir():
        return None
    own = (folder / "tokenizer_config.json").is_file()
    return load_tokenizer(folder, f"the tokenizer of {check.model_uri}") if own else training
