"""One module per subcommand of ``factorizer-nnunet``.

Its docstring is the command's help; ``add_options`` declares the options, and ``run`` calls one plain function.
"""
