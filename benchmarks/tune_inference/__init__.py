"""Prediction knobs on real data: a short training, ``tune-inference``, and the literal algorithm beside it."""
