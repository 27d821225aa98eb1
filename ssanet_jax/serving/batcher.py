"""Micro-batching: inputs of different requests are computed together."""

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


class QueueFull(Exception):
    """More items than the queue has room for."""


@dataclasses.dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    arrived: float  # by the clock of the event loop, seconds
    result: asyncio.Future[Result]


class Batcher(Generic[Item, Result]):
    """Computes items in batches, one batch at a time, in the order in which they were submitted.

    A batch is computed when it is full, or when its first item has waited for `max_wait`. While a batch is computed in
    a thread, the next items wait, so that under load batches are full without any delay. It is an async context
    manager: items are computed between its start and its end.

    Args:
      compute: computes the results of a batch, in its order.
      batch_size: items in a full batch.
      max_wait: seconds that an item waits for others.
      capacity: the most items that wait.
      on_batch: is called with the number of items of each batch.
    """

    def __init__(
        self,
        compute: Callable[[list[Item]], Sequence[Result]],
        *,
        batch_size: int,
        max_wait: float,
        capacity: int,
        on_batch: Callable[[int], None] = lambda size: None,
    ):
        self._compute, self._on_batch = compute, on_batch
        self._batch_size, self._max_wait, self._capacity = batch_size, max_wait, capacity
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, 'network')
        self._loop: asyncio.Task[None] | None = None
        self.failed = False
        """Whether the last batch raised an exception."""

    @property
    def waiting(self) -> int:
        """The number of items that wait."""
        return len(self._queue)

    @property
    def running(self) -> bool:
        """Whether items that are submitted now will be computed."""
        return self._loop is not None and not self._loop.done()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        self._loop.cancel()
        await asyncio.wait([self._loop])
        self._thread.shutdown(wait=False)

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Waits for the results of items, which may be in different batches.

        If the caller is cancelled, items that wait are dropped.

        Raises:
          QueueFull: there is no room for all items; none of them waits then.
          Exception: what `compute` raised for the batch of one of the items.
        """
        if self.waiting + len(items) > self._capacity:
            raise QueueFull
        loop = asyncio.get_running_loop()
        entries = [_Waiting(item, loop.time(), loop.create_future()) for item in items]
        self._queue.extend(entries)
        self._arrival.set()
        try:
            return await asyncio.gather(*(entry.result for entry in entries))
        except BaseException:
            dropped = set(entries)
            self._queue = deque(entry for entry in self._queue if entry not in dropped)
            raise

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            if not batch:
                continue  # the items that waited were dropped
            self._on_batch(len(batch))
            try:
                items = [entry.item for entry in batch]
                results = await loop.run_in_executor(self._thread, self._compute, items)
                outcomes = list(zip(batch, results, strict=True))
            except Exception as error:
                self.failed = True
                for entry in batch:
                    if not entry.result.done():  # else its caller was cancelled
                        entry.result.set_exception(error)
                continue
            self.failed = False
            for entry, result in outcomes:
                if not entry.result.done():
                    entry.result.set_result(result)

    async def _next_batch(self) -> list[_Waiting[Item, Result]]:
        """Takes the next batch from the queue when it is due; it is empty if all of its items were dropped."""
        await self._arrivals(1)
        try:
            async with asyncio.timeout_at(self._queue[0].arrived + self._max_wait):
                await self._arrivals(self._batch_size)
        except TimeoutError:
            pass
        return [self._queue.popleft() for _ in range(min(self._batch_size, self.waiting))]

    async def _arrivals(self, count: int) -> None:
        """Waits until `count` items wait."""
        while self.waiting < count:
            self._arrival.clear()
            await self._arrival.wait()
