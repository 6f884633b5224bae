"""One module per subcommand of ``factorizer-nnunet``: ``add_parser`` declares it, ``run`` calls one plain function."""
