"""Challenge releases converted to nnU-Net's raw format, and predictions converted back.

``discover`` lists the source files and finds cases as described in ``releases`` (in terms of ``spec``), ``check`` reads
every case, ``survey`` collects the problems, and ``convert`` writes the valid cases with the help of ``registration``,
``splits`` and ``report``. ``challenge`` converts predictions back.
"""
