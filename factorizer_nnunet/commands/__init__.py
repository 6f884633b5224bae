"""One module per subcommand of ``factorizer-nnunet``: help, ``add_options``, and ``run``, which calls one function."""
