"""Tools inside of the server: a function of the user's image, and knowledge."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from llm_app.requests import RequestError
from llm_app.retrieval import Found
from llm_app.team import Tool
from llm_app.tools.base import Offer, Result, ToolError
from llm_app.tools.offers import known_offers

AT_ONCE = 8  # calls of one function: a thread that hangs can't be ended
Retrieve = Callable[[str, Sequence[str], int | None], Awaitable[Found]]


class PythonSource:
    """Raises ValueError if there is no such function: the server does not start."""

    def __init__(self, tool: Tool) -> None:
        assert tool.python  # noqa: S101
        self._tool = tool
        module, _, name = tool.python.entry_point.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"spec.tools: {tool.name}: {tool.python.entry_point} can't be imported: {error}") from None
        if not callable(found):
            raise ValueError(f"spec.tools: {tool.name}: {tool.python.entry_point} is no function")
        self._function = found
        self._places = asyncio.Semaphore(AT_ONCE)

    async def open(self) -> None:
        return

    async def offers(self) -> Sequence[Offer]:
        return known_offers(self._tool)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Result:
        del name
        await self._places.acquire()
        own = inspect.iscoroutinefunction(self._function)
        work = asyncio.ensure_future(
            self._awaited(arguments) if own else asyncio.to_thread(self._function, **arguments)
        )
        work.add_done_callback(self._done)
        try:
            found = await (work if own else asyncio.shield(work))
            return Result(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False))
        except Exception as error:  # noqa: BLE001 -- whatever a user's function raises, the model is told
            raise ToolError(f"{type(error).__name__}: {error}"[:1000]) from None

    async def _awaited(self, arguments: Mapping[str, Any]) -> Any:
        """Called in the task: arguments that it does not take are an error of the call, whose place is given back."""
        return await self._function(**arguments)

    def _done(self, work: asyncio.Future[Any]) -> None:
        self._places.release()
        if not work.cancelled():
            work.exception()  # of one that nobody waits for any more

    async def close(self) -> None:
        return


class KnowledgeSource:
    def __init__(self, tool: Tool, retrieve: Retrieve) -> None:
        assert tool.knowledge  # noqa: S101
        self._tool, self._wanted, self._retrieve = tool, tool.knowledge, retrieve

    async def open(self) -> None:
        return

    async def offers(self) -> Sequence[Offer]:
        return known_offers(self._tool)

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Result:
        del name
        wanted = self._wanted
        try:
            found = await self._retrieve(str(arguments["query"]), wanted.names, wanted.top_k)
        except RequestError as error:
            raise ToolError(str(error)) from None
        passages = tuple(found.passages)
        return Result("" if passages else "Nothing was found.", passages)

    async def close(self) -> None:
        return
