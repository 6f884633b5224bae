"""The operations that take most of the time, and their implementations; all of an operation give the same numbers.

``dispatch`` is the only module that chooses one. Each operation has a folder: ``reference`` is the plain formula in
PyTorch, against which the tests compare the others; ``cpu`` saves memory and time on the CPU; ``triton`` contains the
kernels for CUDA. Modules named ``triton*`` need Triton, which is optional, so they are imported where they are used.
"""
