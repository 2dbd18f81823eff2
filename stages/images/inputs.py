"""Images -> the features that the model sees, computed by PROCESSES threads, or one per CPU."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod

from threadpoolctl import threadpool_limits

from stages.base.process_count import processes_asked_for
from stages.formats.input_spec import InputSpec
from stages.formats.split_file import Features, Images
from stages.images.decoding import cpus
from stages.images.features import deskew, gradient_features
from stages.images.features import feature_count as gradient_feature_count


def feature_count(spec: InputSpec) -> int:
    """D, the number of features of an image."""
    if spec.features == "gradients":
        return gradient_feature_count(spec.channels)
    return prod(spec.image_shape)


def compute_features(images: Images, spec: InputSpec) -> Features:
    """Images (N, C, H, W) -> features (N, D)."""
    if spec.deskew:
        images = deskew(images)
    if spec.features == "gradients":
        return gradient_features(images)
    return images.reshape(len(images), prod(spec.image_shape))


def with_features(chunks: Iterable[Images], spec: InputSpec) -> Iterator[tuple[Features, Images]]:
    """Each chunk's features and images, in order, with only a few chunks in memory.

    NumPy releases the interpreter's lock while it computes, so threads can share the work. BLAS
    must not start threads of its own: for matrices this small, they cost several times what they
    save.
    """
    threads = processes_asked_for() or cpus()
    pending: deque[tuple[Future[Features], Images]] = deque()
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        for images in chunks:
            pending.append((pool.submit(compute_features, images, spec), images))
            if len(pending) > 2 * threads:
                future, done = pending.popleft()
                yield future.result(), done
        for future, done in pending:
            yield future.result(), done
