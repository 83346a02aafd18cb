"""Random numbers that follow from counters alone, so that a resumed training draws what an undisturbed one draws."""

import numpy as np
import torch

__all__ = ['seeded_generator']


def seeded_generator(*words: int, device: torch.device | str = 'cpu') -> torch.Generator:
    """Make a generator whose numbers depend on every one of some integers, such as a seed and an iteration.

    Neighbouring integers give unrelated numbers (NumPy's ``SeedSequence``); a sum of them as seed would make the second
    iteration of seed 0 the first one of seed 1.

    Args:
        *words: Integers >= 0.
        device: Where the generator draws.

    Returns:
        A generator of its own for each call.
    """
    (seed,) = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(seed))
