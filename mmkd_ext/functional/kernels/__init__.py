"""Compiled twins of the slowest sums: written once, built on the user's machine, checked before they are trusted.

Each has the result of a plain torch function, which runs wherever a kernel cannot: without a compiler, on another
device, or with the environment variable ``MMKD_KERNELS=off``.
"""
