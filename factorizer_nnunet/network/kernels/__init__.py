"""Triton kernels for training and inference under autocast on CUDA; see ``choice.can_use_kernels``.

Optional: without Triton, or on another device, the plain PyTorch of ``network`` gives the same numbers, and the tests
compare both. Nothing is compiled at install time; each kernel is an operator of ``torch.library``, so that
``torch.compile`` takes it as it is.
"""
