"""The text of a PDF file, page by page, as far as it has any: what is scanned is a picture."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from types import FrameType

from pypdf import PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, PyPdfError

from llm_app.config import Document
from llm_app.documents import TITLE_CHARACTERS, DataError

MOST_PAGES, MOST_CHARACTERS, MOST_SECONDS = 10_000, 64_000_000, 300
LOCKED = "is encrypted; write it without a password"
logging.getLogger("pypdf").setLevel(logging.ERROR)  # it warns of what most programs write


class TooLongError(Exception):
    """Of the time that a file may take."""


def document(data: bytes, name: str) -> Document:
    """Raises DataError: encrypted, damaged, or made to have no end."""
    try:
        with limited(MOST_SECONDS):
            reader = PdfReader(BytesIO(data))
            if reader.is_encrypted and not reader.decrypt(""):
                raise DataError(f"{name}: {LOCKED}")
            text = "\n\n".join(pages(reader, name))
            title = str((reader.metadata and reader.metadata.title) or "").strip()
    except DataError:
        raise
    except (FileNotDecryptedError, DependencyError):
        raise DataError(f"{name}: {LOCKED}") from None
    except TooLongError:
        raise DataError(f"{name}: takes more than {MOST_SECONDS} s to read; leave it out, or make text of it") from None
    except MemoryError:
        raise DataError(f"{name}: takes more memory than the pod has; leave it out, or make text of it") from None
    except (PyPdfError, Exception) as error:  # noqa: BLE001 -- a damaged file raises whatever its damage leads to
        said = f"{name}: is damaged ({type(error).__name__}: {str(error)[:200]}); write it anew, or leave it out"
        raise DataError(said) from None
    return Document.model_construct(title=title[:TITLE_CHARACTERS] or name, text=text, metadata={})


def pages(reader: PdfReader, name: str) -> Iterator[str]:
    if len(reader.pages) > MOST_PAGES:
        raise DataError(f"{name}: has {len(reader.pages):,} pages, and {MOST_PAGES:,} are read at most; split it")
    left = MOST_CHARACTERS
    for page in reader.pages:
        text = page.extract_text().replace("\0", "").encode("utf-8", "ignore").decode()  # half a surrogate is no text
        left -= len(text)
        if left < 0:
            raise DataError(f"{name}: has more than {MOST_CHARACTERS:,} characters; split it")
        if text.strip():
            yield text


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises TooLongError in the body. Of the main thread, as the index builder's is; in another there is no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(_number: int, _frame: FrameType | None) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
