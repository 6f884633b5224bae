"""The residual MLP branch: x + contract(gelu(expand(norm(x))))."""
