"""Micro-batching, alone."""

import asyncio
import threading

import pytest

from ssanet_jax.serving.batcher import Batcher, QueueFull


class Recorder:
    """A `compute` that notes its batches, waits while `gate` is closed, and fails for negative numbers."""

    def __init__(self):
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, batch: list[int]) -> list[int]:
        self.batches.append(batch)
        assert self.gate.wait(10)
        if min(batch) < 0:
            raise ValueError(f'a negative number in {batch}')
        return [10 * item for item in batch]


def batching(compute, batch_size=4, max_wait=0.0, capacity=100, **options):
    return Batcher(compute, batch_size=batch_size, max_wait=max_wait, capacity=capacity, **options)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_results_are_those_of_the_items_and_batches_keep_the_order():
    async def main():
        compute, sizes = Recorder(), []
        async with batching(compute, on_batch=sizes.append) as batcher:
            compute.gate.clear()
            first = asyncio.create_task(batcher.submit([0]))
            await until(lambda: compute.batches)
            others = [asyncio.create_task(batcher.submit(items)) for items in ([1], [2, 3], [4, 5, 6])]
            await until(lambda: batcher.waiting == 6)
            compute.gate.set()
            assert await asyncio.gather(first, *others) == [[0], [10], [20, 30], [40, 50, 60]]
        # What came while the first batch was computed is in full batches.
        assert compute.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert sizes == [1, 4, 2]

    asyncio.run(main())


def test_a_full_batch_does_not_wait_and_a_smaller_one_waits_for_its_time():
    async def main():
        compute = Recorder()
        async with batching(compute, batch_size=2, max_wait=60.0) as batcher:
            async with asyncio.timeout(10):
                assert await batcher.submit([1, 2]) == [10, 20]
            alone = asyncio.create_task(batcher.submit([3]))
            await asyncio.sleep(0.05)
            assert compute.batches == [[1, 2]] and not alone.done()
            assert await batcher.submit([4]) == [40]  # completes the batch
            assert await alone == [30]
            assert compute.batches == [[1, 2], [3, 4]]
        async with batching(compute, batch_size=2, max_wait=0.01) as batcher:
            assert await asyncio.wait_for(batcher.submit([5]), 10) == [50]

    asyncio.run(main())


def test_a_request_is_refused_whole_if_the_queue_has_no_room():
    async def main():
        compute = Recorder()
        async with batching(compute, batch_size=1, capacity=2) as batcher:
            compute.gate.clear()
            computed = asyncio.create_task(batcher.submit([1]))
            await until(lambda: compute.batches)
            waits = asyncio.create_task(batcher.submit([2]))
            await until(lambda: batcher.waiting == 1)
            with pytest.raises(QueueFull):
                await batcher.submit([3, 4])
            assert batcher.waiting == 1
            compute.gate.set()
            assert await computed == [10] and await waits == [20]
            assert await batcher.submit([5, 6]) == [50, 60]  # there is room again

    asyncio.run(main())


def test_an_exception_reaches_the_requests_of_its_batch_only():
    async def main():
        compute = Recorder()
        async with batching(compute, batch_size=2) as batcher:
            compute.gate.clear()
            first = asyncio.create_task(batcher.submit([0]))
            await until(lambda: compute.batches)
            tasks = [asyncio.create_task(batcher.submit([item])) for item in (1, -2, 3, 4)]
            await until(lambda: batcher.waiting == 4)
            compute.gate.set()
            assert await first == [0]
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert compute.batches == [[0], [1, -2], [3, 4]]
            assert [str(result) for result in results[:2]] == ['a negative number in [1, -2]'] * 2
            assert results[2:] == [[30], [40]]
            assert not batcher.failed and batcher.running
            with pytest.raises(ValueError, match='a negative number'):
                await batcher.submit([-1])
            assert batcher.failed and batcher.running

    asyncio.run(main())


def test_results_of_the_wrong_number_are_an_error():
    async def main():
        async with batching(lambda batch: batch[:1]) as batcher:
            with pytest.raises(ValueError, match='shorter'):
                await batcher.submit([1, 2])

    asyncio.run(main())


@pytest.mark.parametrize('computed', [False, True])
def test_a_cancelled_request_stalls_no_other(computed):
    async def main():
        compute = Recorder()
        async with batching(compute, batch_size=1) as batcher:
            compute.gate.clear()
            first = asyncio.create_task(batcher.submit([1]))
            await until(lambda: compute.batches)
            second, third = (asyncio.create_task(batcher.submit([item])) for item in (2, 3))
            await until(lambda: batcher.waiting == 2)
            gone = first if computed else second
            gone.cancel()
            await asyncio.wait([gone])
            assert batcher.waiting == (2 if computed else 1)
            compute.gate.set()
            others = [task for task in (first, second, third) if task is not gone]
            assert await asyncio.wait_for(asyncio.gather(*others), 10) == [[20 if computed else 10], [30]]
            # The network computes nothing for a client that has gone before its turn.
            assert compute.batches == ([[1], [2], [3]] if computed else [[1], [3]])

    asyncio.run(main())


def test_cancelling_the_only_item_that_waits_leaves_the_batcher_working():
    async def main():
        async with batching(Recorder(), batch_size=2, max_wait=0.05) as batcher:
            gone = asyncio.create_task(batcher.submit([1]))
            await until(lambda: batcher.waiting == 1)
            gone.cancel()
            await asyncio.sleep(0.1)
            assert await asyncio.wait_for(batcher.submit([2]), 10) == [20]

    asyncio.run(main())
