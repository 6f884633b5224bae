"""Challenge releases into nnU-Net's raw format, and predictions back.

The data's way: ``discover`` lists files and finds cases by the declarations in ``releases`` (in the words of ``spec``),
``check`` reads every case, ``survey`` gathers what is wrong, ``convert`` writes what is right, with ``registration``,
``splits`` and ``report``; ``challenge`` is the way back.
"""
